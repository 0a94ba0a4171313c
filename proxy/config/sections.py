"""Typed reading of the tree: a value of the right type, or an error that names its line."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from proxy.config.names import nearest
from proxy.config.remarks import Findings, Place, shown
from proxy.config.secrets import PLACEHOLDERS, Secrets, variable
from proxy.config.source import Fields, Items, Leaf, Scalar, Tree

SWITCHES = {"true": True, "false": False, "on": True, "off": False, "yes": True, "no": False,
            "1": True, "0": False}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reader:
    """
    Reads one part of the file. A null counts as nothing written; a wrong type is noted and skipped.

    With `missing`, a variable that is not set is put there instead of being an error: a deployment
    without its key is unconfigured, not wrong.
    """

    findings: Findings
    secrets: Secrets
    missing: list[str] | None = field(default=None)

    def fields(self, tree: Tree | None, what: str) -> Fields | None:
        if tree is None or isinstance(tree, Fields):
            return tree
        if not _is_null(tree):
            self.findings.error(tree.place, f"{what} takes a mapping of names to values")
        return None

    def items(self, tree: Tree | None, what: str) -> tuple[Tree, ...]:
        if isinstance(tree, Items):
            return tree.items
        if tree is not None and not _is_null(tree):
            self.findings.error(tree.place, f"{what} takes a list")
        return ()

    def scalar(self, tree: Tree | None, what: str) -> Scalar:
        """Return a value with `os.environ/NAME` resolved."""
        if tree is None:
            return None
        if not isinstance(tree, Leaf):
            self.findings.error(tree.place, f"{what} takes a single value")
            return None
        return self.resolve(tree.value, tree.place, what)

    def resolve(self, value: Scalar, place: Place, what: str) -> Scalar:
        name = variable(value)
        if name is None:
            return value
        found = self.secrets.find(name)
        if found.value is None:
            self.unset(name, found.problem, place, what, unreadable=found.unreadable)
        return found.value

    def unset(self, name: str, problem: str, place: Place, what: str, *, unreadable: bool) -> None:
        if self.missing is None:
            self.findings.error(place, f"{what}: {shown_problem(problem)}")
            return
        self.missing.append(shown(name))
        if unreadable:
            self.findings.warn(place, f"{what}: {shown_problem(problem)}")

    def text(self, tree: Tree | None, what: str) -> str | None:
        """Return a text; a number or a date counts as what is written, an empty one as nothing."""
        value = self.scalar(tree, what)
        if tree is None or value is None or value == "":
            return None
        if isinstance(value, bool):
            self.findings.error(
                tree.place, f"{what} takes a text; put yes, no, on and off in quotes"
            )
            return None
        if isinstance(tree, Leaf) and not isinstance(value, str):
            return tree.text
        return str(value)

    def name(self, tree: Tree | None, what: str) -> str | None:
        """Return a text that can stand in a header and in a log line."""
        text = self.text(tree, what)
        if text is not None and tree is not None and not text.isprintable():
            self.findings.error(tree.place, f"{what} holds a line break or a control character")
            return None
        return text

    def names(self, tree: Tree | None, what: str) -> tuple[str, ...]:
        found = (self.name(item, what) for item in self.items(tree, what))
        return tuple(name for name in found if name is not None)

    def number(
        self, tree: Tree | None, what: str, *, least: float = 0, above: float | None = None,
        most: float = math.inf,
    ) -> float | None:  # fmt: skip
        """Return a number, also one written as a text; a text from the environment is one."""
        value = self.scalar(tree, what)
        if tree is None or value is None or value == "":
            return None
        number = _number(value)
        if number is None or number < least or number > most:
            number = None
        if number is not None and above is not None and number <= above:
            number = None
        if number is None:
            self.findings.error(tree.place, f"{what} takes a number{_bounds(least, above, most)}")
        return number

    def integer(
        self, tree: Tree | None, what: str, *, least: int = 0, most: float = 2**53
    ) -> int | None:
        number = self.number(tree, what, least=least, most=most)
        if number is not None and tree is not None and not number.is_integer():
            self.findings.error(tree.place, f"{what} takes a whole number")
            return None
        return None if number is None else int(number)

    def switch(self, tree: Tree | None, what: str) -> bool | None:
        value = self.scalar(tree, what)
        if tree is None or value is None or isinstance(value, bool):
            return value if isinstance(value, bool) else None
        known = SWITCHES.get(str(value).lower())
        if known is None:
            self.findings.error(tree.place, f"{what} takes true or false")
        return known

    def unknown(self, name: str, place: Place, names: Iterable[str], *, where: str) -> bool:
        """Note a name that nobody knows: an error when it misspells one of `names` (then True)."""
        meant = nearest(name, names)
        if meant is not None:
            self.findings.error(
                place, f"{where} has no {shown(name)}; the nearest name is {shown(meant)}"
            )
        return meant is not None


def note_literal(reader: Reader, tree: Tree | None, what: str) -> None:
    """Warn of a key that stands in the file as it is; it may."""
    if not isinstance(tree, Leaf) or tree.value is None or variable(tree.value) is not None:
        return
    reader.findings.secrets.add(tree.text)
    if tree.text.lower() not in PLACEHOLDERS:
        reader.findings.warn(
            tree.place, f"{what} stands here as it is; os.environ/NAME keeps it out of the file"
        )


def shown_problem(problem: str) -> str:
    """Return a sentence with the words in it that look like a key left out."""
    return " ".join(shown(word) for word in problem.split(" "))


def _is_null(tree: Tree) -> bool:
    return isinstance(tree, Leaf) and tree.value is None


def _number(value: Scalar) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _bounds(least: float, above: float | None, most: float) -> str:
    lower = f" above {above:g}" if above is not None else f" of at least {least:g}"
    return lower + (f" and at most {most:g}" if most < 2**53 else "")
