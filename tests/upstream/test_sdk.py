"""LiteLLM is imported once, quietly, beside the requests and not on one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from proxy.clock import SystemClock
from proxy.errors import UpstreamFailure
from proxy.retry import RULES, Kind
from proxy.upstream.sdk import SETTINGS, Sdk
from proxy.upstream.wire import Transport, WireError
from tests.harness.child import clean_env
from tests.providers import Answer, Fails, FakeAnthropic, FakeOpenAI
from tests.upstream.test_unified import Lane, target_of

# LiteLLM's own, about its types.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

# Imports LiteLLM as the service does, asks a provider, and says in one line what it saw.
ASK = """
import asyncio, json, os, sys, time

seen = []

def hook(event, args):
    outside = event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] != "127.0.0.1"
    if outside or (event == "socket.getaddrinfo" and args[0] not in ("127.0.0.1", b"127.0.0.1")):
        seen.append(str(args[:2]))
        raise OSError("no network here")

sys.addaudithook(hook)

from proxy.clock import SystemClock
from proxy.errors import UpstreamFailure
from proxy.types import Call, Target
from proxy.upstream.sdk import Sdk
from proxy.upstream.unified import Unified
from proxy.upstream.wire import Transport
from proxy.waiting import Waiting

async def main(base):
    sdk = Sdk(Transport(SystemClock()))
    states = [sdk.state]
    sdk.start()
    states.append(sdk.state)
    await sdk.ready()
    states.append(sdk.state)
    unified = Unified(sdk, SystemClock(), limit_bytes=lambda: 1_000_000)
    outcomes = []
    for provider in ("openai", "mistral", "anthropic"):
        target = Target("t", "g", provider, "m", "i", "c", {"api_base": base, "api_key": "sk-x"})
        for stream in (False, True):
            body = {"messages": [{"role": "user", "content": "hello"}], "stream": stream}
            try:
                call, waiting = Call("g", stream, body), Waiting(time.monotonic)
                reply = await unified.call(target, call, foreign=False, waiting=waiting)
                if stream:
                    async for _ in reply: pass
                    await reply.aclose()
                outcomes.append("ok")
            except UpstreamFailure as failure:
                outcomes.append(str(failure.kind))
    await sdk.aclose()
    return states, outcomes

lazy = "litellm" not in sys.modules and "openai" not in sys.modules
states, outcomes = asyncio.run(main(sys.argv[1]))
said = {"lazy": lazy, "states": states, "outcomes": outcomes, "network": seen}
print(json.dumps({**said, "stray": os.environ.get("STRAY")}))
"""


def run(folder: Path, script: str, *args: str, **env: str) -> tuple[dict[str, Any], str]:
    """What a process of its own says in its only line, and all that it says beside it."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *args],
        cwd=folder,
        env=clean_env(folder, env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    said: dict[str, Any] = json.loads(lines[-1])
    return said, "\n".join(lines[:-1]) + done.stderr


def test_litellm_is_imported_and_asked_without_a_word_a_network_or_a_stray_file(
    tmp_path: Path,
) -> None:
    (tmp_path / ".env").write_text(
        "STRAY=1\nOPENAI_API_KEY=sk-stray\nOPENAI_BASE_URL=http://x.test"
    )
    with FakeOpenAI() as fake:
        said, noise = run(tmp_path, ASK, fake.base_url)
        assert said["lazy"]
        assert said["states"] == ["idle", "loading", "ready"]
        assert said["outcomes"] == ["ok", "ok", "ok", "ok", "missing", "missing"]
        assert said["network"] == []
        assert said["stray"] is None
        assert noise == ""
        assert len(fake.journal) == 6
        assert all("sk-stray" not in str(entry.headers) for entry in fake.journal.requests())


def test_an_import_that_fails_is_a_failure_of_the_request_and_shown_as_such(
    tmp_path: Path,
) -> None:
    (tmp_path / "litellm").mkdir()
    (tmp_path / "litellm" / "__init__.py").write_text("raise ImportError('half installed')\n")
    script = """
    import asyncio, json
    from proxy.clock import SystemClock
    from proxy.errors import UpstreamFailure
    from proxy.upstream.sdk import Sdk
    from proxy.upstream.wire import Transport

    async def main():
        sdk, kinds = Sdk(Transport(SystemClock())), []
        for _ in range(2):
            try:
                await sdk.ready()
            except UpstreamFailure as failure:
                kinds.append([str(failure.kind), str(failure)])
        state = sdk.state
        await sdk.aclose()
        return {"state": state, "kinds": kinds}

    print(json.dumps(asyncio.run(main())))
    """
    root = clean_env(tmp_path, {})["PYTHONPATH"]
    said, noise = run(tmp_path, script, PYTHONPATH=f"{tmp_path}:{root}")
    assert said["state"] == "failed"
    assert said["kinds"] == [["unreachable", "LiteLLM cannot be imported (ImportError)"]] * 2
    assert noise == ""
    # Another target may be of another lane; none of LiteLLM's is worth asking again.
    assert RULES[Kind.UNREACHABLE].fall_back
    assert not RULES[Kind.UNREACHABLE].retry


def test_what_litellm_reads_while_it_is_imported_is_set_before() -> None:
    assert SETTINGS["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert SETTINGS["LITELLM_MODE"] == "PRODUCTION"
    assert SETTINGS["MAX_IMAGE_URL_DOWNLOAD_SIZE_MB"] == "0"


@pytest.fixture(scope="module")
def lane() -> Iterator[Lane]:
    with Lane() as lane:
        yield lane


def test_litellm_s_habits_are_switched_off(lane: Lane) -> None:
    assert lane.litellm.suppress_debug_info is True
    assert lane.litellm.callbacks == []
    assert lane.litellm.num_retries is None
    assert lane.litellm.cache is None
    assert lane.litellm.aclient_session.follow_redirects is False


def test_openai_s_sdk_neither_waits_nor_tries_again_whatever_litellm_tells_it(lane: Lane) -> None:
    # Its loop of retries lets its own errors pass: where that ends, a fault costs a second.
    assert issubclass(lane.sdk.error, openai.OpenAIError)
    assert issubclass(lane.sdk.error, WireError)
    with FakeOpenAI() as fake:
        fake.always(Fails(500))
        before = len(lane.transport.asked)
        with pytest.raises(UpstreamFailure):
            lane.ask(target_of("zai", fake.base_url))  # LiteLLM forgets to pass on `max_retries`
        assert len(lane.transport.asked) - before == 1


def test_two_services_in_one_process_do_not_notice_each_other(lane: Lane) -> None:
    with FakeOpenAI() as openai_, FakeAnthropic() as anthropic:
        targets = [
            target_of("openai", openai_.base_url),
            target_of("mistral", openai_.base_url),
            target_of("anthropic", anthropic.base_url),
        ]
        with Lane() as other:
            for target in targets:
                other.ask(target)
                lane.ask(target)
            assert len(other.transport.asked) == len(targets)
        # Its transport is closed, and LiteLLM keeps what it made for it.
        for target in targets:
            lane.ask(target)
            lane.stream(target)
        assert len(openai_.journal) == 2 * (2 + 2)
        assert len(anthropic.journal) == 2 + 2


def test_a_request_that_gives_up_does_not_take_the_import_with_it() -> None:
    async def main() -> str:
        sdk = Sdk(Transport(SystemClock()))
        waiting = asyncio.create_task(sdk.ready())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await sdk.ready()
        state = sdk.state
        await sdk.aclose()
        return state

    assert asyncio.run(main()) == "ready"


def test_a_mocked_target_asks_nobody(lane: Lane) -> None:
    with FakeOpenAI() as fake:
        fake.always(Answer())
        target = target_of("openai", fake.base_url, mock_response="Hello from nowhere")
        assert lane.ask(target).body["choices"][0]["message"]["content"] == "Hello from nowhere"
        _, events = lane.stream(target)
        assert (
            "".join(
                choice["delta"].get("content", "")
                for event in events
                for choice in event["choices"]
            )
            == "Hello from nowhere"
        )
        assert fake.journal.accepted == 0
