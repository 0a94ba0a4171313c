"""
Two replicas on one Redis: either says what both providers served, whatever becomes of the other
replica and of Redis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from tests.harness import Mobius, RedisServer, mobius_command, redis_server
from tests.providers import FakeOpenAI

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

MASTER = "sk-master-0123456789"
NANO = (3000, 15_000)  # for a token of the prompt, and of the answer
AGAIN_S = 30.0  # until the totals are right again
NOTE = "This is what one replica alone used: Redis cannot be reached."


def config(provider: FakeOpenAI, redis: RedisServer) -> dict[str, Any]:
    params = {
        "model": "openai/first",
        "api_base": provider.base_url,
        "api_key": "sk-of-the-provider",
        "input_cost_per_token": NANO[0] / 10**9,
        "output_cost_per_token": NANO[1] / 10**9,
    }
    return {
        "model_list": [{"model_name": "chat", "litellm_params": params}],
        "router_settings": {"redis_url": redis.url, "num_retries": 0},
        "general_settings": {"master_key": MASTER},
        "mobius": {"ledger": {"path": "mobius.db"}},
    }


@dataclass
class Place:
    replicas: tuple[Mobius, Mobius]
    providers: tuple[FakeOpenAI, FakeOpenAI]
    redis: RedisServer

    def ask(self, number: int, times: int = 1) -> None:
        for _ in range(times):
            response = self.replicas[number].http.post(
                "/v1/chat/completions",
                json={"model": "chat", "messages": [{"role": "user", "content": "hello"}]},
                headers={"authorization": f"Bearer {MASTER}"},
            )
            assert response.status_code == 200, response.text

    def report(self, number: int) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {MASTER}"}
        response = self.replicas[number].http.get("/admin/usage?group_by=model", headers=headers)
        assert response.status_code == 200, response.text
        report: dict[str, Any] = response.json()
        return report

    @property
    def served(self) -> tuple[int, int, int, int]:
        """What the journals say: attempts, tokens of prompts and of answers, nano-dollars."""
        entries = [each for fake in self.providers for each in fake.journal.requests()]
        prompt = sum(len(entry.body) // 4 for entry in entries)
        completion = sum(len(entry.tokens_sent) for entry in entries)
        return len(entries), prompt, completion, prompt * NANO[0] + completion * NANO[1]

    def told(self, number: int) -> tuple[int, int, int, int]:
        (row,) = self.report(number)["rows"]
        names = ("attempts", "prompt_tokens", "completion_tokens")
        attempts, prompt, completion = (int(row[name]) for name in names)
        return attempts, prompt, completion, int(Decimal(row["cost_usd"]) * 10**9)

    def wait_told(self, *numbers: int) -> None:
        for number in numbers:
            self.replicas[number].wait_until(
                lambda number=number: self.told(number) == self.served,  # type: ignore[misc]
                AGAIN_S,
                f"all use at replica {number}",
            )
            assert self.report(number)["replicas"] == 2


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with (
        redis_server() as redis,
        FakeOpenAI() as first,
        FakeOpenAI() as second,
        Mobius(config(first, redis), secrets=(MASTER,)) as one,
        Mobius(config(second, redis), secrets=(MASTER,)) as other,
    ):
        yield Place((one, other), (first, second), redis)


def test_either_says_what_both_providers_served(place: Place) -> None:
    place.ask(0, 3)
    place.ask(1, 2)
    place.wait_told(0, 1)
    assert place.report(0)["note"] is None


def test_it_is_the_same_after_a_replica_was_killed_and_started_again(place: Place) -> None:
    place.ask(0)
    place.ask(1)
    place.wait_told(0, 1)
    place.replicas[1].kill()
    place.wait_told(0)
    place.replicas[1].start()
    place.wait_told(0, 1)
    place.ask(1)
    place.wait_told(0, 1)


def test_a_replica_that_ends_has_told_everything(place: Place) -> None:
    place.ask(1, 3)
    assert place.replicas[1].stop() == 0
    assert place.told(0) == place.served
    place.replicas[1].start()


def test_it_is_right_again_after_redis_came_back_empty(place: Place) -> None:
    place.ask(1)
    place.redis.stop()
    place.redis.start()
    place.wait_told(0, 1)


def test_without_redis_it_is_one_replica_and_this_is_told(place: Place) -> None:
    place.ask(0)
    place.wait_told(0, 1)
    place.redis.stop()
    try:
        report = place.report(0)
        assert report["replicas"] == 1
        assert report["note"] == NOTE
        (row,) = report["rows"]
        assert row["attempts"] == len(place.providers[0].journal.requests())
        place.replicas[0].wait_until(lambda: '"usage_not_shared"' in place.replicas[0].log)
        done = mobius_command("usage", "--url", place.replicas[0].url, "--key", MASTER)
        assert done.stdout.splitlines()[-1] == NOTE
    finally:
        place.redis.start()
    place.wait_told(0, 1)
