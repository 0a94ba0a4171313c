"""Real parts for end-to-end tests: Mobius as a process, Redis as a process."""

from __future__ import annotations

from tests.harness.metrics import Samples, total
from tests.harness.mobius import Mobius, mobius_command
from tests.harness.redis_server import RedisServer, redis_server
from tests.harness.waiting import wait_until

__all__ = [
    "Mobius",
    "RedisServer",
    "Samples",
    "mobius_command",
    "redis_server",
    "total",
    "wait_until",
]
