"""Events laid out in time: which bytes, after which wait, behind which gate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.providers.sse import Event, encode
from tests.providers.steps import Answer
from tests.providers.transcript import Part


def event_parts(answer: Answer, events: Iterable[Event]) -> Iterator[Part]:
    """One part per event."""
    seen: set[int] = set()
    gate = answer.gate if answer.gate_after_tokens is not None else None
    for at, event in enumerate(events):
        wait_s = answer.gap_s if at else 0.0
        if event.tokens and not seen:
            wait_s += answer.first_token_s
        stop_here = event.kind != "open" and len(seen) == answer.gate_after_tokens
        opens = gate if stop_here and not seen.issuperset(event.tokens or [-1]) else None
        gate = None if opens else gate
        yield Part(encode(event, answer.sse_style, first=at == 0), event.tokens, wait_s, opens)
        seen.update(event.tokens)
