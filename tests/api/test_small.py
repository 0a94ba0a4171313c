"""What the log says of the small addresses: who is refused and who changes something, no polls."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.types import Caller
from tests.api.fakes import COMPLETION, Edge, replies, snapshot

pytestmark = pytest.mark.anyio

KEYS = {"sk-web": Caller("web"), "sk-master": Caller("master", admin=True)}
RELOAD = ("/admin/reload", "POST")
EXPLAIN = ("/admin/explain/gpt", "GET")


def locked(**policy: Any) -> Edge:
    return Edge(replies(COMPLETION), snapshot("gpt", callers=KEYS, **policy))


def lines(edge: Edge) -> list[dict[str, Any]]:
    """The lines so far, without their time."""
    return [
        {name: value for name, value in orjson.loads(line).items() if name != "time"}
        for line in edge.log_lines
    ]


async def test_a_reload_that_was_asked_for_is_a_line_with_who_asked() -> None:
    edge = locked()
    assert (await edge.get(*RELOAD, authorization="Bearer sk-master").run()).status == 200
    assert lines(edge) == [
        {"event": "admin", "level": "info", "asked": "POST /admin/reload", "caller": "master"}
    ]


@pytest.mark.parametrize(
    ("key", "status", "outcome"),
    [("sk-web", 403, "admin_key_required"), ("sk-guessed", 401, "invalid_api_key")],
)
@pytest.mark.parametrize(
    ("address", "asked"),
    [(RELOAD, "POST /admin/reload"), (EXPLAIN, "GET /admin/explain/")],
)
async def test_who_is_refused_is_a_line_without_the_key(
    key: str, status: int, outcome: str, address: tuple[str, str], asked: str
) -> None:
    edge = locked()
    assert (await edge.get(*address, authorization=f"Bearer {key}").run()).status == status
    assert lines(edge) == [
        {
            "event": "admin",
            "level": "warning",
            "asked": asked,
            "outcome": outcome,
            "status": status,
            "client": "127.0.0.1",
        }
    ]
    assert key.encode() not in b"".join(edge.log_lines)


async def test_a_page_of_another_site_is_refused_with_a_line() -> None:
    edge = Edge(replies(COMPLETION))
    client = await edge.get(*RELOAD, origin="https://evil.test").run()
    assert client.status == 403
    assert [line["outcome"] for line in lines(edge)] == ["origin_not_allowed"]
    assert edge.snapshots.reloads == 0


async def test_who_only_looks_leaves_no_line() -> None:
    edge = locked(metrics={"access": "key"})
    master = {"authorization": "Bearer sk-master"}
    for path in ("/health/liveness", "/health/readiness", "/health", "/metrics", EXPLAIN[0]):
        assert (await edge.get(path, **master).run()).status == 200
    for path in ("/health", "/metrics", "/v1/models"):
        assert (await edge.get(path, authorization="Bearer sk-guessed").run()).status == 401
    assert edge.log_lines == []
