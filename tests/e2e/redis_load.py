"""Two Mobius on one Redis, clients that ask both without a pause, and what they were told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.quota_place import key, priced, secret
from tests.harness import Mobius, RedisServer, redis_server, wait_until
from tests.providers import Answer, FakeOpenAI
from tests.store.redis_stand import counters
from tests.store.rows import select

FEW_RPD = 300
MANY = 10**9
CALLERS = ("free", "few", "many")
UNUSED = ssl.create_default_context()  # which each client would take 30 ms to make
SUM = "SELECT sum(prompt_tokens + completion_tokens), sum(nano_usd), sum(admitted) FROM totals"


def config(base: str, redis_url: str, how: str) -> dict[str, Any]:
    many = {"tpd": MANY, "rpd": MANY, "max_parallel": 1000, "budget_usd": {"total": 1000}}
    few = {"rpd": FEW_RPD, "max_parallel": 50}
    return {
        "model_list": [priced("m", base)],
        "router_settings": {"num_retries": 0, "redis_url": redis_url},
        "mobius": {
            "laps": 1,
            "quota": {"on_store_failure": how},
            "keys": [key("free"), key("few", limits=few), key("many", limits=many)],
        },
    }


@dataclass(frozen=True)
class Told:
    """One answer: to whom, when it was asked for, how long it took, and what it was."""

    caller: str
    at_s: float
    took_s: float
    status: int
    overhead_s: float | None


@dataclass
class Pair:
    redis: RedisServer
    provider: FakeOpenAI
    replicas: Sequence[Mobius]
    told: list[Told] = field(default_factory=list)

    async def ask(self, client: httpx.AsyncClient, caller: str) -> Told:
        body = {"model": "m", "messages": [{"role": "user", "content": caller}], "max_tokens": 10}
        headers = {"authorization": f"Bearer {secret(caller)}"}
        at_s = time.monotonic()
        answer = await client.post("/v1/chat/completions", json=body, headers=headers)
        overhead = answer.headers.get("x-mobius-overhead-ms")
        told = Told(
            caller,
            at_s,
            time.monotonic() - at_s,
            answer.status_code,
            float(overhead) / 1000 if overhead else None,
        )
        self.told.append(told)
        return told

    def ask_once(self, place: int, caller: str) -> int:
        async def once() -> int:
            async with self._client(place) as client:
                return (await self.ask(client, caller)).status

        return asyncio.run(once())

    @asynccontextmanager
    async def load(self, pause_s: float = 0.01) -> AsyncIterator[None]:
        """Every caller asks both replicas inside the `with`, as soon as it is answered."""
        stopping = False
        # A full collection of the judge's own heap takes 0.1 s, in which nobody reads an answer.
        gc.freeze()

        async def work(place: int, caller: str) -> None:
            async with self._client(place) as client:
                while not stopping:
                    await self.ask(client, caller)
                    await asyncio.sleep(pause_s)

        tasks = [
            asyncio.create_task(work(place, caller))
            for place in range(len(self.replicas))
            for caller in CALLERS * 2
        ]
        try:
            yield
        finally:
            stopping = True
            await asyncio.gather(*tasks)
            gc.unfreeze()

    def settled(self) -> dict[str, int]:
        """What Redis says of `many`: tokens and requests of today, money ever, and what is open."""
        found = asyncio.run(counters(self.redis.url))
        of_many = {name: value for name, value in found.items() if ":key:many" in name}
        return {
            "tokens": sum(v for n, v in of_many.items() if n.startswith("s:tokens:day")),
            "nano_usd": sum(v for n, v in of_many.items() if n.startswith("s:nano_usd:total")),
            "requests": sum(v for n, v in of_many.items() if n.startswith("s:requests:day")),
            "open": sum(value for name, value in found.items() if name.startswith("open")),
        }

    def recorded(self) -> dict[str, int]:
        """What the ledgers of both say of the same."""
        sums = [0, 0, 0]
        for each in self.replicas:
            (row,) = select(each.folder / "data" / "mobius.db", f"{SUM} WHERE key = 'many'")
            sums = [a + (b or 0) for a, b in zip(sums, row, strict=True)]
        return dict(zip(("tokens", "nano_usd", "requests"), sums, strict=True)) | {"open": 0}

    def wait_right(self, timeout_s: float = 30.0) -> None:
        """Redis says what the ledgers say, and nothing is open; AssertionError if it never did."""
        try:
            wait_until(lambda: self.settled() == self.recorded(), timeout_s)
        except AssertionError as exc:
            raise AssertionError(f"{self.settled()} is not {self.recorded()}") from exc

    def _client(self, place: int) -> httpx.AsyncClient:
        url = self.replicas[place].url
        return httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False, verify=UNUSED)


@contextlib.contextmanager
def pair(
    how: str,
    *,
    redis_args: Sequence[str] = (),
    there: bool = True,
    env: Mapping[str, str] | None = None,
) -> Iterator[Pair]:
    """
    Two replicas with a ledger each, the second one with this environment.

    `there` is whether their Redis runs when they start.
    """
    with redis_server(*redis_args) as redis, FakeOpenAI() as provider:
        provider.always(Answer(tokens=5))
        if not there:
            redis.stop()
        both = config(provider.base_url, redis.url, how)
        with Mobius(both) as one, Mobius(both, env=env) as two:
            both_of_them = Pair(redis, provider, (one, two))
            for place in (0, 1):
                both_of_them.ask_once(place, "free")  # the first one waits for an import
            both_of_them.told.clear()
            provider.journal.clear()
            yield both_of_them
