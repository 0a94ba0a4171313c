"""What the URL of a Redis says, where it names several nodes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

SENTINEL_PORT = 26_379
REDIS_PORT = 6_379
SENTINEL = "sentinel"
CLUSTER = "cluster"
PLAIN = frozenset({"redis", "rediss", "unix"})


class RedisAddressInvalid(ValueError):
    """The settings name no Redis; the message says what is wrong, without the password."""


# Without what could not be read, which may be a password before a forgotten `@`.
UNREADABLE = (
    "the URL of the Redis cannot be read: redis://user:password@host:6379/0 is one, and "
    "redis+sentinel://…, redis+cluster://… name several hosts"
)


@dataclass(frozen=True, slots=True)
class Address:
    """One URL, read. `nodes` are (host, port)."""

    kind: str  # `sentinel`, `cluster` or empty
    tls: bool
    nodes: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None
    service: str
    db: int


def address_of(url: str) -> Address:
    """Return what a URL of several nodes says. Raises RedisAddressInvalid."""
    try:
        found = urlsplit(url)
        base, _, kind = found.scheme.partition("+")
        if base not in {"redis", "rediss"} or kind not in {SENTINEL, CLUSTER}:
            raise RedisAddressInvalid(
                f"{found.scheme}:// is no Redis: redis://, rediss://, unix://, redis+sentinel:// "
                "and redis+cluster:// are"
            )
        service, db = _path_of(found, kind)
        credentials, _, hosts = found.netloc.rpartition("@")
        username, _, password = credentials.partition(":")
        port = SENTINEL_PORT if kind == SENTINEL else REDIS_PORT
        nodes = tuple(_node(host, port) for host in hosts.split(",") if host)
        if not nodes:
            raise RedisAddressInvalid("the URL of the Redis names no host")
        return Address(
            kind=kind,
            tls=base == "rediss",
            nodes=nodes,
            username=unquote(username) or None,
            password=unquote(password) or None,
            service=service,
            db=db,
        )
    except RedisAddressInvalid:
        raise
    except ValueError:
        raise RedisAddressInvalid(UNREADABLE) from None


def _path_of(found: SplitResult, kind: str) -> tuple[str, int]:
    parts = [unquote(part) for part in found.path.split("/") if part]
    if kind == CLUSTER:
        if parts not in ([], ["0"]):
            raise RedisAddressInvalid("a Redis Cluster has no databases: leave the path out")
        return "", 0
    if not parts:
        raise RedisAddressInvalid(
            "redis+sentinel:// needs the name of the service: redis+sentinel://host:26379/mymaster"
        )
    return parts[0], int(parts[1]) if len(parts) > 1 else 0


def _node(text: str, port: int) -> tuple[str, int]:
    found = urlsplit(f"//{text}")
    if not found.hostname:
        raise RedisAddressInvalid("the URL of the Redis names no host")
    return found.hostname, found.port or port


def check_url(url: str) -> None:
    """Return when the URL is one that a client can be opened for. Raises RedisAddressInvalid."""
    scheme = url.partition("://")[0]
    if scheme not in PLAIN:
        address_of(url)
        return
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise RedisAddressInvalid(UNREADABLE) from None
