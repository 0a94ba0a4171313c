"""
A client of the Redis that the file names: one server, a Sentinel's master, or a Cluster.

No client here tries anything again by itself: what a timeout means is known one room further up.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from proxy.policy import RedisSettings
from proxy.store.redis_address import (
    CLUSTER,
    REDIS_PORT,
    UNREADABLE,
    Address,
    RedisAddressInvalid,
    address_of,
)

CONNECT_S = 0.5  # nobody waits for it: what is asked meanwhile is told that Redis is gone
# Longer than what `RedisLink` waits: it alone knows a slow Redis from a busy event loop.
BACKSTOP_S = 1.5
MARGIN_S = 1.0

NO_EVICTION = "noeviction"

Client: TypeAlias = Redis | RedisCluster
Options: TypeAlias = dict[str, Any]


class Master(Redis):
    """The master that Sentinels name; closing it closes the connections to them as well."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        try:
            await super().aclose(close_connection_pool)
        finally:
            pool: Any = self.connection_pool  # of Sentinels, which its type does not say
            for sentinel in pool.sentinel_manager.sentinels:
                await sentinel.aclose()


def open_client(settings: RedisSettings, *, timeout_s: float = 0.0) -> Client:
    """
    Return a client that connects when it is first asked. Raises RedisAddressInvalid.

    `timeout_s` is for how long whoever uses it waits. It may be used from one event loop only, and
    whoever opens it closes it.
    """
    url = settings.url or _url_of_several(settings)
    if url is None:
        return Redis(
            ssl=settings.ssl,
            host=settings.host or "localhost",
            port=settings.port or REDIS_PORT,
            db=settings.db or 0,
            password=settings.password,
            **_options(timeout_s),
        )
    scheme = url.partition("://")[0]
    if settings.ssl and scheme.partition("+")[0] == "redis":
        # LiteLLM goes by the URL alone. Whoever wrote both wants nothing to be sent in the clear.
        url, scheme = f"rediss{url.removeprefix('redis')}", f"rediss{scheme.removeprefix('redis')}"
    if "+" in scheme:
        return _of_several(address_of(url), settings.password, timeout_s)
    try:
        return Redis.from_url(url, **_given(settings), **_options(timeout_s))
    except ValueError:
        raise RedisAddressInvalid(UNREADABLE) from None


def _url_of_several(settings: RedisSettings) -> str | None:
    """Return the URL of what LiteLLM writes as lists of hosts and ports."""
    scheme = "rediss" if settings.ssl else "redis"
    if settings.cluster:
        return f"{scheme}+cluster://{_hosts(settings.cluster)}"
    if settings.sentinels and settings.service is not None:
        return f"{scheme}+sentinel://{_hosts(settings.sentinels)}/{settings.service}"
    return None


def _hosts(nodes: tuple[tuple[str, int], ...]) -> str:
    return ",".join(f"{host}:{port}" for host, port in nodes)


def _given(settings: RedisSettings) -> Options:
    """Return what stands beside the URL; what stands in it wins, as in redis-py."""
    return {} if settings.password is None else {"password": settings.password}


def _options(timeout_s: float, *, standalone: bool = True) -> Options:
    options: Options = {
        "socket_connect_timeout": CONNECT_S,
        "socket_timeout": max(BACKSTOP_S, timeout_s + MARGIN_S),
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
    }
    # Mostly one connection is open: what is asked meanwhile goes out with the next batch.
    return options | {"health_check_interval": 0} if standalone else options


def _of_several(address: Address, password: str | None, timeout_s: float) -> Client:
    own: Options = {"username": address.username, "password": address.password or password}
    if address.tls:
        own["ssl"] = True
    if address.kind == CLUSTER:
        nodes = [ClusterNode(host, port) for host, port in address.nodes]
        options = _options(timeout_s, standalone=False)
        return RedisCluster(startup_nodes=nodes, **own, **options)
    options = _options(timeout_s)
    nodes_of = Sentinel(list(address.nodes), sentinel_kwargs=options, **own, **options)  # type: ignore[no-untyped-call]  # redis-py has no annotations here
    master: Redis = nodes_of.master_for(address.service, redis_class=Master, db=address.db)
    return master


async def doubts(client: Client) -> tuple[str, ...]:
    """
    Return what in the configuration of this Redis endangers quota, in words for its operator.

    A Redis that does not show its configuration, as hosted ones may not, raises no doubt.
    """
    try:
        found = await client.config_get("maxmemory*")
    except (RedisError, OSError):
        return ()
    policy, most = found.get("maxmemory-policy", NO_EVICTION), found.get("maxmemory", "0")
    if policy == NO_EVICTION or most == "0":
        return ()
    return (
        f"this Redis has maxmemory-policy {policy}: when it is full it drops counters, and limits "
        f"no longer hold; set maxmemory-policy {NO_EVICTION}, or use a Redis for quota alone",
    )
