"""GET /ai/providers/health: each provider, and each of its targets."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.api.deps import TargetHealth
from proxy.probes import Probe
from tests.api.fakes import COMPLETION, Edge, replies

pytestmark = pytest.mark.anyio


async def asked(*targets: TargetHealth) -> dict[str, dict[str, Any]]:
    edge = Edge(replies(COMPLETION))
    edge.state["targets"] = lambda: targets
    client = await edge.get("/ai/providers/health").run()
    assert client.status == 200
    found: dict[str, dict[str, Any]] = client.json
    assert set(found) == {"providers", "targets"}
    return found


def of(label: str, provider: str, latency_s: float | None = None, **facts: object) -> TargetHealth:
    known = {"healthy": True, **facts}
    return TargetHealth(label, provider=provider, latency_s=latency_s, **known)  # type: ignore[arg-type]


async def test_a_provider_is_as_well_as_the_best_of_its_targets() -> None:
    found = await asked(
        of("a", "openai", 0.5, healthy=False, reason="resting 9.0 s"),
        of("b", "openai", 0.41),
        of("c", "openai", 0.9),
        of("d", "anthropic", 0.2, healthy=False, reason="ANTHROPIC_API_KEY is not set"),
        of("e", "groq"),
    )
    assert found["providers"] == {
        "openai": {"healthy": True, "latency": 0.41},
        "anthropic": {"healthy": False, "latency": None},
        "groq": {"healthy": True, "latency": None},
    }
    assert found["targets"]["a"] == {
        "provider": "openai",
        "healthy": False,
        "latency": 0.5,
        "reason": "resting 9.0 s",
        "probe": None,
    }


async def test_a_mock_speaks_for_its_provider_only_where_nobody_else_does() -> None:
    mock = of("m", "openai", 0.001, mocked=True)
    assert (await asked(mock))["providers"] == {"openai": {"healthy": True, "latency": 0.001}}
    found = await asked(mock, of("a", "openai", healthy=False, reason="OPENAI_API_KEY is not set"))
    assert found["providers"] == {"openai": {"healthy": False, "latency": None}}
    assert set(found["targets"]) == {"m", "a"}


async def test_where_no_request_has_met_a_first_token_a_probe_says_how_fast_it_is() -> None:
    good = Probe("models", "ok", 0.12, at_s=990.0)
    bad = Probe("models", "unreachable", 0.001, at_s=1000.0)
    found = await asked(of("a", "openai", probe=good), of("b", "anthropic", probe=bad))
    assert found["providers"]["openai"] == {"healthy": True, "latency": 0.12}
    assert found["providers"]["anthropic"] == {"healthy": True, "latency": None}
    assert found["targets"]["a"]["probe"] == {
        "by": "models",
        "outcome": "ok",
        "latency": 0.12,
        "age": 10.0,
    }
    assert (await asked(of("a", "openai", 0.4, probe=good)))["providers"]["openai"] == {
        "healthy": True,
        "latency": 0.4,
    }
