"""One JSON line per request, at its end, from its tally. No prompt, no key, ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson

from proxy.clock import Clock
from proxy.types import Tally


class Log:
    """Writes whole lines through `write`; what may stand in them is decided by its callers."""

    def __init__(self, write: Callable[[bytes], object], clock: Clock) -> None:
        self._write = write
        self._clock = clock

    def line(self, event: str, **facts: Any) -> None:
        """Write one line: the time, what happened, and the facts about it."""
        moment = datetime.fromtimestamp(self._clock.wall(), UTC)
        stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._write(orjson.dumps({"time": stamp, "event": event, **facts}) + b"\n")

    @contextmanager
    def request(self, tally: Tally) -> Iterator[None]:
        """Write the line of one model request when the block ends, however it ends."""
        try:
            yield
        finally:
            now_s = self._clock.now()
            first_s = tally.first_content_s
            self.line(
                "request",
                request_id=tally.request_id,
                surface=tally.surface,
                model=tally.model,
                caller=tally.caller,
                stream=tally.stream,
                outcome=tally.outcome,
                status=tally.status,
                target=tally.target,
                attempts=tally.trail,
                cache=tally.cache,
                total_s=round(now_s - tally.started_s, 6),
                upstream_s=round(tally.upstream_s, 6),
                first_token_s=None if first_s is None else round(first_s - tally.started_s, 6),
                prompt_tokens=tally.usage.prompt_tokens if tally.usage else None,
                completion_tokens=tally.usage.completion_tokens if tally.usage else None,
            )
