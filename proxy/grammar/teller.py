"""
One answer of OpenAI's Responses, told event by event: numbered, in OpenAI's order, and every item
opened and closed. Pure.

An item is told piece by piece as it comes: `open`, `say`, `close`. The source of the order is
OpenAI's API reference, "Streaming events".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.types import Json

# Of each kind of item that is told in pieces: where its words stand, and the event for one.
CALLS: Mapping[str, tuple[str, str]] = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
}
# Of each kind of part: where its words stand, and the event for one.
PARTS: Mapping[str, tuple[str, str]] = {
    "output_text": ("text", "response.output_text"),
    "refusal": ("refusal", "response.refusal"),
    "summary_text": ("text", "response.reasoning_summary_text"),
    "reasoning_text": ("text", "response.reasoning_text"),
}
ENDINGS = {"incomplete": "response.incomplete"}  # by status; any other is complete


class Item:
    """An item that is being told, and its place in the answer."""

    def __init__(self, index: int, fields: Json) -> None:
        self.index = index
        self.fields: dict[str, Any] = dict(fields)
        self.list = "summary" if fields.get("type") == "reasoning" else "content"
        self.part: dict[str, Any] | None = None  # the one that is being told
        self._words: list[str] = []

    @property
    def kind(self) -> str:
        return str(self.fields.get("type"))

    @property
    def words(self) -> str:
        return "".join(self._words)

    def add(self, words: str) -> None:
        self._words.append(words)

    def begin(self, part: dict[str, Any] | None) -> None:
        self.part = part
        self._words = []

    def place(self) -> Json:
        """Return where in the answer its next words stand."""
        place = {"item_id": self.fields.get("id"), "output_index": self.index}
        if self.part is None:
            return place
        number = len(self.fields[self.list])
        return {**place, "summary_index" if self.list == "summary" else "content_index": number}


class Teller:
    """The events of one answer; `output` is its items so far, those that are closed."""

    def __init__(self) -> None:
        self._number = 0
        self._items = 0
        self._output: dict[int, Json] = {}

    @property
    def output(self) -> list[Json]:
        return [self._output[index] for index in sorted(self._output)]

    def begin(self, response: Json) -> Iterator[Json]:
        """Yield what comes before the first item; `response` is one without an output."""
        yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)

    def end(self, response: Json) -> Iterator[Json]:
        """Yield the last event, which holds all of the answer."""
        kind = ENDINGS.get(str(response.get("status")), "response.completed")
        yield self._event(kind, response=response)

    def open(self, fields: Json, told: list[Json]) -> Item:
        """Return a new item, of which nothing is said yet; its event is added to `told`."""
        item = Item(self._items, fields)
        self._items += 1
        told.append(self._event("response.output_item.added", output_index=item.index, item=fields))
        return item

    def say(self, item: Item, words: str, kind: str = "") -> Iterator[Json]:
        """Yield what words more of the item come to; `kind` is that of the part they belong to."""
        if item.kind not in CALLS and (item.part is None or item.part["type"] != kind):
            yield from self._end_part(item)
            yield from self._begin_part(item, kind)
        item.add(words)
        more: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        yield self._event(f"{_event_of(item)}.delta", **item.place(), delta=words, **more)

    def annotate(self, item: Item, annotation: Json) -> Iterator[Json]:
        """Yield what a note to the text of the item comes to, where it has one."""
        if item.part is not None and item.part["type"] == "output_text":
            notes = item.part["annotations"]
            notes.append(annotation)
            yield self._event(
                "response.output_text.annotation.added",
                **item.place(),
                annotation_index=len(notes) - 1,
                annotation=annotation,
            )

    def close(self, item: Item, status: str = "completed", **fields: Any) -> Iterator[Json]:
        """Yield the end of an item; `fields` are known only now."""
        if item.kind in CALLS:
            name, kind = CALLS[item.kind]
            item.fields[name] = item.words
            more = {"name": item.fields.get("name")} if name == "arguments" else {}
            yield self._event(f"{kind}.done", **item.place(), **{name: item.words}, **more)
        else:
            yield from self._end_part(item)
        done = {**item.fields, **fields}
        if "status" in done:
            done["status"] = status
        self._output[item.index] = done
        yield self._event("response.output_item.done", output_index=item.index, item=done)

    def _begin_part(self, item: Item, kind: str) -> Iterator[Json]:
        blank: dict[str, Any] = {"type": kind, PARTS[kind][0]: ""}
        if kind == "output_text":
            blank |= {"annotations": [], "logprobs": []}
        item.begin(blank)
        yield self._event(f"{_part_event_of(item)}.added", **item.place(), part=dict(blank))

    def _end_part(self, item: Item) -> Iterator[Json]:
        if item.part is None:
            return
        kind, part = _event_of(item), item.part
        name = PARTS[part["type"]][0]
        part[name] = item.words
        more: dict[str, Any] = {"logprobs": []} if part["type"] == "output_text" else {}
        yield self._event(f"{kind}.done", **item.place(), **{name: item.words}, **more)
        yield self._event(f"{_part_event_of(item)}.done", **item.place(), part=part)
        item.fields[item.list] = [*item.fields[item.list], part]
        item.begin(None)

    def _event(self, kind: str, **fields: Any) -> Json:
        number, self._number = self._number, self._number + 1
        return {"type": kind, "sequence_number": number, **fields}


def _event_of(item: Item) -> str:
    return CALLS[item.kind][1] if item.part is None else PARTS[item.part["type"]][1]


def _part_event_of(item: Item) -> str:
    summary = item.list == "summary"
    return "response.reasoning_summary_part" if summary else "response.content_part"
