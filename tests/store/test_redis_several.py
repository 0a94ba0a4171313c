"""A Redis of several nodes: a Sentinel's master that fails over, and a Cluster, by their URLs."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from proxy.limits import Spent
from proxy.policy import RedisSettings
from proxy.store.port import StoreUnavailable
from proxy.store.redis_client import doubts, open_client
from tests.harness import RedisServer, redis_server, wait_until
from tests.harness.redis_server import RedisServer as Server
from tests.harness.redis_server import redis_executable
from tests.providers.ports import bound, port_of
from tests.store.redis_stand import SHORT, Replica, replica, until
from tests.store.stores import WEB, claims, let_in, parallel, refused, rpd, tpd

pytestmark = pytest.mark.redis

PATIENT = replace(SHORT, owner_s=60.0)


@contextlib.contextmanager
def sentinel(master: RedisServer) -> Iterator[RedisServer]:
    """A Sentinel that watches this master as `mymaster`, and does without others' consent."""
    executable = redis_executable()
    assert executable is not None
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sentinel-")))
        port = port_of(stack.enter_context(bound()))
        (folder / "sentinel.conf").write_text(
            f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds mymaster 300\n"
            "sentinel failover-timeout mymaster 2000\n"
        )
        server = Server(f"{executable}", port, folder, ("--sentinel",), file="sentinel.conf")
        server.start()
        stack.callback(server.stop)
        yield server


async def usable(each: Replica) -> bool:
    try:
        await each.store.standings([tpd(1)])
    except StoreUnavailable:
        return False
    return True


@pytest.mark.parametrize("doing", ["stop", "hang"])
def test_limits_hold_when_a_sentinel_makes_another_node_the_master(doing: str) -> None:
    with redis_server() as first, redis_server("--replicaof", "127.0.0.1", "1") as second:
        second.command("REPLICAOF", "127.0.0.1", str(first.port))
        wait_until(lambda: b"master_link_status:up" in second.command("INFO", "replication"))
        with sentinel(first) as watcher:
            wait_until(lambda: b"slaves=1" in watcher.command("INFO", "sentinel"), 15.0)
            url = f"redis+sentinel://127.0.0.1:{watcher.port}/mymaster/0"

            async def main() -> None:
                async with (
                    replica(url, "one", spans=PATIENT) as one,
                    replica(url, "two", spans=PATIENT) as two,
                ):
                    let_in(await one.store.admit("a", [parallel(2), rpd(5)]))
                    let_in(await two.store.reserve("a.1", claims(60, tpd(100)), [WEB]))
                    getattr(first, doing)()
                    for each in (one, two):
                        await until(partial(usable, each), 30.0)
                    assert b"role:master" in second.command("INFO", "replication")
                    refused(await one.store.reserve("b.1", claims(41, tpd(100)), [WEB]))
                    let_in(await two.store.admit("b", [parallel(2), rpd(5)]))
                    refused(await two.store.admit("c", [parallel(2), rpd(5)]))
                    await two.store.settle("a.1", Spent(tokens=10))
                    let_in(await two.store.reserve("b.1", claims(41, tpd(100)), [WEB]))

            asyncio.run(main())
            if doing == "hang":
                first.resume()


def test_a_cluster_is_used_by_its_url() -> None:
    with redis_server("--cluster-enabled", "yes") as node:
        for start in range(0, 16384, 1024):
            slots = [str(slot) for slot in range(start, start + 1024)]
            assert node.command("CLUSTER", "ADDSLOTS", *slots) == b"+OK\r\n"
        wait_until(lambda: b"cluster_state:ok" in node.command("CLUSTER", "INFO"), 15.0)
        url = f"redis+cluster://127.0.0.1:{node.port}"

        async def main() -> None:
            async with (
                replica(url, "one", spans=PATIENT) as one,
                replica(url, "two", spans=PATIENT) as two,
            ):
                assert one.store.trouble is None
                let_in(await one.store.admit("a", [parallel(1)]))
                refused(await two.store.admit("b", [parallel(1)]))
                node.hang()
                with pytest.raises(StoreUnavailable):
                    await two.store.admit("c", [parallel(1)])
                await one.store.leave("a")
                node.resume()
                for each in (one, two):
                    await until(partial(usable, each))
                let_in(await two.store.admit("d", [parallel(1)]))
                client = open_client(RedisSettings(url=url))
                assert await doubts(client) == ()
                await client.config_set("maxmemory", "100mb")
                await client.config_set("maxmemory-policy", "allkeys-lru")
                (doubt,) = await doubts(client)
                assert "allkeys-lru" in doubt
                await client.aclose()

        asyncio.run(main())
