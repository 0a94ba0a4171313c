"""The protocol of a connection knows whom to tell that its client has left."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from proxy.cli.protocol import BoundedProtocol
from tests.cli.fakes import Socket

pytestmark = pytest.mark.anyio


async def test_a_request_that_still_settles_forgets_only_its_own_departure() -> None:
    config = uvicorn.Config(lambda: None, lifespan="off", log_config=None)
    config.load()
    protocol = BoundedProtocol(config, ServerState(), {})
    protocol.connection_made(cast(asyncio.BaseTransport, Socket()))
    gone: list[str] = []
    forget_first = protocol._on_departure(lambda: gone.append("first"))
    forget_second = protocol._on_departure(lambda: gone.append("second"))
    forget_first()
    protocol.connection_lost(None)
    assert gone == ["second"]
    forget_second()
