"""A client that leaves takes its call with it; one that reads slowly holds up nobody else.

The provider's journal says when its socket closed and by whom; that is what is believed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.e2e.stream_checks import Listener, Visitor, check_cut, check_whole, target
from tests.harness import Mobius, total, wait_until
from tests.providers import (
    Answer,
    Endless,
    FakeAnthropic,
    FakeOpenAI,
    FakeProvider,
    Gate,
    Journal,
    Silent,
)

pytestmark = pytest.mark.e2e

CROWD = 100
DEPARTURES = 21
AT_ONCE_S = 0.1  # a departure is promised to have reached the provider by then
SEED = 20_261
HELD_BYTES = 256 * 1024
MORE_BYTES = 12_000_000  # than the kernel's buffers take on the way to a reader who does not read
WORD_BYTES = 4_000
LONG_WORD_BYTES = 100_000
STREAM_S = 3
SOCKETS = Path("/proc/net/tcp")
Provider = Literal["openai", "anthropic"]
MODELS: dict[Provider, str] = {"openai": "gpt", "anthropic": "claude"}


@dataclass(frozen=True)
class Cancelled:
    """Requests, and calls to a provider: a client may leave before its first call is made."""

    requests: float
    attempts: float


@dataclass(frozen=True)
class Place:
    """A Mobius that would remember the smallest blame, and the providers behind it."""

    mobius: Mobius
    fakes: dict[Provider, FakeProvider]
    narrow: FakeProvider

    def check_settled(self, before: Cancelled) -> None:
        """Nothing is in flight, one request and its call were cancelled, nobody is blamed.

        They may still be on their way out.
        """
        self.mobius.wait_until(lambda: self._counted("mobius_in_flight_requests") == 0)
        now = self.cancelled()
        assert (now.requests, now.attempts) == (before.requests + 1, before.attempts + 1)
        assert self.mobius.http.get("/health").json()["unhealthy_endpoints"] == []
        for fake in (*self.fakes.values(), self.narrow):
            fake.journal.wait(lambda journal: journal.open_requests == 0)

    def cancelled(self) -> Cancelled:
        """How many were cancelled so far."""
        return Cancelled(
            self._counted("mobius_request_seconds_count", outcome="cancelled"),
            self._counted("mobius_attempt_seconds_count", outcome="cancelled"),
        )

    def _counted(self, name: str, **labels: str) -> float:
        return total(self.mobius.metrics(), name, **labels)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with (
        FakeOpenAI() as openai,
        FakeAnthropic() as anthropic,
        FakeOpenAI(send_buffer_bytes=16 * 1024) as narrow,
    ):
        config = {
            "model_list": [
                target("openai/gpt", openai.base_url),
                target("anthropic/claude", anthropic.base_url),
                target("openai/narrow", narrow.base_url),
            ],
            "router_settings": {"num_retries": 0},
            "mobius": {"breaker": {"failures": 1, "share": 0.01, "min_calls": 1}},
        }
        with Mobius(config) as mobius:
            yield Place(mobius, {"openai": openai, "anthropic": anthropic}, narrow)


@pytest.fixture(params=MODELS)
def provider(request: pytest.FixtureRequest) -> Provider:
    name: Provider = request.param
    return name


def _left(journal: Journal) -> bool:
    return len(journal) > 0 and journal.last.closed_by == "client"


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_leaving_before_the_answer_closes_the_providers_socket(
    place: Place, provider: Provider, stream: bool, reset: bool
) -> None:
    model, fake = MODELS[provider], place.fakes[provider]
    before = place.cancelled()
    fake.journal.clear()
    fake.script(Silent(), model=model)
    with Visitor(place.mobius.port, f"{provider}-{model}", stream=stream) as visitor:
        fake.journal.wait_received()
        visitor.leave(reset=reset)
    fake.journal.wait(_left)
    place.check_settled(before)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("said_before", [0, 3])
def test_leaving_in_the_middle_closes_the_silent_providers_socket(
    place: Place, provider: Provider, said_before: int, reset: bool
) -> None:
    model, fake = MODELS[provider], place.fakes[provider]
    before = place.cancelled()
    fake.journal.clear()
    gate = Gate()
    fake.script(Answer(gate=gate, gate_after_tokens=said_before), model=model)
    with Visitor(place.mobius.port, f"{provider}-{model}", stream=True) as visitor:
        if said_before:
            visitor.read_until(b"t2 ")
        else:
            fake.journal.wait(lambda journal: len(journal) and journal.last.bytes_sent)
        visitor.leave(reset=reset)
    fake.journal.wait(_left)
    assert fake.journal.last.tokens_sent == tuple(range(said_before))
    place.check_settled(before)
    gate.open()


def test_half_closing_is_leaving_as_the_wire_cannot_tell_them_apart(place: Place) -> None:
    fake, before = place.fakes["openai"], place.cancelled()
    fake.journal.clear()
    fake.script(Silent(), model="gpt")
    with Visitor(place.mobius.port, "openai-gpt") as visitor:
        fake.journal.wait_received()
        visitor.half_close()
        fake.journal.wait(_left)
        assert visitor.read_to_end() == b""
    place.check_settled(before)


@pytest.mark.proof
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_a_departure_is_at_the_provider_within_a_tenth_of_a_second(
    place: Place, provider: Provider, stream: bool
) -> None:
    model, fake = MODELS[provider], place.fakes[provider]
    took_s = []
    for _ in range(DEPARTURES):
        fake.journal.clear()
        fake.script(Silent(), model=model)
        with Visitor(place.mobius.port, f"{provider}-{model}", stream=stream) as visitor:
            fake.journal.wait_received()
            left_s = time.monotonic()
            visitor.leave()
        fake.journal.wait(_left)
        assert fake.journal.last.t_closed is not None
        took_s.append(fake.journal.last.t_closed - left_s)
    assert sorted(took_s)[DEPARTURES // 2] < AT_ONCE_S


def test_a_crowd_that_leaves_at_random_leaves_nothing_behind(place: Place) -> None:
    chance = random.Random(SEED)  # noqa: S311 - a crowd is no secret
    gate = Gate()
    answer = Answer(tokens=20, gate=gate, gate_after_tokens=12)
    idle = {provider: fake.journal.open for provider, fake in place.fakes.items()}
    for provider, model in MODELS.items():
        place.fakes[provider].reset_script()
        place.fakes[provider].journal.clear()
        place.fakes[provider].always(answer, model=model)

    async def all_of_them() -> None:
        await asyncio.gather(*(_visit(place.mobius.port, chance) for _ in range(CROWD)))

    asyncio.run(all_of_them())
    place.mobius.wait_until(lambda: total(place.mobius.metrics(), "mobius_in_flight_requests") == 0)
    for provider, fake in place.fakes.items():
        fake.journal.wait(lambda journal: journal.open_requests == 0)
        most = idle[provider]
        fake.journal.wait(lambda journal, most=most: journal.open <= most)  # type: ignore[misc]
        fake.reset_script()
    assert place.mobius.http.get("/health").json()["unhealthy_endpoints"] == []
    samples = place.mobius.metrics()
    outcomes = {
        dict(labels)["outcome"]
        for name, labels in samples
        if name == "mobius_attempt_seconds_count"
    }
    assert outcomes == {"cancelled"}, "nobody stayed, and nobody is blamed"
    gate.open()
    for provider, model in MODELS.items():
        asyncio.run(_answers_whole(place.mobius.url, f"{provider}-{model}"))


async def _visit(port: int, chance: random.Random) -> None:
    """One client: asks, reads so many bytes, and hangs up. Nobody gets an answer to the end."""
    provider, model = chance.choice(list(MODELS.items()))
    stream, patience = chance.random() < 0.7, chance.random()
    bytes_wanted = chance.choice((0, 0, 1, 300, 900, 2500)) if stream else 0
    reset = chance.random() < 0.5
    with await asyncio.to_thread(Visitor, port, f"{provider}-{model}", stream=stream) as visitor:
        if not bytes_wanted:
            await asyncio.sleep(patience**3 * 0.3)  # most of them while Mobius connects
        while bytes_wanted > 0:
            bytes_wanted -= len(await asyncio.to_thread(visitor.read, bytes_wanted))
        visitor.leave(reset=reset)


async def _answers_whole(url: str, name: str) -> None:
    async with Listener(url) as listener:
        check_whole(await listener.stream(name), 5)


def _queued_bytes(*ports: int) -> int:
    """What the kernel holds, unsent or unread, on connections that have one of these ports."""
    queued = 0
    for line in SOCKETS.read_text().splitlines()[1:]:
        here, there, _state, queues = line.split()[1:5]
        if {int(end.split(":")[1], 16) for end in (here, there)} & set(ports):
            queued += sum(int(size, 16) for size in queues.split(":"))
    return queued


@pytest.mark.skipif(not SOCKETS.exists(), reason="the kernel's queues are read in /proc/net/tcp")
def test_a_reader_that_stops_stops_the_provider_and_nobody_else(place: Place) -> None:
    before = place.cancelled()
    journal = place.narrow.journal
    journal.clear()
    place.narrow.script(Endless(), model="narrow")
    with Visitor(
        place.mobius.port, "openai-narrow", stream=True, receive_buffer_bytes=16 * 1024
    ) as visitor:
        got = len(visitor.read_until(b"aaaa"))

        def held() -> int:
            # What the provider's kernel took, and no kernel holds any more, is what Mobius holds.
            sent = journal.requests()[0].bytes_sent
            return sent - got - _queued_bytes(place.narrow.port, visitor.port)

        _settled(lambda: journal.requests()[0].bytes_sent)
        assert held() <= HELD_BYTES
        asyncio.run(_others(place.mobius.url))
        assert held() <= HELD_BYTES
        assert not journal.requests()[0].over
    journal.wait(lambda j: j.requests()[0].closed_by == "client")
    place.check_settled(before)


async def _others(url: str) -> None:
    async with Listener(url) as listener:
        names = ["openai-gpt", "anthropic-claude", "openai-narrow"] * 3
        streams = (listener.stream(name, f"{name}-{at}") for at, name in enumerate(names))
        for heard in await asyncio.gather(*streams):
            check_whole(heard, 5)


def test_a_reader_that_pauses_gets_every_token_in_its_order(place: Place) -> None:
    words = [f"t{number}-{'x' * WORD_BYTES} " for number in range(MORE_BYTES // WORD_BYTES)]
    place.narrow.journal.clear()
    place.narrow.script(Answer(text="".join(words)), model="narrow")
    with Visitor(
        place.mobius.port, "openai-narrow", stream=True, receive_buffer_bytes=16 * 1024
    ) as visitor:
        got = bytearray(visitor.read_until(b"t1-"))
        _settled(lambda: place.narrow.journal.last.bytes_sent)
        assert not place.narrow.journal.last.over
        got += visitor.read_until(b"data: [DONE]")
    found = bytes(got).split(b'"content":"')[2:]
    assert [piece.split(b'"')[0].decode() for piece in found] == words


@pytest.fixture
def hasty() -> Iterator[Place]:
    """A Mobius whose streams may take no more than a moment of their provider's time."""
    with FakeOpenAI() as openai:
        config = {
            "model_list": [
                target("openai/long", openai.base_url),
                target("openai/endless", openai.base_url),
            ],
            "router_settings": {"num_retries": 0},
            "mobius": {
                "timeouts": {"idle": STREAM_S, "stream": STREAM_S},
                "breaker": {"failures": 1, "rest": 600, "rest_cap": 600},
            },
        }
        with Mobius(config) as mobius:
            yield Place(mobius, {"openai": openai}, openai)


def test_a_stream_may_take_its_readers_time_but_not_its_providers(hasty: Place) -> None:
    word = "x" * LONG_WORD_BYTES
    words = [f"t{number}-{word} " for number in range(MORE_BYTES // LONG_WORD_BYTES)]
    hasty.narrow.script(Answer(text="".join(words)), model="long")
    hasty.narrow.script(Answer(tokens=100_000, gap_s=0.05), model="endless")
    with Visitor(
        hasty.mobius.port, "openai-long", stream=True, receive_buffer_bytes=16 * 1024
    ) as visitor:
        got = bytearray(visitor.read_until(b"t1-"))
        # It reads on only when another stream, begun after it, has taken longer than allowed.
        asyncio.run(_is_cut(hasty.mobius.url, "openai-endless"))
        assert total(hasty.mobius.metrics(), "mobius_in_flight_requests") == 1
        got += visitor.read_until(b"0\r\n\r\n")
    assert b'"error"' not in got
    assert b"data: [DONE]\n\n" in got
    found = bytes(got).split(b'"content":"')[2:]
    assert [len(piece.split(b'"')[0]) for piece in found] == [len(word) for word in words]
    (unhealthy,) = hasty.mobius.http.get("/health").json()["unhealthy_endpoints"]
    assert unhealthy["target"] == "openai-endless/openai/endless"
    assert unhealthy["reason"].endswith("last a broken answer")


async def _is_cut(url: str, name: str) -> None:
    async with Listener(url) as listener:
        heard = await listener.stream(name)
    assert heard.text
    check_cut(heard, len(heard.text.split()))


def _settled(count: Callable[[], int]) -> int:
    """The number once it has not changed for many looks."""
    seen: list[int] = []

    def still() -> bool:
        seen.append(count())
        return len(seen) > 25 and len(set(seen[-25:])) == 1

    wait_until(still, 20.0, "a standstill")
    return seen[-1]
