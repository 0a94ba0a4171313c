"""SIGTERM ends the service when its requests have ended; SIGKILL at least leaves nobody waiting."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.stream_checks import Visitor, check_envelope, said, target
from tests.harness import Mobius
from tests.providers import Answer, FakeAnthropic, FakeOpenAI, FakeProvider, Gate

pytestmark = pytest.mark.e2e

GRACES_S = {"patient": 30, "hasty": 0.3, "doubted": 30, "killed": 30}
MODELS = ("openai-gpt", "anthropic-claude")


@dataclass(frozen=True)
class Place:
    """Several Mobius, each to be ended in its own way, before the same providers."""

    servers: dict[str, Mobius]
    fakes: Sequence[FakeProvider]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with ExitStack() as stack:
        fakes = (stack.enter_context(FakeOpenAI()), stack.enter_context(FakeAnthropic()))
        # Started together, because each takes its seconds.
        servers = {
            name: stack.enter_context(Mobius(_config(fakes, grace_s), ready_s=None))
            for name, grace_s in GRACES_S.items()
        }
        yield Place(servers, fakes)


def _config(fakes: Sequence[FakeProvider], grace_s: float) -> dict[str, Any]:
    return {
        "model_list": [
            target(name.replace("-", "/"), fake.base_url)
            for name, fake in zip(MODELS, fakes, strict=True)
        ],
        "mobius": {"grace": grace_s},
    }


@dataclass(frozen=True)
class Busy:
    """A Mobius with a unary request and a stream in flight at each provider."""

    mobius: Mobius
    gate: Gate  # what the rest of every answer waits for
    unary: Sequence[Visitor]
    streams: Sequence[Visitor]


@contextmanager
def busy(place: Place, name: str) -> Iterator[Busy]:
    mobius, gate = place.servers[name], Gate()
    mobius.wait_ready()
    with ExitStack() as stack:
        stack.callback(gate.open)
        for fake in place.fakes:
            fake.reset_script()
            fake.journal.clear()
            fake.always(Answer(gate=gate, gate_after_tokens=3))
        unary, streams = (
            [stack.enter_context(Visitor(mobius.port, model, stream=stream)) for model in MODELS]
            for stream in (False, True)
        )
        for fake in place.fakes:
            fake.journal.wait_received(2)
        for visitor in streams:
            visitor.read_until(b"t2 ")
        yield Busy(mobius, gate, unary, streams)


def _unready(mobius: Mobius) -> bool:
    answer = mobius.http.get("/health/readiness")
    return answer.status_code == 503 and answer.json()["draining"]


def _check_clean(mobius: Mobius) -> None:
    assert mobius.wait_exit() == 0
    assert "Traceback" not in mobius.log
    assert "rror:" not in mobius.log


def _events(body: bytes) -> list[bytes]:
    return [line for line in body.splitlines() if line.startswith(b"data: ")]


def test_requests_in_flight_are_finished_and_readiness_says_no_at_once(place: Place) -> None:
    with busy(place, "patient") as at:
        at.mobius.signal(signal.SIGTERM)
        at.mobius.wait_until(lambda: _unready(at.mobius))
        assert at.mobius.http.get("/health/liveness").status_code == 200
        assert at.mobius.exit_code is None
        at.gate.open()
        for visitor in at.unary:
            answer = visitor.read_to_end()
            assert answer.startswith(b"HTTP/1.1 200")
            assert said(5).encode() in answer
        for visitor in at.streams:
            rest = visitor.read_to_end()
            assert b"t3 " in rest
            assert b"t4 " in rest
            assert _events(rest)[-1] == b"data: [DONE]"
        _check_clean(at.mobius)


def test_late_requests_are_told_so_and_no_stream_looks_complete(place: Place) -> None:
    with busy(place, "hasty") as at:
        at.mobius.signal(signal.SIGTERM)
        for visitor in at.unary:
            answer = visitor.read_to_end()
            head, body = answer.split(b"\r\n\r\n", 1)
            assert head.startswith(b"HTTP/1.1 503")
            assert b"\r\nretry-after: " in head
            assert check_envelope(json.loads(body))["code"] == "server_shutting_down"
        for visitor in at.streams:
            events = _events(visitor.read_to_end())
            assert b"data: [DONE]" not in events
            error = json.loads(events[-1].removeprefix(b"data: "))
            assert check_envelope(error)["code"] == "server_shutting_down"
        for fake in place.fakes:
            entries = fake.journal.wait_over(2)
            assert {entry.closed_by for entry in entries} == {"client"}
        _check_clean(at.mobius)


def test_a_second_signal_does_not_wait(place: Place) -> None:
    with busy(place, "doubted") as at:
        at.mobius.signal(signal.SIGTERM)
        at.mobius.wait_until(lambda: _unready(at.mobius))
        at.mobius.signal(signal.SIGTERM)
        # The grace is 30 s, and the providers never finish.
        at.mobius.wait_exit(15)
        for visitor in at.streams:
            assert b"[DONE]" not in visitor.read_to_end()
        assert "Traceback" not in at.mobius.log


def _alive(mobius: Mobius) -> bool:
    try:
        return mobius.http.get("/health/liveness").status_code == 200
    except httpx.ConnectError:
        return False


def test_a_server_without_requests_ends_at_once(place: Place) -> None:
    # Without a model it need not import LiteLLM; it is not ready either.
    config = {"model_list": [], "mobius": {"grace": 3600}}
    with Mobius(config, ready_s=None) as mobius:
        mobius.wait_until(lambda: _alive(mobius))
        with httpx.Client(base_url=mobius.url, trust_env=False) as kept:
            kept.get("/health/liveness").raise_for_status()
            mobius.signal(signal.SIGTERM)
            assert mobius.wait_exit(15) == 0
        assert "Traceback" not in mobius.log


def test_a_killed_server_leaves_nobody_waiting(place: Place) -> None:
    with busy(place, "killed") as at:
        assert at.mobius.kill() == -signal.SIGKILL
        for visitor in at.unary:
            assert visitor.read_to_end() == b""
        for visitor in at.streams:
            rest = visitor.read_to_end()
            assert b"[DONE]" not in rest
            assert b"0\r\n\r\n" not in rest, "the HTTP body must not look whole either"
        for fake in place.fakes:
            assert {entry.closed_by for entry in fake.journal.wait_over(2)} == {"client"}
