"""Identical requests through the official SDK: one call, whole answers, nobody else's answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import openai
import orjson
import pytest

from tests.e2e.quota_place import HI, key, secret
from tests.harness import Mobius, RedisServer, mobius_command, redis_server, wait_until
from tests.providers import FakeOpenAI

pytestmark = pytest.mark.e2e

SAID = "t0 t1 t2 t3 t4 "
CROWD = 200
KEYS = [
    key("web", team="product"),
    key("batch", team="product"),
    key("team-web", team="product", cache_scope="team"),
    key("team-batch", team="product", cache_scope="team"),
    key("counted", limits={"rpm": 2}),
    key("narrow", models=["other"]),
]


def config(base_url: str, *, cache: dict[str, Any] | None = None, **mobius: Any) -> dict[str, Any]:
    params = {"model": "openai/x", "api_base": base_url, "api_key": "sk-provider"}
    settings: dict[str, Any] = {"cache": True}
    if cache is not None:
        settings["cache_params"] = cache
    return {
        "model_list": [{"model_name": name, "litellm_params": params} for name in ("m", "other")],
        "litellm_settings": settings,
        "general_settings": {"master_key": "sk-master"},
        "mobius": {"keys": KEYS, **mobius},
    }


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


@pytest.fixture(scope="module")
def mobius(provider: FakeOpenAI) -> Iterator[Mobius]:
    with Mobius(config(provider.base_url)) as running:
        yield running


def asked(
    mobius: Mobius, text: str, *, name: str = "web", stream: bool = False, **more: Any
) -> tuple[str, str]:
    """What the SDK read, and what the cache did."""
    client = mobius.openai(secret(name))
    raw = client.chat.completions.with_raw_response.create(
        **{"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream, **more}
    )
    parsed: Any = raw.parse()
    if stream:
        said = "".join(each.choices[0].delta.content or "" for each in parsed if each.choices)
    else:
        said = parsed.choices[0].message.content
    return said, raw.headers["x-mobius-cache"]


def calls(provider: FakeOpenAI) -> int:
    return len(provider.journal.requests())


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_the_same_question_is_asked_once(
    mobius: Mobius, provider: FakeOpenAI, first: bool, second: bool
) -> None:
    before = calls(provider)
    text = f"once {first} {second}"
    assert asked(mobius, text, stream=first) == (SAID, "miss")
    assert asked(mobius, text, stream=second) == (SAID, "hit")
    assert calls(provider) == before + 1


def test_nobody_is_given_anothers_answer(mobius: Mobius) -> None:
    assert asked(mobius, "whose", name="web")[1] == "miss"
    assert asked(mobius, "whose", name="batch")[1] == "miss"
    assert asked(mobius, "whose", name="team-web")[1] == "miss"
    assert asked(mobius, "whose", name="team-batch")[1] == "hit"
    assert asked(mobius, "whose", name="web")[1] == "hit"


@pytest.mark.parametrize(
    "more",
    [{"temperature": 0.5}, {"model": "other"}, {"extra_body": {"unknown": 1}}, {"user": "u"}],
)
def test_another_question_is_another_call(mobius: Mobius, more: dict[str, Any]) -> None:
    text = f"another {more}"
    assert asked(mobius, text)[1] == "miss"
    assert asked(mobius, text, **more)[1] == "miss"
    assert asked(mobius, text, **more)[1] == "hit"


def test_a_hit_is_a_request_and_costs_nothing(mobius: Mobius) -> None:
    assert asked(mobius, "counted", name="counted")[1] == "miss"
    assert asked(mobius, "counted", name="counted")[1] == "hit"
    with pytest.raises(openai.RateLimitError):
        asked(mobius, "counted", name="counted")
    with pytest.raises(openai.PermissionDeniedError):
        asked(mobius, "counted", name="narrow")
    headers = {"authorization": "Bearer sk-master"}
    rows = mobius.http.get("/admin/usage?group_by=key", headers=headers).json()["rows"]
    (row,) = (each for each in rows if each["key"] == "counted")
    assert (row["admitted"], row["attempts"]) == (2, 1)


def test_what_a_request_says_of_the_cache_is_heeded_and_reaches_no_provider(
    mobius: Mobius, provider: FakeOpenAI
) -> None:
    def ask(**more: Any) -> str:
        return asked(mobius, "heeded", **more)[1]

    assert ask(extra_headers={"cache-control": "no-store"}) == "miss"
    assert ask(extra_body={"cache": {"ttl": 60}}) == "miss"
    assert ask() == "hit"
    assert ask(extra_headers={"cache-control": "no-cache"}) == "miss"
    assert ask(extra_body={"cache": {"no-cache": True, "no-store": True}}) == "bypass"
    assert ask(extra_body={"cache": {"namespace": "x"}}) == "miss"
    assert b"cache" not in provider.journal.requests()[-1].body
    with pytest.raises(openai.BadRequestError, match=r"cache\.ttl"):
        ask(extra_body={"cache": {"ttl": "x"}})


@pytest.mark.parametrize("stream", [False, True])
def test_a_crowd_is_one_call(mobius: Mobius, provider: FakeOpenAI, stream: bool) -> None:
    before = calls(provider)
    found = asyncio.run(crowd([mobius], f"crowd {stream}", stream=stream))
    assert {said for said, _ in found} == {SAID}
    assert sum(found.values()) == CROWD
    assert calls(provider) == before + 1


async def crowd(
    servers: list[Mobius], text: str, *, stream: bool, count: int = CROWD
) -> Counter[tuple[str, str]]:
    """What so many read who ask at once, in turn at each of the servers."""
    clients = [server.async_openai(secret("web")) for server in servers]

    async def one(number: int) -> tuple[str, str]:
        client = clients[number % len(clients)]
        raw = await client.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": text}], stream=stream
        )
        parsed: Any = raw.parse()
        if stream:
            pieces = [e.choices[0].delta.content or "" async for e in parsed if e.choices]
            return "".join(pieces), raw.headers["x-mobius-cache"]
        return parsed.choices[0].message.content, raw.headers["x-mobius-cache"]

    found = Counter(await asyncio.gather(*(one(number) for number in range(count))))
    for client in clients:
        await client.close()
    return found


def test_answers_can_be_dropped(mobius: Mobius) -> None:
    headers = {"authorization": "Bearer sk-master"}

    def drop(query: str) -> Any:
        return mobius.http.delete(f"/admin/cache{query}", headers=headers)

    assert asked(mobius, "dropped")[1] == "miss"
    assert asked(mobius, "dropped", model="other")[1] == "miss"
    assert drop("?model=other").json()["dropped"] >= 1
    assert asked(mobius, "dropped", model="other")[1] == "miss"
    assert asked(mobius, "dropped")[1] == "hit"
    assert drop("").json()["dropped"] >= 2
    assert asked(mobius, "dropped")[1] == "miss"
    assert drop("?key=a&model=b").status_code == 400
    assert mobius.http.delete("/admin/cache").status_code == 401


def test_a_person_is_told_the_key_and_what_went_into_it(provider: FakeOpenAI) -> None:
    def key_of(body: dict[str, Any], *more: str) -> dict[str, Any]:
        done = mobius_command(
            "cache-key",
            *more,
            "--as",
            "web",
            config=config(provider.base_url),
            text=orjson.dumps(body).decode(),
        )
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = orjson.loads(done.stdout)
        return report

    one = key_of({"model": "m", "messages": HI, "temperature": 1.0})
    assert one["used"] is True
    assert one["tenant"] == "key:web"
    assert key_of({"temperature": 1, "stream": True, "messages": HI, "model": "m"}) == one
    assert key_of({"model": "m", "messages": HI})["key"] != one["key"]
    vectors = key_of({"model": "m", "input": ["a", "b"]}, "--surface", "embeddings")
    assert (vectors["inputs"], len(vectors["keys"])) == (["a", "b"], 2)


@pytest.mark.redis
def test_replicas_share_answers_and_calls_and_outlive_their_redis(provider: FakeOpenAI) -> None:
    with redis_server() as server:
        # On a machine that is busy elsewhere a Redis may take longer than the tenth of a second
        # after which each replica makes its own call.
        cache = {"type": "redis", "url": server.url, "socket_timeout": 0.5}
        shared = config(provider.base_url, cache=cache)
        with Mobius(shared) as one, Mobius(shared) as two:
            before = calls(provider)
            for stream in (False, True):
                found = asyncio.run(crowd([one, two], f"replicas {stream}", stream=stream))
                assert {said for said, _ in found} == {SAID}
            assert calls(provider) == before + 2
            assert asked(one, "over there") == (SAID, "miss")
            wait_until(lambda: asked(two, "over there") == (SAID, "hit"))
            without(server, one, provider)


def without(server: RedisServer, mobius: Mobius, provider: FakeOpenAI) -> None:
    """While its Redis hangs or is gone, everything is a miss and everybody is answered."""
    for stop, start in ((server.hang, server.resume), (server.stop, server.start)):
        stop()
        for number in range(5):
            assert asked(mobius, f"without {stop.__name__} {number}") == (SAID, "miss")
        start()
        wait_until(partial(is_hit, mobius, f"again {stop.__name__}"))


def is_hit(mobius: Mobius, text: str) -> bool:
    return asked(mobius, text)[1] == "hit"


def test_a_disk_keeps_answers_over_a_restart(provider: FakeOpenAI) -> None:
    with Mobius(config(provider.base_url, cache={"type": "disk"})) as mobius:
        assert asked(mobius, "kept on disk") == (SAID, "miss")
        mobius.stop()
        mobius.start()
        assert asked(mobius, "kept on disk") == (SAID, "hit")
