"""
Every provider is asked over our own transport, once, with the key that the file names.

`Lane` is what the other tests of this folder ask with: LiteLLM, our transport, a real socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType, TracebackType
from typing import Any, Self

import httpx
import pytest

from proxy.aggregate import aggregate
from proxy.clock import SystemClock
from proxy.errors import UpstreamFailure
from proxy.replies import ChunkStream, Completion
from proxy.retry import Kind
from proxy.types import Call, Json, Target, TargetTimeouts, Wishes
from proxy.upstream.sdk import Sdk
from proxy.upstream.unified import Unified
from proxy.upstream.wire import Transport
from proxy.waiting import Waiting
from tests.providers import (
    Answer,
    Entry,
    Fails,
    FakeAnthropic,
    FakeOpenAI,
    FakeProvider,
    Resets,
    Step,
    closed_port,
)

# LiteLLM's own, about its types.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

KEY = "sk-the-key-in-the-file-1234"
ENV_KEY = "sk-a-key-of-the-environment-5678"
MB = 1024 * 1024
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}
# Nothing here waits for long; what hangs is a bug.
SOON = TargetTimeouts(connect_s=2.0, first_token_s=10.0, idle_s=5.0, answer_s=10.0, stream_s=20.0)

_HOSTS = frozenset({"127.0.0.1", "::1", "localhost", b"127.0.0.1", None, ""})
_guarded: list[str] = []  # where somebody wanted to connect to, while a Lane is open
_lanes = [0]


def _guard(event: str, args: tuple[Any, ...]) -> None:
    """No test reaches a network: neither a name nor an address that is not our own."""
    if not _lanes[0]:
        return
    if event == "socket.getaddrinfo" and args[0] not in _HOSTS:
        _guarded.append(str(args[0]))
        raise OSError("this test has no network")
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] not in _HOSTS:
        _guarded.append(str(args[1]))
        raise OSError("this test has no network")


sys.addaudithook(_guard)


@dataclass
class CountingTransport(Transport):
    """Ours, and what it was asked for."""

    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(SystemClock())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        return await super().handle_async_request(request)


def watched() -> Waiting:
    return Waiting(time.monotonic)


class Lane:
    """LiteLLM over our transport, asked from an ordinary test on a loop of its own."""

    def __enter__(self) -> Self:
        _lanes[0] += 1
        self._runner = asyncio.Runner()
        self.transport = CountingTransport()
        self.sdk = Sdk(self.transport)
        self._unified = Unified(self.sdk, SystemClock(), limit_bytes=lambda: MB)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what LiteLLM does while it is imported
            self.litellm: ModuleType = self._runner.run(self.sdk.ready())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self.sdk.aclose())
        self._runner.close()
        _lanes[0] -= 1

    def ask(self, target: Target, *, foreign: bool = False, **body: Any) -> Completion:
        """The whole answer. Raises UpstreamFailure."""
        reply = self._runner.run(
            self._unified.call(target, call_of(body), foreign=foreign, waiting=watched())
        )
        assert isinstance(reply, Completion)
        return reply

    def stream(
        self, target: Target, *, foreign: bool = False, **body: Any
    ) -> tuple[ChunkStream, list[Json]]:
        """The stream, read to its end and closed, and all the events that the client would see."""
        return self._runner.run(self._stream(target, call_of(body | {"stream": True}), foreign))

    async def _stream(
        self, target: Target, call: Call, foreign: bool
    ) -> tuple[ChunkStream, list[Json]]:
        stream = await self._unified.call(target, call, foreign=foreign, waiting=watched())
        assert isinstance(stream, ChunkStream)
        events: list[Json] = []
        async with contextlib.aclosing(stream):
            async for chunk in stream:
                events += chunk.events
        return stream, events

    def peek(self, target: Target, **body: Any) -> None:
        """Only the first content, and then the reader leaves."""
        self._runner.run(self._peek(target, call_of(body | {"stream": True})))

    async def _peek(self, target: Target, call: Call) -> None:
        stream = await self._unified.call(target, call, foreign=False, waiting=watched())
        assert isinstance(stream, ChunkStream)
        await stream.aclose()

    def direct(self, target: Target, **arguments: Any) -> Any:
        """What LiteLLM makes of it by itself, without Mobius and without its transport."""
        return self._runner.run(self._direct(target, arguments))

    async def _direct(self, target: Target, arguments: dict[str, Any]) -> Any:
        model = f"{target.provider}/{target.model}"
        # A client of its own, because the one that it keeps is ours.
        handler = sys.modules["litellm.llms.custom_httpx.http_handler"]
        client = handler.AsyncHTTPHandler(transport=httpx.AsyncHTTPTransport())
        try:
            answer = await self.litellm.acompletion(
                model=model, client=client, max_retries=0, **target.params, **arguments
            )
            if not arguments.get("stream"):
                return answer.model_dump(mode="json")
            return [chunk.model_dump(mode="json") async for chunk in answer]
        finally:
            await client.close()


def target_of(provider: str, base: str, model: str = "a-model", **params: Any) -> Target:
    return Target(
        label=f"group/{provider}/{model}",
        group="group",
        provider=provider,
        model=model,
        identity=f"{provider}-{base}",
        credential=f"{provider}-{base}",
        params={"api_base": base, "api_key": KEY, **params},
        timeouts=SOON,
    )


def call_of(body: dict[str, Any], **facts: Any) -> Call:
    body = {"model": "group", "messages": HELLO, **body}
    options = body.get("stream_options")
    return Call(
        model="group",
        stream=body.get("stream") is True,
        body=body,
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
        wishes=Wishes(),
        **facts,
    )


@pytest.fixture(scope="module")
def lane() -> Iterator[Lane]:
    with environment(dict.fromkeys(_key_names(), ENV_KEY)), Lane() as lane:
        yield lane


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """These variables are set, and afterwards as they were."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _key_names() -> list[str]:
    """Variables in which LiteLLM looks for keys."""
    names = [f"{provider.upper().replace('-', '_')}_API_KEY" for provider in (*COMPATIBLE, *OTHERS)]
    others = """
        ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN AZURE_AD_TOKEN AZURE_API_KEY AZURE_OPENAI_AD_TOKEN
        AZURE_OPENAI_API_KEY COHERE_API_KEY CO_API_KEY FIREWORKS_AI_TOKEN GEMINI_API_KEY
        GOOGLE_API_KEY HF_TOKEN MARITALK_API_KEY NLP_CLOUD_API_KEY NOVA_API_KEY OLLAMA_API_KEY
        OPENAI_ADMIN_KEY OPENAI_ORGANIZATION OPENAI_ORG_ID OPENAI_PROJECT_ID SNOWFLAKE_JWT
        VERCEL_OIDC_TOKEN
    """
    return [*names, *others.split()]


# All that LiteLLM asks in OpenAI's wire format, as of this version; a test compares.
COMPATIBLE = (
    "ai21", "ai21_chat", "aiml", "apertis", "azure_ai", "baseten", "cerebras", "chutes",
    "codestral", "cognition", "cometapi", "cortecs", "darkbloom", "dashscope", "deepinfra",
    "deepseek", "docker_model_runner", "edenai", "empower", "featherless_ai", "fireworks_ai",
    "friendliai", "galadriel", "github", "groq", "helicone", "hosted_vllm", "hyperbolic",
    "inception", "lambda_ai", "libertai", "litellm_proxy", "llamafile", "lm_studio", "meta",
    "meta_llama", "modelscope", "moonshot", "morph", "nano-gpt", "nebius", "novita", "nscale",
    "nvidia_nim", "parasail", "perplexity", "pinstripes", "poe", "prism", "publicai",
    "qwen_ai_platform", "qwencloud", "reka", "sail", "sambanova", "scx-ai", "synthetic",
    "tencent", "tensormesh", "together_ai", "v0", "vercel_ai_gateway", "volcengine", "wandb",
    "xai", "xinference", "zai",
)  # fmt: skip
# What is asked in that format without standing in LiteLLM's list.
OTHERS = (
    "charity_engine", "cloudflare", "compactifai", "custom_openai", "databricks", "huggingface",
    "minimax", "mistral", "nadir", "neosantara", "openai", "openrouter", "ovhcloud", "scaleway",
    "xiaomi_mimo",
)  # fmt: skip
# Asked over our transport, in a wire format of their own.
OWN_WIRE = (
    "a2a", "anthropic", "anthropic_text", "azure", "azure_text", "cohere", "cohere_chat",
    "datarobot", "gemini", "heroku", "langflow", "langgraph", "ollama", "ollama_chat", "snowflake",
    "text-completion-codestral", "text-completion-inception", "text-completion-openai",
)  # fmt: skip
# In LiteLLM's list, and yet not to be asked here with nothing but a key and an address.
NOT_ASKED = {
    "anyscale": "LiteLLM lists it and does not know it",
    "chatgpt": "wants a person to log in",
    "clarifai": "wants a model of three parts",
    "github_copilot": "wants a person to log in",
    "ragflow": "wants a model of three parts",
}
# Asked with an HTTP client that LiteLLM makes itself: outside of our transport, unbounded, and for
# the most part with the whole event loop waiting. Not to be used; a test notices when that changes.
OUTSIDE = (
    "aiohttp_openai",
    "amazon_nova",
    "custom",
    "maritalk",
    "nlp_cloud",
    "oobabooga",
    "petals",
)


def test_the_list_of_compatible_providers_is_that_of_the_installed_litellm(lane: Lane) -> None:
    assert {*COMPATIBLE, *NOT_ASKED} == set(lane.litellm.openai_compatible_providers)


@pytest.mark.parametrize("name", [*COMPATIBLE, *OTHERS])
def test_a_provider_of_openai_s_format_is_asked_once_over_our_transport(
    lane: Lane, provider: FakeOpenAI, name: str
) -> None:
    target = target_of(name, provider.base_url)
    whole = _exchange(lane, provider, Answer())
    reply = lane.ask(target)
    assert _sole(whole) == f"{provider.base_url}/chat/completions"
    assert reply.body["choices"][0]["message"]["content"] == "t0 t1 t2 t3 t4 "

    streamed = _exchange(lane, provider, Answer())
    _, events = lane.stream(target)
    _sole(streamed)
    assert aggregate(events)["choices"][0]["message"]["content"] == "t0 t1 t2 t3 t4 "
    _is_asked_with_the_file_s_key(provider.journal.last)


@pytest.mark.parametrize("name", [*COMPATIBLE, *OTHERS, *OWN_WIRE])
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_a_refusal_or_a_fault_is_one_call_and_no_more(
    lane: Lane, provider: FakeOpenAI, name: str, stream: bool
) -> None:
    target = target_of(name, provider.base_url, api_version="2024-10-21")
    ask = lane.stream if stream else lane.ask
    for step in (Fails(500), Resets()) if stream else (Fails(422), Fails(429)):
        seen = _exchange(lane, provider, step)
        with pytest.raises(UpstreamFailure):
            ask(target)
        _sole(seen)
        _is_asked_with_the_file_s_key(provider.journal.last)


@pytest.mark.parametrize("name", ["openai", "zai", "mistral", "azure_ai", "anthropic", "gemini"])
def test_a_closed_port_is_one_attempt_to_connect(lane: Lane, name: str) -> None:
    with closed_port() as port:
        target = target_of(name, f"http://127.0.0.1:{port}/v1")
        before = len(lane.transport.asked)
        with pytest.raises(UpstreamFailure) as failed:
            lane.ask(target)
    assert failed.value.kind is Kind.UNREACHABLE
    assert len(lane.transport.asked) - before == 1


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_known_to_be_asked_outside_of_our_transport_still_is(
    lane: Lane, provider: FakeOpenAI, name: str
) -> None:
    seen = _exchange(lane, provider, Fails(500))
    with pytest.raises(UpstreamFailure):
        lane.ask(target_of(name, provider.base_url))
    assert seen.asked == []
    assert len(seen.entries) == 1
    _is_asked_with_no_key_of_the_environment(seen.entries[0])


@pytest.mark.parametrize("name", ["openai", "azure", "mistral", "anthropic", "groq", "zai"])
def test_no_word_of_litellm_s_own_is_sent(lane: Lane, provider: FakeOpenAI, name: str) -> None:
    seen = _exchange(lane, provider, Fails(500))
    target = target_of(name, provider.base_url, api_version="2024-10-21")
    with pytest.raises(UpstreamFailure):
        lane.ask(target, temperature=0.5, a_field_of_the_caller={"x": 1})
    (entry,) = seen.entries
    assert not entry.json.keys() & {"max_retries", "timeout", "extra_body", "api_base", "metadata"}


def test_nothing_but_the_fakes_was_asked(lane: Lane) -> None:
    assert {url.split("/")[2].split(":")[0] for url in lane.transport.asked} <= {"127.0.0.1"}


@pytest.mark.parametrize("fake", [FakeOpenAI, FakeAnthropic], ids=["openai", "anthropic"])
def test_a_connection_is_used_again_after_a_whole_answer_a_stream_and_a_refusal(
    lane: Lane, fake: type[FakeOpenAI | FakeAnthropic]
) -> None:
    with fake() as one:
        name = "openai" if isinstance(one, FakeOpenAI) else "anthropic"
        target = target_of(name, one.base_url)
        for _ in range(4):
            lane.ask(target)
            one.script(Fails(400))
            with pytest.raises(UpstreamFailure):
                lane.ask(target)
        assert (len(one.journal), one.journal.accepted) == (8, 1)
        # On a machine so busy that the end of a stream is not waited for, it takes another one.
        for _ in range(20):
            before = one.journal.accepted
            lane.stream(target)
            lane.ask(target)
            if one.journal.accepted == before:
                break
        else:
            raise AssertionError("no connection was used again after a stream")


@pytest.mark.parametrize("fake", [FakeOpenAI, FakeAnthropic], ids=["openai", "anthropic"])
def test_a_reader_that_leaves_after_the_first_word_takes_the_connection_with_it(
    lane: Lane, fake: type[FakeOpenAI | FakeAnthropic]
) -> None:
    with fake() as one:
        name = "openai" if isinstance(one, FakeOpenAI) else "anthropic"
        one.script(Answer(tokens=1000, gap_s=0.02))
        lane.peek(target_of(name, one.base_url))
        (entry,) = one.journal.wait_over(1)
        assert entry.closed_by == "client"
        assert len(entry.tokens_sent) < 1000


def test_a_model_of_openai_s_other_api_is_asked_where_the_caller_asked(
    lane: Lane, provider: FakeOpenAI
) -> None:
    for model in ("o1-pro", "gpt-5-codex", "gpt-5.4"):
        seen = _exchange(lane, provider, Answer())
        lane.ask(target_of("openai", provider.base_url, model), tools=[TOOL])
        assert _sole(seen) == f"{provider.base_url}/chat/completions"


@dataclass
class _Seen:
    """What was asked since."""

    lane: Lane
    fake: FakeProvider
    before: int
    entries_before: int

    @property
    def asked(self) -> list[str]:
        return self.lane.transport.asked[self.before :]

    @property
    def entries(self) -> list[Entry]:
        return self.fake.journal.requests()[self.entries_before :]


def _exchange(lane: Lane, fake: FakeProvider, step: Step) -> _Seen:
    fake.reset_script()
    fake.always(step)
    return _Seen(lane, fake, len(lane.transport.asked), len(fake.journal))


def _sole(seen: _Seen) -> str:
    """Where the one call went that was made, over our transport and over no other."""
    assert len(seen.asked) == 1
    assert len(seen.entries) == 1
    return seen.asked[0]


def _is_asked_with_the_file_s_key(entry: Entry) -> None:
    _is_asked_with_no_key_of_the_environment(entry)
    told = [*entry.headers.values(), *entry.query.values()]
    assert any(KEY in value for value in told), entry.headers


def _is_asked_with_no_key_of_the_environment(entry: Entry) -> None:
    told = [*entry.headers.values(), *entry.query.values(), entry.body.decode()]
    assert not any(ENV_KEY in value for value in told)
