"""What every client says, and what it is answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel

from tests.clients.place import CROWD, Place
from tests.providers import Answer, FakeProvider, Gate, ToolCall

SAID = "hello, 世界"
HELLO: list[Any] = [{"role": "user", "content": SAID}]
TEXT = "t0 t1 t2 t3 t4 "  # what a fake provider answers that nobody has told anything else
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "Of a city", "parameters": PARAMETERS}
TOOLS: list[Any] = [{"type": "function", "function": WEATHER}]
# Two at once, the second without an id of its own.
CALLS = (
    ToolCall("weather", '{"city": "Oslo"}', id="call_1"),
    ToolCall("weather", '{"city": "Ærø"}'),
)
CALLED = Answer(tool_calls=CALLS)
OSLO = '{"city": "Oslo", "sky": "grey"}'
Ask: TypeAlias = Callable[[int], Awaitable[str]]


class Weather(BaseModel):
    city: str
    sky: Literal["clear", "grey"]


GREY = Weather(city="Oslo", sky="grey")


def fake_of(place: Place, model: str) -> FakeProvider:
    """Who answers for `gpt` or `claude`."""
    return place.openai if model == "gpt" else place.anthropic


def all_at_once(place: Place, *asking: tuple[FakeProvider, Ask]) -> None:
    """Each crowd is told everything, of whom all still listen when the last has come.

    One crowd after the other, all in one event loop: some clients keep connections for the next.
    """

    async def crowd(ask: Ask) -> list[str]:
        return await asyncio.gather(*(ask(number) for number in range(CROWD)))

    with asyncio.Runner() as runner:
        for fake, ask in asking:
            gate, before = Gate(), len(fake.journal)
            fake.always(Answer(gate=gate, gate_after_tokens=2))
            opener = threading.Thread(target=place.crowded, args=(fake, gate))
            opener.start()
            try:
                assert runner.run(crowd(ask)) == [TEXT] * CROWD
            finally:
                opener.join()
            assert len(fake.journal) == before + CROWD


def cut_off(fake: FakeProvider, count: int = 1) -> None:
    """The provider's last answer of so many was ended by a client that left."""
    entry = fake.journal.wait(lambda j: len(j) == count and j.last.over and j.last)
    assert entry.closed_by == "client"


def check_results(place: Place, model: str) -> None:
    """The provider has heard, in the second request, what both calls came to."""
    first, second = fake_of(place, model).journal.requests()
    assert len(second.body) > len(first.body)
    sent = str(second.json.get("messages") or second.json["input"])
    assert all(word in sent for word in ("call_1", "Oslo", "Ærø", "grey in Oslo", "grey in Ærø"))
