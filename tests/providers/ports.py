"""Ports that stay ours between two servers that listen on them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

HOST = "127.0.0.1"


def bound(port: int = 0) -> socket.socket:
    """A socket bound to that port, or to a free one, which does not listen yet.

    While it is open, connecting is refused, nobody else is given the port, and a server that sets
    SO_REUSEADDR (all of them do) can listen there.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, port))
    return sock


def port_of(sock: socket.socket) -> int:
    """The port number of a bound socket."""
    port: int = sock.getsockname()[1]
    return port


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port where connecting is refused, and which nobody else gets meanwhile."""
    with bound() as held:
        yield port_of(held)


@contextlib.contextmanager
def unanswered_port() -> Iterator[int]:
    """A port where connecting hangs: its queue of connections is full and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(bound())
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((HOST, port_of(listener)))
        yield port_of(listener)
