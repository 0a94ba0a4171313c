"""What a provider keeps, asked for as it has it: no body, no page of somebody else's, in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import orjson
import pytest

from proxy import sse
from proxy.clock import SystemClock
from proxy.errors import UpstreamFailure
from proxy.retry import Kind
from proxy.types import Json, Target
from proxy.upstream.http import Http
from proxy.upstream.stored import Stored
from tests.providers import HTML_PAGE, Answer, Fails, FakeOpenAI, Silent, Step
from tests.upstream.test_unified import KEY, target_of


@pytest.fixture(scope="module")
def running() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as provider:
        yield provider


@pytest.fixture
def provider(running: FakeOpenAI) -> FakeOpenAI:
    running.reset_script()
    running.journal.clear()
    return running


T = TypeVar("T")


def using(provider: FakeOpenAI, script: Callable[[Stored, Target], Awaitable[T]]) -> T:
    async def run() -> T:
        http = Http()
        try:
            target = target_of("openai", provider.base_url)
            soon = replace(target, timeouts=replace(target.timeouts, first_token_s=0.2))
            return await script(Stored(http, SystemClock(), limit_bytes=lambda: 2000), soon)
        finally:
            await http.aclose()

    return asyncio.run(run())


def ask(provider: FakeOpenAI, *path: str, method: str = "GET", query: str = "") -> bytes:
    pairs = [("include[]", each) for each in query.split()]
    return using(provider, lambda stored, target: stored.ask(target, method, path, pairs))


def follow(provider: FakeOpenAI) -> list[Json]:
    """What is told of a stream to its end."""

    async def read(stored: Stored, target: Target) -> list[Json]:
        stream = await stored.follow(target, ("resp_1",), [("stream", "true")])
        try:
            return [event async for chunk in stream for event in chunk.events]
        finally:
            await stream.aclose()

    return using(provider, read)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_it_is_asked_with_the_file_s_key_and_no_body(provider: FakeOpenAI, method: str) -> None:
    assert orjson.loads(ask(provider, "resp_1", method=method))["id"] == "resp_1"
    sent = provider.journal.last
    assert (sent.method, sent.path, sent.body) == (method, "/v1/responses/resp_1", b"")
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert "content-type" not in sent.headers


def test_an_id_stays_one_part_of_the_path_and_the_query_goes_on(provider: FakeOpenAI) -> None:
    ask(provider, "resp_a+b=", "input_items", query="a&b=c d")
    sent = provider.journal.last
    assert sent.path == "/v1/responses/resp_a%2Bb%3D/input_items"
    assert sent.query == {"include[]": "d"}
    ask(provider, "..")
    assert "/responses/" in provider.journal.last.path


@pytest.mark.parametrize(
    ("step", "kind", "status"),
    [
        (
            Fails(404, body={"error": {"message": "Response with id 'x' not found."}}),
            Kind.DIALECT,
            404,
        ),
        (Fails(401), Kind.CREDENTIAL, 401),
        (Fails(500), Kind.TRANSIENT, 500),
        (Answer(raw_body=HTML_PAGE), Kind.TRANSIENT, None),
        (Answer(raw_body=b" " * 3000), Kind.TRANSIENT, None),
        (Silent(), Kind.SILENT, None),
    ],
)
def test_what_is_no_answer_is_a_failure(
    provider: FakeOpenAI, step: Step, kind: Kind, status: int | None
) -> None:
    provider.script(step, model="responses")
    with pytest.raises(UpstreamFailure) as found:
        ask(provider, "resp_1")
    assert (found.value.kind, found.value.provider_status) == (kind, status)


def test_an_empty_answer_is_an_answer(provider: FakeOpenAI) -> None:
    provider.script(Answer(raw_body=b""), model="responses")
    assert ask(provider, "resp_1", method="DELETE") == b"{}"


CREATED = {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1"}}
DONE = {"type": "response.completed", "sequence_number": 1, "response": {"id": "resp_1"}}


def events(*said: Json, **facts: Any) -> Answer:
    raw = b"".join(sse.frame(orjson.dumps(each), each["type"].encode()) for each in said)
    return Answer(raw_body=raw, content_type="text/event-stream", **facts)


def test_its_events_are_told_as_they_come(provider: FakeOpenAI) -> None:
    provider.script(events(CREATED, DONE), model="responses")
    assert follow(provider) == [CREATED, DONE]
    sent = provider.journal.last
    assert (sent.method, sent.path, sent.query) == (
        "GET", "/v1/responses/resp_1", {"stream": "true"}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (events(CREATED), Kind.BROKEN),
        (events(), Kind.BROKEN),
        (events(CREATED, {"type": "error", "message": "no"}), Kind.BROKEN),
        (Answer(raw_body=b"{}"), Kind.TRANSIENT),
        (Fails(500), Kind.TRANSIENT),
        (Silent(), Kind.SILENT),
    ],
)
def test_events_that_do_not_come_to_an_end_are_a_failure(
    provider: FakeOpenAI, step: Step, kind: Kind
) -> None:
    provider.script(step, model="responses")
    with pytest.raises(UpstreamFailure) as found:
        follow(provider)
    assert found.value.kind is kind
    assert provider.journal.wait_over(1)
