"""
YAML as a tree that knows its lines.

The values are those of PyYAML's safe loader, which LiteLLM uses, with four differences: the same
key twice is an error (PyYAML silently takes the last), keys stay as they are written (`on:` is a
name), so do dates (`2024-02-01` is an API version), and a number that is not finite is an error.
Size, depth and what aliases may expand to are bounded.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import yaml

from proxy.config.remarks import ConfigError, Place, Remark, shown

if TYPE_CHECKING:
    Loader: TypeAlias = yaml.SafeLoader
else:
    Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast

LARGEST_BYTES = 16 * 1024 * 1024
MOST_NODES = 500_000  # aliases counted as often as they stand
DEEPEST = 64

Scalar: TypeAlias = bool | int | float | str | None

_TAG = "tag:yaml.org,2002:"
_KEPT_AS_WRITTEN = {f"{_TAG}{name}" for name in ("str", "timestamp", "value")}
_CONSTRUCTED = {f"{_TAG}{name}": name for name in ("null", "bool", "int", "float")}
_CONSTRUCTOR = yaml.constructor.SafeConstructor()
_UNPRINTABLE = yaml.reader.Reader.NON_PRINTABLE


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar: its value, and the text it was written as."""

    place: Place
    value: Scalar = field(repr=False)
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Items:
    """A sequence."""

    place: Place
    items: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping. `places` says where each key stands."""

    place: Place
    entries: Mapping[str, Tree]
    places: Mapping[str, Place]


Tree: TypeAlias = Leaf | Items | Fields


def plain(tree: Tree) -> Any:
    """Return the tree as Python's own lists, dicts and scalars."""
    match tree:
        case Leaf():
            return tree.value
        case Items():
            return [plain(item) for item in tree.items]
        case Fields():
            return {name: plain(entry) for name, entry in tree.entries.items()}


def parse(raw: bytes, file: str) -> Tree | None:
    """Return the one document of a file, None when it is empty. Raises ConfigError."""
    text = _decoded(raw, file)
    loader = Loader(text)
    try:
        return _Composer(loader, file).document()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = mark.line + 1 if mark else 1
        raise _error(file, line, f"not YAML: {problem_of(exc, text, line)}") from None
    except yaml.YAMLError:
        raise _error(file, 1, "not YAML") from None
    finally:
        loader.dispose()


def _decoded(raw: bytes, file: str) -> str:
    if len(raw) > LARGEST_BYTES:
        raise _error(file, 1, f"larger than {LARGEST_BYTES // 1024 // 1024} MB")
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw[: exc.start].count(b"\n") + 1
        raise _error(file, line, "not UTF-8 text") from None
    odd = _UNPRINTABLE.search(text)
    if odd:
        line = text.count("\n", 0, odd.start()) + 1
        raise _error(file, line, f"the character U+{ord(odd.group()):04X} is not allowed in YAML")
    return text


def problem_of(exc: yaml.MarkedYAMLError, text: str, line: int) -> str:
    """Return what is wrong with the YAML, in its parser's words."""
    lines = text.split("\n")
    if "\t" in lines[min(line, len(lines)) - 1]:
        return "a tab is used for indentation; use spaces"
    # Quoted parts can come from the file, and with them a secret: only YAML's own signs stay.
    quoted = re.compile(r"'([^']*)'")
    return quoted.sub(
        lambda found: found[0] if len(found[1]) < 2 or found[1][0] == "<" else "…",
        exc.problem or "not understood",
    )


def _error(file: str, line: int, text: str) -> ConfigError:
    return ConfigError([Remark(file, line, text)])


@dataclass(frozen=True, slots=True)
class _Sized:
    """A tree, and how many nodes it is when every alias is written out."""

    tree: Tree
    nodes: int


class _Composer:
    """Builds the tree from the loader's events; recursion is bounded by DEEPEST."""

    def __init__(self, loader: Loader, file: str) -> None:
        self._loader = loader
        self._file = file
        self._anchors: dict[str, _Sized | None] = {}  # None: still being built

    def document(self) -> Tree | None:
        self._next()  # the stream starts
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        sized = self._tree(self._next(), 0)
        self._next()  # the document ends
        end = self._next()
        if not isinstance(end, yaml.StreamEndEvent):
            raise self._refuse(end, "a second document starts here; one file is one document")
        return sized.tree

    def _next(self) -> yaml.Event:
        return cast(yaml.Event, self._loader.get_event())  # type: ignore[no-untyped-call]

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(self._file, mark.line + 1 if mark else 1)

    def _refuse(self, event: yaml.Event, text: str) -> ConfigError:
        return _error(self._file, self._place(event).line, text)

    def _tree(self, event: yaml.Event, depth: int) -> _Sized:
        if depth > DEEPEST:
            raise self._refuse(event, f"nested deeper than {DEEPEST}")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        anchor: str | None = cast(yaml.NodeEvent, event).anchor
        if anchor is not None:
            self._anchors[anchor] = None
        sized = self._node(event, depth)
        if sized.nodes > MOST_NODES:
            raise self._refuse(event, f"more than {MOST_NODES} values, its aliases written out")
        if anchor is not None:
            self._anchors[anchor] = sized
        return sized

    def _alias(self, event: yaml.AliasEvent) -> _Sized:
        if event.anchor not in self._anchors:
            raise self._refuse(event, "an alias (*) of an anchor (&) that does not stand before it")
        sized = self._anchors[event.anchor]
        if sized is None:
            raise self._refuse(event, "an alias (*) inside what it stands for")
        return sized

    def _node(self, event: yaml.Event, depth: int) -> _Sized:
        match event:
            case yaml.ScalarEvent():
                return _Sized(self._leaf(event), 1)
            case yaml.SequenceStartEvent():
                self._check_tag(event, "seq")
                return self._items(event, depth)
            case yaml.MappingStartEvent():
                self._check_tag(event, "map")
                return self._fields(event, depth)
            case _:
                raise AssertionError("unreachable")

    def _check_tag(self, event: yaml.CollectionStartEvent, name: str) -> None:
        if event.tag not in {None, "!", _TAG + name}:
            raise self._refuse(event, "a tag (!) that is not supported here")

    def _items(self, event: yaml.SequenceStartEvent, depth: int) -> _Sized:
        items: list[Tree] = []
        nodes = 1
        while not isinstance(inner := self._next(), yaml.SequenceEndEvent):
            sized = self._tree(inner, depth + 1)
            items.append(sized.tree)
            nodes += sized.nodes
        return _Sized(Items(self._place(event), tuple(items)), nodes)

    def _fields(self, event: yaml.MappingStartEvent, depth: int) -> _Sized:
        entries: dict[str, Tree] = {}
        places: dict[str, Place] = {}
        merged: list[Fields] = []
        nodes = 1
        while not isinstance(inner := self._next(), yaml.MappingEndEvent):
            name = self._key(inner)
            sized = self._tree(self._next(), depth + 1)
            nodes += sized.nodes
            if name is None:
                merged += self._merged(inner, sized.tree)
                continue
            if name in places:
                first = places[name].line
                raise self._refuse(inner, f"{shown(name)} stands here again, after line {first}")
            entries[name], places[name] = sized.tree, self._place(inner)
        # What is written out wins over what is merged in, an earlier merge over a later one.
        for fields in merged:
            for name, tree in fields.entries.items():
                entries.setdefault(name, tree)
                places.setdefault(name, fields.places[name])
        return _Sized(Fields(self._place(event), entries, places), nodes)

    def _key(self, event: yaml.Event) -> str | None:
        """Return a key as it is written; None for the merge key `<<`."""
        if isinstance(event, yaml.AliasEvent):
            event_tree = self._alias(event).tree
            if isinstance(event_tree, Leaf):
                return event_tree.text
        if not isinstance(event, yaml.ScalarEvent):
            raise self._refuse(event, "a key must be a plain name")
        tag = self._tag(event)
        if tag == f"{_TAG}merge":
            return None
        if not event.value:
            raise self._refuse(event, "a key is empty")
        leaf = Leaf(self._place(event), event.value, event.value)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Sized(leaf, 1)
        return leaf.text

    def _merged(self, event: yaml.Event, tree: Tree) -> list[Fields]:
        trees = list(tree.items) if isinstance(tree, Items) else [tree]
        fields = [each for each in trees if isinstance(each, Fields)]
        if len(fields) != len(trees):
            raise self._refuse(event, "<< takes a mapping, or a list of mappings")
        return fields

    def _tag(self, event: yaml.ScalarEvent) -> str:
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._loader.resolve(  # type: ignore[no-untyped-call]
                yaml.ScalarNode, event.value, event.implicit
            )
        return str(tag)

    def _leaf(self, event: yaml.ScalarEvent) -> Leaf:
        tag, text, place = self._tag(event), event.value, self._place(event)
        if tag in _KEPT_AS_WRITTEN:
            return Leaf(place, text, text)
        if tag not in _CONSTRUCTED:
            raise self._refuse(event, "a tag (!) that is not supported here")
        node = yaml.ScalarNode(tag, text)
        try:
            value: Scalar = getattr(_CONSTRUCTOR, f"construct_yaml_{_CONSTRUCTED[tag]}")(node)
        except (ValueError, KeyError, IndexError, OverflowError, yaml.YAMLError):
            raise self._refuse(event, f"not a value of the type {_CONSTRUCTED[tag]}") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise self._refuse(event, "not a finite number")
        return Leaf(place, value, text)
