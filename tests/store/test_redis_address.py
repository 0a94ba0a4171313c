"""What the URL of a Redis says, and what is said of one that says nothing."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection

from proxy.policy import RedisSettings
from proxy.store.redis_address import Address, RedisAddressInvalid, address_of, check_url
from proxy.store.redis_client import open_client


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "redis+sentinel://one:26380,two/mymaster",
            Address("sentinel", False, (("one", 26380), ("two", 26379)), None, None, "mymaster", 0),
        ),
        (
            "rediss+sentinel://me:p%40ss%2F:word@one/my%20master/3",
            Address("sentinel", True, (("one", 26379),), "me", "p@ss/:word", "my master", 3),
        ),
        (
            "redis+sentinel://:secret@[::1]:1,10.0.0.1:2/m/0",
            Address("sentinel", False, (("::1", 1), ("10.0.0.1", 2)), None, "secret", "m", 0),
        ),
        (
            "redis+cluster://one,two:7000,",
            Address("cluster", False, (("one", 6379), ("two", 7000)), None, None, "", 0),
        ),
        (
            "rediss+cluster://me:secret@one:7000/0",
            Address("cluster", True, (("one", 7000),), "me", "secret", "", 0),
        ),
    ],
)
def test_several_nodes_are_read_from_one_url(url: str, said: Address) -> None:
    assert address_of(url) == said
    check_url(url)
    open_client(RedisSettings(url=url))


@pytest.mark.parametrize(
    "url",
    [
        *("redis://one", "redis://:secret@one:1/2", "rediss://one/0", "unix:///run/redis.sock"),
        *("redis://one?db=3", "redis://[::1]:6379"),
    ],
)
def test_one_server_is_read_by_the_client_itself(url: str) -> None:
    check_url(url)
    open_client(RedisSettings(url=url))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://one", "http:// is no Redis"),
        ("one:6379", "is no Redis"),
        ("", "is no Redis"),
        ("redis+sentry://one/m", "redis+sentry:// is no Redis"),
        ("http+cluster://one", "http+cluster:// is no Redis"),
        ("redis+sentinel://one", "needs the name of the service"),
        ("redis+sentinel://one/", "needs the name of the service"),
        ("redis+sentinel://one/m/zero", "cannot be read"),
        ("redis+sentinel:///m", "names no host"),
        ("redis+cluster://", "names no host"),
        ("redis+cluster://:secret@", "names no host"),
        ("redis+cluster://one/1", "no databases"),
        ("redis+cluster://one:port", "cannot be read"),
        ("redis+cluster://one:99999", "cannot be read"),
        ("redis+cluster://:secret@one,:7000", "names no host"),
        ("redis+cluster://me:secret", "cannot be read"),
        ("redis://me:secret", "cannot be read"),
        ("redis://[one", "cannot be read"),
    ],
)
def test_a_url_that_names_no_redis_is_refused_without_its_password(url: str, said: str) -> None:
    with pytest.raises(RedisAddressInvalid, match=said.replace("+", r"\+")) as refused:
        check_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["redis://me:secret", "redis://one?socket_timeout=secret"])
def test_a_plain_url_that_is_wrong_is_refused_when_it_is_opened(url: str) -> None:
    with pytest.raises(RedisAddressInvalid) as refused:
        open_client(RedisSettings(url=url))
    assert "secret" not in str(refused.value)


def test_the_parts_of_an_address_open_a_client_too() -> None:
    client = open_client(RedisSettings(host="one", port=7, password="secret", db=2))
    found = client.get_connection_kwargs()
    assert (found["host"], found["port"], found["password"], found["db"]) == ("one", 7, "secret", 2)


def test_a_password_beside_the_url_counts_where_the_url_has_none() -> None:
    for url, password in (("redis://one", "beside"), ("redis://:within@one", "within")):
        client = open_client(RedisSettings(url=url, password="beside"))
        assert client.get_connection_kwargs()["password"] == password


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://127.0.0.1:1/0", SSLConnection),
        ("rediss://127.0.0.1:1/0", SSLConnection),
        ("redis+sentinel://127.0.0.1:1/m", SentinelManagedSSLConnection),
    ],
)
def test_whoever_asks_for_tls_beside_a_url_has_it(url: str, kind: type) -> None:
    client: Any = open_client(RedisSettings(url=url, ssl=True))
    assert client.connection_pool.connection_class is kind
    plain: Any = open_client(RedisSettings(url=url))
    assert (plain.connection_pool.connection_class is kind) is url.startswith("rediss")


def test_a_cluster_is_asked_by_tls_too() -> None:
    client: Any = open_client(RedisSettings(url="redis+cluster://127.0.0.1:1", ssl=True))
    assert client.connection_kwargs["connection_class"] is SSLConnection
