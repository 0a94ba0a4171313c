"""The addresses that `mobius serve` listens on: taken before anything else is started."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

# What `localhost` stands for, whatever the machine's files say of it: some clients try one of them
# first, some the other, and not all of them try both.
LOOPBACKS = ("127.0.0.1", "::1")
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class CannotListen(Exception):
    """The address, or what TLS needs, cannot be had; the message says which."""


class NotHere(CannotListen):
    """The machine has no such address."""


@contextmanager
def bound(host: str, port: int) -> Iterator[list[socket.socket]]:
    """
    Hold the address inside the `with`; port 0 is any that is free. Raises CannotListen.

    For `localhost` it is two, IPv4 and IPv6 at the same port, or the one that the machine has.
    """
    hosts = LOOPBACKS if host == "localhost" else (host,)
    with ExitStack() as held:
        listeners: list[socket.socket] = []
        for each in hosts:
            try:
                listeners.append(held.enter_context(_listener(each, port)))
            except NotHere:
                if each == hosts[-1] and not listeners:
                    raise
            else:
                port = listeners[-1].getsockname()[1]
        yield listeners


def urls(listeners: Sequence[socket.socket], *, tls: bool) -> list[str]:
    """Return where the listeners can be reached."""
    scheme = "https" if tls else "http"
    return [f"{scheme}://{_shown(*each.getsockname()[:2])}" for each in listeners]


def _listener(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # For a name of both kinds, the one that every client tries.
        family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refused(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _refused(host, port, error) from error
    return listener


def _refused(host: str, port: int, error: OSError) -> CannotListen:
    reason = error.strerror or type(error).__name__
    if error.errno == errno.EADDRINUSE:
        reason = "the port is in use; --port takes another one"
    refusal = NotHere if error.errno in _NOT_HERE else CannotListen
    return refusal(f"cannot listen on {_shown(host, port)}: {reason}")


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
