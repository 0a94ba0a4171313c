"""The journal, the script, and the life of a fake provider."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.providers import Answer, Breaks, Endless, Fails, FakeOpenAI, Gate, Silent
from tests.providers.raw import PLAIN, Caller, post, stream


@pytest.fixture
def provider() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as provider:
        yield provider


def test_an_entry_says_what_was_asked(provider: FakeOpenAI) -> None:
    post(provider, path="/chat/completions?a=1&b=", temperature=0.5)
    entry = provider.journal.last
    assert (entry.method, entry.path) == ("POST", "/v1/chat/completions")
    assert entry.query == {"a": "1", "b": ""}
    assert entry.json == PLAIN | {"temperature": 0.5}
    assert entry.headers["content-type"] == "application/json"
    assert (entry.model, entry.streams, entry.number, entry.connection) == ("gpt-4o", False, 1, 1)


def test_an_answer_that_was_received_is_finished_in_the_journal(provider: FakeOpenAI) -> None:
    for _ in range(10):
        stream(provider)
        entry = provider.journal.last
        assert entry.finished
        assert entry.tokens_sent == (0, 1, 2, 3, 4)
        post(provider)
        assert provider.journal.last.finished


def test_times_are_in_order(provider: FakeOpenAI) -> None:
    provider.script(Answer(delay_s=0.01, gap_s=0.001))
    stream(provider)
    entry = provider.journal.last
    assert entry.t_first_byte is not None
    assert entry.t_first_token is not None
    assert entry.t_last_byte is not None
    assert entry.t_received < entry.t_first_byte < entry.t_first_token < entry.t_last_byte


def test_connections_are_kept_and_counted(provider: FakeOpenAI) -> None:
    with httpx.Client(trust_env=False) as client:
        for _ in range(3):
            client.post(f"{provider.base_url}/chat/completions", json=PLAIN)
        assert (provider.journal.accepted, provider.journal.open) == (1, 1)
    provider.journal.wait(lambda j: j.open == 0)
    assert [entry.closed_by for entry in provider.journal.requests()] == [None] * 3


@pytest.mark.parametrize("step", [Answer(close=True), Answer(hang_up=True)])
def test_the_provider_may_hang_up_after_its_answer(provider: FakeOpenAI, step: Answer) -> None:
    provider.script(step)
    seen = post(provider)
    assert seen.failure is None
    assert ("connection" in seen.headers) == step.close
    entry = provider.journal.wait(lambda j: j.last.closed_by and j.last)
    assert (entry.finished, entry.closed_by) == (True, "server")


@pytest.mark.parametrize("step", [Silent(), Breaks(0, "stall"), Answer(delay_s=60), Endless()])
@pytest.mark.parametrize("how", ["eof", "reset"])
def test_the_client_s_leaving_is_noticed_whatever_the_provider_does(
    provider: FakeOpenAI, step: Answer | Silent, how: str
) -> None:
    provider.script(step)
    caller = Caller(provider, stream=True)
    provider.journal.wait_received()
    if how == "reset":
        linger = struct.pack("ii", 1, 0)
        caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    caller.leave()
    entry = provider.journal.wait_over()[0]
    assert entry.closed_by == "client"
    assert entry.t_closed is not None
    assert not entry.finished


def test_a_gate_holds_an_answer_at_the_token_it_should(provider: FakeOpenAI) -> None:
    gate = Gate()
    provider.script(Answer(gate=gate, gate_after_tokens=2))
    caller = Caller(provider, stream=True)
    caller.read_until(b"t1 ")
    assert provider.journal.last.tokens_sent == (0, 1)
    assert provider.journal.open_requests == 1
    gate.open()
    caller.read_until(b"[DONE]")
    assert provider.journal.wait_over()[0].tokens_sent == (0, 1, 2, 3, 4)
    caller.leave()


def test_a_gate_holds_the_head_and_many_answers(provider: FakeOpenAI) -> None:
    gate = Gate()
    provider.always(Answer(gate=gate))
    callers = [Caller(provider) for _ in range(200)]
    provider.journal.wait_received(200)
    assert {entry.t_first_byte for entry in provider.journal.requests()} == {None}
    gate.open()
    for caller in callers:
        caller.read_until(b"t4 ")
        caller.leave()


def test_steps_are_taken_in_order_per_model_then_always_then_a_plain_answer(
    provider: FakeOpenAI,
) -> None:
    provider.script(Fails(500), Fails(503), model="a")
    provider.script(Fails(429))
    provider.always(Fails(529), model="b")
    statuses = [post(provider, model=model).status for model in "aacbb"]
    assert statuses == [500, 503, 429, 529, 529]
    assert post(provider, model="a").status == 200
    assert provider.steps_left == 0
    assert len(provider.journal.requests(model="a")) == 3
    provider.reset_script()
    assert post(provider, model="b").status == 200


def test_what_never_comes_is_an_assertion_error(provider: FakeOpenAI) -> None:
    with pytest.raises(AssertionError, match="not within"):
        provider.journal.wait(lambda j: len(j) > 0, timeout_s=0.01)


def test_a_cleared_journal_forgets_what_still_runs(provider: FakeOpenAI) -> None:
    provider.script(Silent(), Answer())
    caller = Caller(provider)
    provider.journal.wait_received()
    provider.journal.clear()
    caller.leave()
    post(provider)
    assert [entry.number for entry in provider.journal.requests()] == [2]


def test_it_can_be_waited_for_from_a_running_loop(provider: FakeOpenAI) -> None:
    async def ask() -> int:
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"{provider.base_url}/chat/completions"
            asking = asyncio.create_task(client.post(url, json=PLAIN))
            await provider.journal.wait_async(lambda j: len(j) == 1)
            return (await asking).status_code

    assert asyncio.run(ask()) == 200


def test_a_stopped_provider_refuses_and_comes_back_on_its_port(provider: FakeOpenAI) -> None:
    provider.script(Silent(), Answer())
    caller = Caller(provider)
    provider.journal.wait_received()
    provider.stop(how="reset")
    with pytest.raises(ConnectionResetError):
        caller.socket.recv(1)
    caller.leave()
    assert provider.journal.last.closed_by == "server"
    assert isinstance(post(provider).failure, httpx.ConnectError)
    provider.start()
    assert post(provider).status == 200


def test_nothing_is_left_behind() -> None:
    before = threading.active_count()
    callers = []
    for _ in range(20):
        with FakeOpenAI() as provider:
            provider.always(Silent())
            callers += [Caller(provider), Caller(provider)]
            post(provider, timeout_s=0.01)
    assert threading.active_count() == before
    for caller in callers:
        caller.leave()


def test_a_slow_reader_holds_the_provider_back() -> None:
    with FakeOpenAI(send_buffer_bytes=4096) as provider:
        provider.script(Endless())
        caller = Caller(provider, stream=True)
        caller.read_until(b"aaaa")
        with pytest.raises(AssertionError, match="not within"):
            provider.journal.wait(lambda j: j.last.bytes_sent > 50_000_000, timeout_s=0.5)
        caller.leave()


def test_a_chunked_request_is_read(provider: FakeOpenAI) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"model": "gpt-4o", '
        yield b'"messages": []}'

    url = f"{provider.base_url}/chat/completions"
    assert httpx.post(url, content=body(), trust_env=False).status_code == 200
    assert provider.journal.last.json == {"model": "gpt-4o", "messages": []}


def test_a_step_that_cannot_be_played_fails_the_test() -> None:
    def play() -> None:
        with FakeOpenAI() as provider:
            provider.script(Answer(usage=object()))
            assert post(provider).failure is not None

    with pytest.raises(TypeError, match="serializable"):
        play()
