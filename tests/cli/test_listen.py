"""The port of the metrics is taken at once, beside the server's own and never twice."""

from __future__ import annotations

import socket

import pytest

from proxy.cli.listen import CannotListen, apart, bound
from proxy.policy import MetricsPort
from tests.providers.ports import closed_port

HOST = "127.0.0.1"


@pytest.mark.parametrize("access", ["open", "key"])
def test_nothing_is_taken_where_the_file_names_no_port(access: str) -> None:
    with bound(HOST, 0) as listeners, apart(access, HOST, listeners) as found:
        assert found == []


def test_it_is_on_the_host_of_the_server_unless_the_file_says_where() -> None:
    for host, expected in ((None, HOST), ("127.0.0.2", "127.0.0.2")):
        with closed_port() as port, bound(HOST, 0) as listeners:
            with apart(MetricsPort(port=port, host=host), HOST, listeners) as (found,):
                assert found.getsockname() == (expected, port)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((expected, port))


def test_it_is_held_from_then_on_against_anybody_else() -> None:
    with closed_port() as port, bound(HOST, 0) as listeners:
        access = MetricsPort(port=port)
        with (
            apart(access, HOST, listeners),
            pytest.raises(CannotListen) as refused,
            apart(access, HOST, listeners),
        ):
            pass
        assert str(refused.value) == (
            f"cannot listen on {HOST}:{port}: the port is in use; "
            "mobius.metrics.access.port takes another one"
        )


def test_it_is_not_the_port_of_the_server_itself_whatever_the_host() -> None:
    with bound(HOST, 0) as listeners:
        port = listeners[0].getsockname()[1]
        access = MetricsPort(port=port, host="127.0.0.2")
        with pytest.raises(CannotListen) as refused, apart(access, HOST, listeners):
            pass
        said = f"mobius.metrics.access.port: {port} is the port of the server itself"
        assert str(refused.value) == said
