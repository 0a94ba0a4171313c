"""The addresses that `mobius serve` listens on: taken before anything else is started."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from proxy.policy import MetricsPort

# What `localhost` stands for, whatever the machine's files say of it: some clients try one of them
# first, some the other, and not all of them try both.
LOOPBACKS = ("127.0.0.1", "::1")
METRICS_PORT = "mobius.metrics.access.port"
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class CannotListen(Exception):
    """The address, or what TLS needs, cannot be had; the message says which."""


class NotHere(CannotListen):
    """The machine has no such address."""


@contextmanager
def apart(
    access: object, host: str, listeners: Sequence[socket.socket]
) -> Iterator[list[socket.socket]]:
    """
    Hold the port that `mobius.metrics.access` names; nothing where it names none.

    It is none of the `listeners`', and on `host` where the file does not say where. Raises
    CannotListen.
    """
    if not isinstance(access, MetricsPort):
        yield []
        return
    if access.port in {each.getsockname()[1] for each in listeners}:
        raise CannotListen(f"{METRICS_PORT}: {access.port} is the port of the server itself")
    host = access.host or host
    with bound(host, access.port, setting=METRICS_PORT) as found:
        for each in found:
            try:
                each.listen()  # at once: until somebody does, the port can be taken twice
            except OSError as error:
                raise _refused(host, access.port, error, METRICS_PORT) from error
        yield found


@contextmanager
def bound(host: str, port: int, *, setting: str = "--port") -> Iterator[list[socket.socket]]:
    """
    Hold the address inside the `with`; port 0 is any that is free. Raises CannotListen.

    For `localhost` it is two, IPv4 and IPv6 at the same port, or the one that the machine has.
    `setting` is where another port can be chosen.
    """
    hosts = LOOPBACKS if host == "localhost" else (host,)
    with ExitStack() as held:
        listeners: list[socket.socket] = []
        for each in hosts:
            try:
                listeners.append(held.enter_context(_listener(each, port, setting)))
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


def _listener(host: str, port: int, setting: str) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # For a name of both kinds, the one that every client tries.
        family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refused(host, port, error, setting) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _refused(host, port, error, setting) from error
    return listener


def _refused(host: str, port: int, error: OSError, setting: str) -> CannotListen:
    reason = error.strerror or type(error).__name__
    if error.errno == errno.EADDRINUSE:
        reason = f"the port is in use; {setting} takes another one"
    refusal = NotHere if error.errno in _NOT_HERE else CannotListen
    return refusal(f"cannot listen on {_shown(host, port)}: {reason}")


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
