"""What a provider keeps, asked for as it has it: no body, no page of somebody else's, in time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import orjson
import pytest

from proxy.clock import SystemClock
from proxy.errors import UpstreamFailure
from proxy.retry import Kind
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


def ask(provider: FakeOpenAI, *path: str, method: str = "GET", query: str = "") -> bytes:
    async def run() -> bytes:
        http = Http()
        try:
            stored = Stored(http, SystemClock(), limit_bytes=lambda: 2000)
            target = target_of("openai", provider.base_url)
            soon = replace(target, timeouts=replace(target.timeouts, first_token_s=0.2))
            pairs = [("include[]", each) for each in query.split()]
            return await stored.ask(soon, method, path, pairs)
        finally:
            await http.aclose()

    return asyncio.run(run())


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
