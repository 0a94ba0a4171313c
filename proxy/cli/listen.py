"""The address that `mobius serve` listens on: taken before anything else is started."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence


class CannotListen(Exception):
    """The address, or what TLS needs, cannot be had; the message says which."""


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that holds the address; port 0 is any that is free. Raises CannotListen."""
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # For a name of both kinds, such as localhost, the one that every client tries.
        family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotListen(f"cannot listen on {_shown(host, port)}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise CannotListen(f"cannot listen on {_shown(host, port)}: {_reason(error)}") from error
    return listener


def urls(listeners: Sequence[socket.socket], *, tls: bool) -> list[str]:
    """Return where the listeners can be reached."""
    scheme = "https" if tls else "http"
    return [f"{scheme}://{_shown(*each.getsockname()[:2])}" for each in listeners]


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; --port takes another one"
    return error.strerror or type(error).__name__
