"""A provider that is there and says nothing: who comes later does not wait behind those who do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.harness import Mobius
from tests.harness.waiting import wait_until
from tests.providers import Answer, FakeOpenAI, Gate

pytestmark = pytest.mark.e2e

WAITING = 3  # streams in a row, as many as failures open a breaker


def test_a_target_that_lets_streams_wait_is_gone_round_until_it_answers() -> None:
    with FakeOpenAI() as first, FakeOpenAI() as second:
        config = {
            "model_list": [_entry("a", first), _entry("b", second)],
            "router_settings": {"routing_strategy": "health-based", "num_retries": 0},
            "mobius": {"breaker": {"failures": WAITING}, "timeouts": {"first_token": 600}},
        }
        with Mobius(config) as mobius:
            asyncio.run(_hang(mobius, first, second))


async def _hang(mobius: Mobius, first: FakeOpenAI, second: FakeOpenAI) -> None:
    client, gate = mobius.async_openai(), Gate()

    async def ask() -> None:
        messages: Any = [{"role": "user", "content": "hi"}]
        stream = await client.chat.completions.create(model="m", messages=messages, stream=True)
        async for _ in stream:
            pass

    def explained() -> str:
        return mobius.http.get("/admin/explain/m").text

    async with client:
        for _ in range(20):
            await ask()  # so that it is known how long a first token takes
        first.script(*[Answer(gate=gate)] * WAITING)
        waiting = [asyncio.create_task(ask()) for _ in range(WAITING)]
        await asyncio.to_thread(wait_until, lambda: "has let several wait" in explained(), 30.0)
        await ask()
        assert len(second.journal.requests()) == 1
        assert not any(task.done() for task in waiting)
        health = mobius.http.get("/health").json()
        assert health["unhealthy_count"] == 0, "nobody is blamed"
        gate.open()
        await asyncio.gather(*waiting)
        await ask()
        assert len(second.journal.requests()) == 1, "the first one answers again"


def _entry(model: str, fake: FakeOpenAI) -> dict[str, Any]:
    place = {"api_base": fake.base_url, "api_key": "sk-provider-1234"}
    return {"model_name": "m", "litellm_params": {"model": f"openai/{model}", **place}}
