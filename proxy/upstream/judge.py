"""What a call may take and what its answer must hold, whatever lane it goes by. Pure."""

from __future__ import annotations

from proxy.retry import Kind
from proxy.types import HEARD, Call, Target


def limit_of(target: Target, call: Call, *, whole: bool = False) -> tuple[float, Kind]:
    """
    Return the seconds that an answer may take, and what it is when they have passed.

    `whole`: a stream is asked for, and all of it comes at once. So it may of a recording, which has
    to be sent and listened to before there is a first word.
    """
    begins = call.stream and not whole and call.surface not in HEARD
    limit_s = target.timeouts.first_token_s if begins else target.timeouts.answer_s
    wish_s = call.wishes.timeout_s
    if wish_s is not None and wish_s < limit_s:
        return wish_s, Kind.IMPATIENT
    return limit_s, Kind.SILENT


def choices_of_call(call: Call) -> int:
    """Return how many choices were asked for."""
    choices = call.body.get("n")
    return choices if isinstance(choices, int) and choices > 0 else 1
