"""What is known of one target at the moment of planning, and how a person is told of it. Pure."""

from __future__ import annotations

from typing import NamedTuple

from proxy.errors import UpstreamFailure
from proxy.retry import Kind

# What a failure was, for a person; a kind that is not here is its own word.
WORDS: dict[Kind, str] = {
    Kind.CREDENTIAL: "refused our key",
    Kind.EXHAUSTED: "our account is empty",
    Kind.MISSING: "the model is not there",
    Kind.RATE_LIMITED: "rate limited",
    Kind.TRANSIENT: "an error of its own",
    Kind.SILENT: "no answer in time",
    Kind.BROKEN: "a broken answer",
}


class Room(NamedTuple):
    """What is known of the room that a target has under its limits for one request."""

    share: float | None = None  # the least that is left of any limit, 0 to 1; None: not known
    aside_s: float = 0.0  # seconds for which its provider says that there is none
    aside_why: str = ""


ROOM_UNKNOWN = Room()


class Standing(NamedTuple):
    """What is known of one target at the moment of planning."""

    admits: bool = True  # its breaker would let a call through
    cooling_s: float = 0.0  # seconds until its cooldown ends
    open_for_s: float = 0.0  # seconds until its breaker lets a call through
    closed: bool = True
    failure: UpstreamFailure | None = None  # the last one, for the answer when nobody is left
    latency_s: float | None = None
    expected_s: float | None = None  # its next first token, by what it took lately; None: no idea
    in_flight: int = 0  # calls of this process
    hung_s: float = 0.0  # seconds for which it has let several in a row wait, far too long
    cause: str = ""  # why its breaker lets nobody through
    room: Room = ROOM_UNKNOWN

    @property
    def healthy(self) -> bool:
        return self.closed and self.cooling_s <= 0

    @property
    def away_s(self) -> float:
        """Seconds until it may be asked; 0 when it may be now."""
        return max(self.cooling_s, 0.0 if self.admits else self.open_for_s)

    @property
    def aside_s(self) -> float:
        """Seconds that put it behind others that can be asked; 0 when nothing does."""
        return max(self.room.aside_s, self.hung_s)

    @property
    def is_ready(self) -> bool:
        return self.admits and self.away_s <= 0 and self.aside_s <= 0

    def word(self) -> str:
        """Return for how long it rests or is passed over, and why; or that it is not."""
        if self.away_s > 0 or not self.admits:
            why = self._why()
            return f"resting {_seconds(self.away_s)}" + (f": {why}" if why else "")
        if self.room.aside_s > 0:
            return f"asked last for {_seconds(self.room.aside_s)}: {self.room.aside_why}"
        if self.hung_s > 0:
            return f"asked last: it has let several wait, for {_seconds(self.hung_s)} now"
        word, share = "healthy" if self.closed else "half open: one probe", self.room.share
        return word if share is None else f"{word}, {share:.0%} of its limits left"

    def _why(self) -> str:
        last = _said(self.failure)
        if self.cooling_s >= self.away_s:
            return last
        return ", last ".join(each for each in (self.cause, last) if each)


def _seconds(span_s: float) -> str:
    return f"{span_s:.0f} s" if span_s >= 10 else f"{span_s:.1f} s"


def _said(failure: UpstreamFailure | None) -> str:
    if failure is None:
        return ""
    word = WORDS.get(failure.kind, failure.kind.value)
    return f"{word} ({failure.provider_status})" if failure.provider_status else word
