"""Which step answers the next request."""

from __future__ import annotations

import threading
from collections import deque

from tests.providers.steps import Answer, Step


class Script:
    """Steps in order, for one model or for any; then what is always done; then a plain answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str | None, deque[Step]] = {}
        self._always: dict[str | None, Step] = {}

    def add(self, steps: tuple[Step, ...], model: str | None) -> None:
        """The steps stand at the end of the model's queue."""
        with self._lock:
            self._queues.setdefault(model, deque()).extend(steps)

    def repeat(self, step: Step, model: str | None) -> None:
        """The step is done whenever the model's queue is empty."""
        with self._lock:
            self._always[model] = step

    def clear(self) -> None:
        """Nothing is scripted."""
        with self._lock:
            self._queues.clear()
            self._always.clear()

    def left(self) -> int:
        """Steps that nobody asked for yet."""
        with self._lock:
            return sum(map(len, self._queues.values()))

    def told(self, endpoint: str) -> Step | None:
        """The step for an endpoint that has a fixed answer, where one was scripted by its name."""
        with self._lock:
            if queue := self._queues.get(endpoint):
                return queue.popleft()
            return self._always.get(endpoint)

    def next(self, model: str | None) -> Step:
        """The step for a request that asks this model; its place in the queue is taken."""
        with self._lock:
            for key in (model, None):
                if queue := self._queues.get(key):
                    return queue.popleft()
            return self._always.get(model) or self._always.get(None) or Answer()
