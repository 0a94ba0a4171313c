"""The list of a provider's models: whose, at which address, and what each answer proves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from proxy.clock import SystemClock
from proxy.errors import UpstreamFailure
from proxy.retry import Kind
from proxy.types import Target, TargetTimeouts
from proxy.upstream import listing
from proxy.upstream.listing import Listing
from proxy.upstream.sdk import Sdk
from proxy.upstream.wire import Transport
from tests.providers import (
    Answer,
    Fails,
    FakeAnthropic,
    FakeOpenAI,
    Silent,
    closed_port,
    html_page,
)
from tests.upstream.test_unified import KEY, target_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


class Lists:
    """Asks with LiteLLM imported, over our own transport."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.sdk = Sdk(Transport(SystemClock()))
        self._listing = Listing(self.sdk, SystemClock())

    def ask(self, target: Target) -> bool:
        return self._runner.run(self._listing.ask(target))

    def converses(self, target: Target) -> bool:
        return self._runner.run(self._listing.converses(target))

    def place(self, target: Target) -> tuple[str, dict[str, str]] | None:
        litellm = self._runner.run(self.sdk.ready())
        return listing._place(litellm, target)

    def close(self) -> None:
        self._runner.run(self.sdk.aclose())
        self._runner.close()


@pytest.fixture(scope="module")
def lists() -> Iterator[Lists]:
    asking = Lists()
    yield asking
    asking.close()


@pytest.fixture
def openai() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


def test_openai_s_list_is_asked_for_with_the_key_of_the_file(
    lists: Lists, openai: FakeOpenAI
) -> None:
    headers = {"x-team": "blue"}
    target = target_of("openai", openai.base_url, organization="org-1", extra_headers=headers)
    assert lists.ask(target)
    (entry,) = openai.journal.requests()
    assert (entry.method, entry.path) == ("GET", "/v1/models")
    assert entry.headers["authorization"] == f"Bearer {KEY}"
    assert entry.headers["openai-organization"] == "org-1"
    assert entry.headers["x-team"] == "blue"


def test_anthropic_s_list_is_asked_for_in_its_own_way(lists: Lists) -> None:
    with FakeAnthropic() as anthropic:
        for suffix in ("", "/", "/v1", "/v1/messages"):
            assert lists.ask(target_of("anthropic", anthropic.base_url + suffix))
        for entry in anthropic.journal.requests():
            assert (entry.method, entry.path) == ("GET", "/v1/models")
            assert entry.headers["x-api-key"] == KEY
            assert entry.headers["anthropic-version"] == "2023-06-01"
            assert "authorization" not in entry.headers


def test_the_connection_is_used_again(lists: Lists, openai: FakeOpenAI) -> None:
    target = target_of("openai", openai.base_url)
    assert lists.ask(target)
    assert lists.ask(target)
    assert len({entry.connection for entry in openai.journal.requests()}) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
def test_a_list_that_is_refused_proves_nothing(
    lists: Lists, openai: FakeOpenAI, status: int
) -> None:
    openai.script(Fails(status=status), model="models")
    assert not lists.ask(target_of("openai", openai.base_url))


@pytest.mark.parametrize(
    "step",
    [
        html_page(),
        Answer(raw_body=b"ok", content_type="text/plain"),
        Answer(raw_body=b'{"models": 7}'),
        Answer(raw_body=b'{"data": {}}'),
    ],
)
def test_what_is_no_list_proves_nothing(lists: Lists, openai: FakeOpenAI, step: Answer) -> None:
    openai.script(step, model="models")
    assert not lists.ask(target_of("openai", openai.base_url))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, Kind.RATE_LIMITED),
        (500, Kind.TRANSIENT),
        (502, Kind.TRANSIENT),
        (529, Kind.OVERLOADED),
    ],
)
def test_a_provider_that_fails_is_told_of(
    lists: Lists, openai: FakeOpenAI, status: int, kind: Kind
) -> None:
    openai.script(Fails(status=status, headers={"retry-after": "7"}), model="models")
    with pytest.raises(UpstreamFailure) as failed:
        lists.ask(target_of("openai", openai.base_url))
    assert (failed.value.kind, failed.value.retry_after_s) == (kind, 7.0)


def test_a_provider_that_is_not_there_is_told_of(lists: Lists) -> None:
    with closed_port() as port, pytest.raises(UpstreamFailure) as failed:
        lists.ask(target_of("openai", f"http://127.0.0.1:{port}/v1"))
    assert failed.value.kind is Kind.UNREACHABLE


def test_a_provider_that_says_nothing_is_told_of(lists: Lists, openai: FakeOpenAI) -> None:
    openai.script(Silent(), model="models")
    target = target_of("openai", openai.base_url)
    quick = replace(target, timeouts=TargetTimeouts(connect_s=2.0, first_token_s=0.1))
    with pytest.raises(UpstreamFailure) as failed:
        lists.ask(quick)
    assert failed.value.kind is Kind.SILENT


@pytest.mark.parametrize(
    ("provider", "params", "url"),
    [
        ("openai", {}, "https://api.openai.com/v1/models"),
        ("anthropic", {}, "https://api.anthropic.com/v1/models"),
        ("groq", {}, "https://api.groq.com/openai/v1/models"),
        ("mistral", {}, "https://api.mistral.ai/v1/models"),
        ("hosted_vllm", {"api_base": "http://127.0.0.1:1/v1/"}, "http://127.0.0.1:1/v1/models"),
        ("bedrock", {}, None),
        ("azure", {"api_base": "https://x.openai.azure.com"}, None),
        ("gemini", {}, None),
    ],
)
def test_whose_list_is_where(
    lists: Lists, provider: str, params: dict[str, Any], url: str | None
) -> None:
    target = replace(target_of(provider, ""), params={"api_key": KEY, **params})
    place = lists.place(target)
    assert (place and place[0]) == url


def test_without_a_key_anthropic_is_not_asked(lists: Lists) -> None:
    assert not lists.ask(replace(target_of("anthropic", ""), params={}))


def test_an_address_that_is_none_is_not_asked(lists: Lists) -> None:
    assert not lists.ask(target_of("openai", "http://127.0.0.1:port/v1"))


@pytest.mark.parametrize(
    ("model", "info", "answers"),
    [
        ("gpt-4o", {}, True),
        ("a-model-nobody-knows", {}, True),
        ("text-embedding-3-small", {}, False),
        ("text-embedding-3-small", {"mode": "chat"}, True),
        ("a-model-nobody-knows", {"mode": "embedding"}, False),
    ],
)
def test_what_answers_chats_is_known_from_the_file_and_from_the_table(
    lists: Lists, model: str, info: dict[str, Any], answers: bool
) -> None:
    target = replace(target_of("openai", "", model), info=info)
    assert lists.converses(target) is answers
