"""What is wrong or odd in the file, each with its place. No secret value ever gets in here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from proxy.redaction import looks_secret

MOST_ERRORS = 100  # a hundred are enough to mend a file by


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file; lines count from 1."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Remark:
    """One sentence about one line."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


class ConfigError(Exception):
    """
    The file cannot be used. `remarks` are all the reasons that were found, one a line in str().

    `files` are those that were read or looked for until then.
    """

    def __init__(self, remarks: Iterable[Remark], files: Iterable[Path] = ()) -> None:
        self.remarks = tuple(remarks)
        self.files = tuple(files)
        super().__init__("\n".join(str(remark) for remark in self.remarks))


@dataclass(slots=True)
class Findings:
    """
    Collects what one load finds, so that a person sees every error at once.

    `secrets` are the values that were resolved on the way; none of them is left in a remark.
    """

    errors: list[Remark] = field(default_factory=list)
    warnings: list[Remark] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set, repr=False)

    def error(self, place: Place, text: str) -> None:
        """Note an error. Raises ConfigError when there are so many that going on helps nobody."""
        self.errors.append(Remark(place.file, place.line, text))
        if len(self.errors) >= MOST_ERRORS:
            self.errors.append(Remark(place.file, place.line, "too many errors: stopped here"))
            self.stop()

    def warn(self, place: Place, text: str) -> None:
        self.warnings.append(Remark(place.file, place.line, text))

    def stop(self) -> None:
        """Raise ConfigError with what was found, when an error was."""
        if self.errors:
            raise ConfigError(self.clean(self.errors))

    def clean(self, remarks: Iterable[Remark]) -> tuple[Remark, ...]:
        """Return the remarks in the order of the file, each once, without a secret in them."""
        unique = dict.fromkeys(
            Remark(remark.file, remark.line, self._redact(remark.text)) for remark in remarks
        )
        return tuple(sorted(unique, key=lambda remark: (remark.file, remark.line)))

    def _redact(self, text: str) -> str:
        for secret in self.secrets:
            # A very short one is no secret, and replacing it would garble every word.
            if len(secret) >= 6 and secret in text:
                text = text.replace(secret, "…")
        return text


def shown(name: str) -> str:
    """Return a name as a remark shows it: short, on one line, and not if it looks like a key."""
    # What was meant as a value can end up in the place of a name: a colon too many is enough.
    if looks_secret(name) or not name.isprintable():
        return "(a name not shown)"
    return name if len(name) <= 80 else name[:79] + "…"
