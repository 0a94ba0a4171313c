"""
The file, and the files that its `include` names, as one tree.

Paths are relative to the file that names them. Lists are put together, the including file's first;
of two single values the including file's holds. (LiteLLM lets the included file win, and a whole
section with it; a warning names each value that is not used.)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from proxy.config.remarks import ConfigError, Findings, Place, shown
from proxy.config.source import LARGEST_BYTES, Fields, Items, Leaf, Tree, parse

MOST_FILES = 100


@dataclass(frozen=True, slots=True)
class Sources:
    """The merged tree, and a hash of what the files hold that it came from."""

    root: Fields
    fingerprint: str


@dataclass(slots=True)
class _Reading:
    findings: Findings
    files: dict[Path, None]
    hashes: list[str] = field(default_factory=list)


def read_sources(path: Path, findings: Findings, files: dict[Path, None]) -> Sources:
    """
    Return the file with its includes merged in; all of them are noted in `files`.

    Raises ConfigError when one is not YAML.
    """
    reading = _Reading(findings, files)
    try:
        root = _read(reading, path, Place(str(path), 1), chain=())
    except ConfigError as exc:
        findings.errors += exc.remarks
        findings.stop()
        raise
    fingerprint = hashlib.sha256(" ".join(reading.hashes).encode()).hexdigest()
    return Sources(root, fingerprint)


def _read(reading: _Reading, path: Path, place: Place, *, chain: tuple[Path, ...]) -> Fields:
    reading.files[path] = None
    empty = Fields(Place(str(path), 1), {}, {})
    try:
        raw = _bytes(path)
    except OSError as exc:
        reason = exc.strerror or "it is not a file"
        reading.findings.error(place, f"{shown(path.name)} cannot be read: {reason.lower()}")
        return empty
    reading.hashes.append(hashlib.sha256(raw).hexdigest())
    tree = parse(raw, str(path))
    if tree is None or (isinstance(tree, Leaf) and tree.value is None):
        return empty
    if not isinstance(tree, Fields):
        reading.findings.error(tree.place, "the file takes a mapping of sections, as model_list:")
        return empty
    return _with_includes(reading, path, tree, chain=(*chain, path.resolve()))


def _bytes(path: Path) -> bytes:
    # A pipe or a device would keep the load waiting for ever.
    if path.exists() and not path.is_file():
        raise OSError
    with path.open("rb") as file:
        return file.read(LARGEST_BYTES + 1)


def _with_includes(
    reading: _Reading, path: Path, root: Fields, *, chain: tuple[Path, ...]
) -> Fields:
    tree = root.entries.get("include")
    if tree is None or (isinstance(tree, Leaf) and tree.value is None):
        return root
    if not isinstance(tree, Items):
        reading.findings.error(tree.place, "include takes a list of files")
        return root
    for item in tree.items:
        if not isinstance(item, Leaf) or not item.text:
            reading.findings.error(item.place, "include takes a list of files")
            continue
        other = path.parent / item.text
        if other.resolve() in chain:
            reading.findings.error(item.place, f"{shown(item.text)} includes itself")
        elif len(reading.files) >= MOST_FILES:
            reading.findings.error(item.place, f"more than {MOST_FILES} files")
        elif other not in reading.files:
            included = _read(reading, other, item.place, chain=chain)
            root = _merged(reading.findings, root, included, depth=0)
    return root


def _merged(findings: Findings, main: Fields, other: Fields, *, depth: int) -> Fields:
    """Return the two mappings as one: sections by section, in them setting by setting."""
    entries, places = dict(main.entries), dict(main.places)
    for name, theirs in other.entries.items():
        if name == "include" and depth == 0:
            continue
        ours = entries.get(name)
        if ours is None:
            entries[name], places[name] = theirs, other.places[name]
        else:
            entries[name] = _one(findings, ours, theirs, other.places[name], depth=depth)
    return Fields(main.place, entries, places)


def _one(findings: Findings, ours: Tree, theirs: Tree, place: Place, *, depth: int) -> Tree:
    match ours, theirs:
        case Items(), Items():
            return Items(ours.place, (*ours.items, *theirs.items))
        case Fields(), Fields() if depth == 0:
            return _merged(findings, ours, theirs, depth=1)
    where = f"{ours.place.file}:{ours.place.line}"
    findings.warn(place, f"this is not used: {where} says it already")
    return ours
