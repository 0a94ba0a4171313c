"""Whatever is kept, wherever: every kind of answer, of failure, of place and of crowd."""

from __future__ import annotations

import asyncio
import copy
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import openai
import pytest

from tests.e2e.quota_place import secret
from tests.e2e.test_cache import SAID, asked, calls, config, crowd
from tests.harness import Mobius, RedisServer, redis_server, wait_until
from tests.harness.child import MOBIUS, clean_env
from tests.harness.metrics import total
from tests.providers import Answer, Breaks, Fails, FakeOpenAI, Gate, Step, ToolCall

pytestmark = pytest.mark.e2e

PLACES = ["local", "disk", pytest.param("redis", marks=pytest.mark.redis)]
ONCE = {"laps": 1, "breaker": {"failures": 1000, "share": 1}}  # every request is a call
SEVERAL = (ToolCall("look", '{"at": "t0"}'), ToolCall("find", '{"what": "t1", "n": 2}'))


@pytest.fixture
def provider() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


@contextmanager
def kept_in(place: str, provider: FakeOpenAI, **rules: Any) -> Iterator[Mobius]:
    """Mobius with its answers in that place, and no tries that would blur the count of calls."""
    if place != "redis":
        settings = config(provider.base_url, cache={"type": place}, **ONCE)
        settings["mobius"]["cache"] = rules
        with Mobius(settings) as running:
            yield running
        return
    with redis_server() as server, on_redis(server, provider) as running:
        yield running


@contextmanager
def on_redis(server: RedisServer, provider: FakeOpenAI) -> Iterator[Mobius]:
    cache = {"type": "redis", "url": server.url}
    with Mobius(config(provider.base_url, cache=cache, **ONCE)) as running:
        yield running


@pytest.mark.parametrize("place", PLACES)
def test_a_crowd_is_one_call_wherever_answers_are_kept(place: str, provider: FakeOpenAI) -> None:
    with kept_in(place, provider) as mobius:
        check_crowd(mobius, provider, 200)


@pytest.mark.proof
@pytest.mark.parametrize("place", PLACES)
def test_a_thousand_at_once_are_one_call(place: str, provider: FakeOpenAI) -> None:
    with kept_in(place, provider) as mobius:
        for _ in range(3):
            check_crowd(mobius, provider, 1000)


@pytest.mark.proof
@pytest.mark.redis
def test_a_thousand_at_two_replicas_are_one_call(provider: FakeOpenAI) -> None:
    with redis_server() as server:
        cache = {"type": "redis", "url": server.url, "socket_timeout": 2}
        settings = config(provider.base_url, cache=cache, **ONCE)
        with Mobius(settings) as one, Mobius(settings) as two:
            for number in range(3):
                for stream in (False, True):
                    before, text = calls(provider), f"replicas {number} {stream}"
                    found = asyncio.run(crowd([one, two], text, stream=stream, count=1000))
                    assert {said for said, _ in found} == {SAID}
                    assert sum(found.values()) == 1000
                    assert calls(provider) == before + 1, found


def check_crowd(mobius: Mobius, provider: FakeOpenAI, count: int) -> None:
    for stream in (False, True):
        before = calls(provider)
        found = asyncio.run(crowd([mobius], f"crowd {before}", stream=stream, count=count))
        assert {said for said, _ in found} == {SAID}
        assert sum(found.values()) == count
        assert calls(provider) == before + 1, found


def accumulated(client: openai.OpenAI, text: str, **more: Any) -> dict[str, Any]:
    """What the official SDK makes of the stream."""
    messages: list[Any] = [{"role": "user", "content": text}]
    with client.chat.completions.stream(model="m", messages=messages, **more) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion().model_dump()


@pytest.mark.parametrize("place", PLACES)
def test_every_kind_of_answer_is_the_same_from_the_cache(place: str, provider: FakeOpenAI) -> None:
    answers = {
        "text": Answer(),
        "tool": Answer(tool_calls=SEVERAL[:1]),
        "tools": Answer(tool_calls=SEVERAL),
        "refusal": Answer(refusal="no, t0"),
        "reasoning": Answer(reasoning="because t0 t1"),
        "unicode": Answer(text="é 日本 \u2028 🙂 " * 500),
    }
    with kept_in(place, provider) as mobius:
        client = mobius.openai(secret("web"))
        for name, answer in answers.items():
            provider.always(answer)
            ways: tuple[dict[str, Any], ...] = ({}, {"n": 2})
            for more in ways:
                for usage in (False, True):
                    options: dict[str, Any] = {**more, "stream_options": {"include_usage": usage}}
                    text = f"{name} {more} {usage}"
                    first = accumulated(client, text, **options)
                    assert accumulated(client, text, **options) == first
                    assert (first["usage"] is not None) is usage
                whole = f"whole {name} {more}"
                messages: list[Any] = [{"role": "user", "content": whole}]
                one, two = (
                    client.chat.completions.create(model="m", messages=messages, **more)
                    for _ in range(2)
                )
                assert one == two
                assert "usage" in one.model_fields_set
        assert calls(provider) == len(answers) * 2 * 3


FAILURES: dict[str, Step] = {
    "down": Fails(500),
    "refused": Fails(400),
    "length": Answer(finish="length"),
    "filtered": Answer(finish="content_filter"),
    "cut": Breaks(after_tokens=2, how="ends"),
    "reset": Breaks(after_tokens=2, how="reset"),
    "error": Breaks(after_tokens=2, how="error_event"),
}


@pytest.mark.redis
def test_no_failure_and_no_part_of_an_answer_is_ever_kept(provider: FakeOpenAI) -> None:
    with redis_server() as server, on_redis(server, provider) as mobius:
        for name, step in FAILURES.items():
            for stream in (False, True):
                provider.always(step)
                with suppress(openai.OpenAIError):
                    asked(mobius, name, stream=stream)
                assert server.command("KEYS", "mobius:cache:*") == b"*0\r\n", (name, stream)
        provider.always(Answer())
        wait_until(lambda: asked(mobius, "whole")[0] == SAID)
        wait_until(lambda: server.command("KEYS", "mobius:cache:*").startswith(b"*1\r\n"))


@pytest.mark.parametrize("left_at", [0, 2])
def test_the_first_client_may_leave_and_the_second_has_it_all(
    provider: FakeOpenAI, left_at: int
) -> None:
    gate = Gate()
    provider.script(Answer(gate=gate, gate_after_tokens=left_at))
    with kept_in("local", provider) as mobius:
        asyncio.run(leave(mobius, provider, gate, left_at))
        assert calls(provider) == 1
        assert asked(mobius, "leave") == (SAID, "hit")


def in_flight(mobius: Mobius) -> float:
    return total(mobius.metrics(), "mobius_in_flight_requests")


async def leave(mobius: Mobius, provider: FakeOpenAI, gate: Gate, left_at: int) -> None:
    question: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": "leave"}],
        "stream": True,
    }

    async def read(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(**question)
        return "".join([e.choices[0].delta.content or "" async for e in stream if e.choices])

    async with mobius.async_openai(secret("web")) as one, mobius.async_openai(secret("web")) as two:
        first = asyncio.create_task(read(one))
        await asyncio.to_thread(wait_until, lambda: calls(provider) == 1)
        second = asyncio.create_task(read(two))
        await asyncio.to_thread(wait_until, lambda: in_flight(mobius) == 2)
        first.cancel()
        await asyncio.wait([first])
        await asyncio.to_thread(wait_until, lambda: in_flight(mobius) == 1)
        gate.open()
        assert await second == SAID


def test_an_expired_answer_stands_in_when_every_target_fails(provider: FakeOpenAI) -> None:
    with kept_in("local", provider, stale_if_error=600) as mobius:
        short: dict[str, Any] = {"extra_body": {"cache": {"ttl": 0.05}}}
        assert asked(mobius, "stale", **short) == (SAID, "miss")
        provider.always(Fails(500))

        def stale() -> Any:
            raw = mobius.openai(secret("web")).chat.completions.with_raw_response.create(
                model="m", messages=[{"role": "user", "content": "stale"}]
            )
            return raw if raw.headers["x-mobius-cache"] == "stale" else None

        raw = wait_until(stale)
        assert raw.parse().choices[0].message.content == SAID
        assert raw.headers["age"].isdigit()
        assert raw.headers["warning"].startswith("111 ")
        assert asked(mobius, "stale", stream=True) == (SAID, "stale")
        with pytest.raises(openai.InternalServerError):
            asked(mobius, "never asked before")


def test_a_live_edit_of_a_target_is_another_question(provider: FakeOpenAI) -> None:
    settings = config(provider.base_url)
    with Mobius(settings) as mobius:
        assert asked(mobius, "edited")[1] == "miss"
        assert asked(mobius, "edited")[1] == "hit"
        for value in (1, True, "1"):
            edited = copy.deepcopy(settings)
            edited["model_list"][0]["litellm_params"]["extra_body"] = {"x": value}
            mobius.edit(edited)
            wait_until(lambda: asked(mobius, "edited")[1] == "miss", what=repr(value))
            assert provider.journal.requests()[-1].json["x"] is value or value == "1"
            assert asked(mobius, "edited")[1] == "hit"


def test_only_requests_that_want_it_are_cached_where_the_file_says_so(
    provider: FakeOpenAI,
) -> None:
    settings = config(provider.base_url, cache={"type": "local", "mode": "default_off"})
    with Mobius(settings) as mobius:
        wants: dict[str, Any] = {"extra_body": {"cache": {"use-cache": True}}}
        assert asked(mobius, "off")[1] == "bypass"
        assert asked(mobius, "off", **wants)[1] == "miss"
        assert asked(mobius, "off", **wants)[1] == "hit"
        assert asked(mobius, "off")[1] == "bypass"


@pytest.mark.redis
def test_what_redis_holds_and_cannot_be_read_is_a_miss(provider: FakeOpenAI) -> None:
    with redis_server() as server, on_redis(server, provider) as mobius:
        for junk in ("junk", "mobius1\n1 2\nx", "x" * 60_000):
            assert asked(mobius, junk[:9]) == (SAID, "miss")
            wait_until(lambda: server.command("KEYS", "mobius:cache:*").startswith(b"*1\r\n"))
            place = server.command("KEYS", "mobius:cache:*").split(b"\r\n")[2].decode()
            server.command("SET", place, junk)
            assert asked(mobius, junk[:9]) == (SAID, "miss")
            wait_until(lambda: asked(mobius, junk[:9]) == (SAID, "hit"))  # noqa: B023
            server.command("FLUSHALL")


def control(text: str) -> dict[str, Any]:
    """What the official SDK is given for a header `Cache-Control`."""
    return {"extra_headers": {"cache-control": text}}


def field(**wishes: Any) -> dict[str, Any]:
    """What it is given for LiteLLM's field."""
    return {"extra_body": {"cache": wishes}}


def test_how_old_an_answer_may_be_is_for_the_client_to_say(provider: FakeOpenAI) -> None:
    with kept_in("local", provider, stale_if_error=600) as mobius:

        def ask(**more: Any) -> str:
            said, cache = asked(mobius, "aged", **more)
            assert said == SAID
            return cache

        assert ask(**field(ttl=0.001)) == "miss"
        assert ask(**control("max-stale=60")) == "hit"
        assert ask(**control("max-stale")) == "hit"
        assert ask(**field(ttl=600)) == "miss"  # the former one has expired
        for fresh in (control("max-age=600"), field(**{"s-maxage": 600}), field()):
            assert ask(**fresh) == "hit"
            assert ask(stream=True, **fresh) == "hit"
        for old in (control("max-age=0"), control("no-cache"), field(**{"no-cache": True})):
            assert ask(**old) == "miss"
            assert ask(stream=True, **old) == "miss"
        for unkept in (control("no-store"), field(**{"no-store": True})):
            assert ask(**unkept) == "hit"
        assert ask(**control("no-cache, no-store")) == "bypass"
        assert ask(**control("no-cache"), **field(**{"no-store": True})) == "bypass"
        assert all(b"cache" not in each.body for each in provider.journal.requests())


@pytest.mark.redis
def test_what_a_redis_forgets_is_asked_anew(provider: FakeOpenAI) -> None:
    with redis_server() as server, on_redis(server, provider) as mobius:
        assert asked(mobius, "forgotten") == (SAID, "miss")
        wait_until(lambda: asked(mobius, "forgotten") == (SAID, "hit"))
        server.stop()
        server.start()
        assert asked(mobius, "forgotten") == (SAID, "miss")
        wait_until(lambda: asked(mobius, "forgotten") == (SAID, "hit"))


@pytest.mark.parametrize("folder", ["taken", "taken/below", "/proc/none"])
def test_a_folder_that_cannot_be_used_is_told_at_start(provider: FakeOpenAI, folder: str) -> None:
    settings = config(provider.base_url, cache={"type": "disk", "disk_cache_dir": folder})
    with Mobius(config(provider.base_url)) as mobius:
        mobius.stop()
        (mobius.folder / "taken").write_text("a file")
        mobius.edit(settings)
        done = subprocess.run(
            [*MOBIUS, "serve", "--config", str(mobius.config), "--port", str(mobius.port)],
            env=clean_env(mobius.folder, {}),
            cwd=mobius.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"answers cannot be kept in {folder} (" in line
    assert "cache_params.disk_cache_dir" in line
