"""The small addresses, who may use them, and what is said where there is no address."""

from __future__ import annotations

from typing import Any

import pytest

from proxy import __version__
from proxy.api.azure import ROOTS, azure_addresses
from proxy.api.deps import TargetHealth
from proxy.api.openapi import PATHS
from proxy.api.routes import TABLE
from proxy.api.surfaces import ROWS, addresses
from proxy.errors import ProxyError
from proxy.routing import Plan, Step
from proxy.types import Caller, Target
from tests.api.fakes import COMPLETION, Edge, replies, snapshot

pytestmark = pytest.mark.anyio

WEB = Caller("web", models=("gpt", "claude-*"))
MASTER = Caller("master", admin=True)
KEYS = {"sk-web": WEB, "sk-master": MASTER}
MODELS = ("gpt", "claude-3", "gemini")


def edge(**policy: Any) -> Edge:
    return Edge(replies(COMPLETION), snapshot(*MODELS, **policy))


def locked(**policy: Any) -> Edge:
    return Edge(replies(COMPLETION), snapshot(*MODELS, callers=KEYS, **policy))


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sk-web"},
        {"authorization": "bearer  sk-web "},
        {"x_api_key": "sk-web"},
        {"api_key": "sk-web"},
        {"authorization": "Basic abc", "api_key": "sk-web"},
        {"authorization": "Bearer ", "x_api_key": "sk-web"},
    ],
)
async def test_a_key_may_come_in_any_of_the_sdks_headers(headers: dict[str, str]) -> None:
    server = locked()
    assert (await server.post(**headers).run()).status == 200
    assert server.gateway.callers == ["web"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "sk-web"},
        {"authorization": "Basic sk-web"},
        {"authorization": "Bearer sk-other"},
        {"authorization": "Bearer " + "x" * 9000},
    ],
)
async def test_no_valid_key_is_always_the_same_401(headers: dict[str, str]) -> None:
    server = locked()
    client = await server.post(**headers).run()
    assert client.status == 401
    assert client.error == {
        "message": "no valid API key: it is missing, unknown or expired",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
    assert client.headers["www-authenticate"] == "Bearer"
    assert len(client._pieces) == 1
    assert server.meters.reasons == ["invalid_api_key"]


async def test_the_models_are_those_the_caller_may_ask() -> None:
    for path in ("/v1/models", "/models"):
        client = await locked().get(path, authorization="Bearer sk-web").run()
        assert client.json["object"] == "list"
        assert [model["id"] for model in client.json["data"]] == ["gpt", "claude-3"]
        assert set(client.json["data"][0]) == {"id", "object", "created", "owned_by"}
    assert len((await edge().get("/v1/models").run()).json["data"]) == 3
    assert (await locked().get("/v1/models").run()).status == 401


async def test_one_model_is_told_of_by_its_name() -> None:
    server = Edge(replies(COMPLETION), snapshot("openai/gpt"))
    client = await server.get("/v1/models/openai/gpt").run()
    assert client.json["id"] == "openai/gpt"
    assert client.json["object"] == "model"


async def test_a_model_the_caller_may_not_ask_is_as_unknown_as_an_invented_one() -> None:
    server = locked()
    for name in ("gemini", "gemino"):
        client = await server.get(f"/v1/models/{name}", authorization="Bearer sk-web").run()
        assert client.status == 404
        assert client.error["code"] == "model_not_found"
        assert client.error["message"] == f"the model `{name}` does not exist"


async def test_liveness_needs_no_key() -> None:
    for path in ("/health/liveness", "/health/liveliness"):
        client = await locked().get(path).run()
        assert (client.status, client.json) == (200, {"status": "alive"})


async def test_readiness_tells_of_the_configuration_and_the_lanes() -> None:
    client = await locked().get("/health/readiness").run()
    assert client.status == 200
    assert client.json == {
        "status": "ready",
        "generation": 3,
        "config_error": None,
        "draining": False,
        "lanes": {"unified": "ready"},
    }


async def test_a_broken_file_is_shown_and_is_no_reason_to_send_nobody() -> None:
    server = edge()
    server.snapshots.last_error = ValueError("litellm_config.yaml:7: `modle` is not known")
    client = await server.get("/health/readiness").run()
    assert client.status == 200
    assert client.json["config_error"] == "litellm_config.yaml:7: `modle` is not known"


@pytest.mark.parametrize(
    ("lanes", "ready"),
    [
        ({}, True),
        ({"unified": "idle"}, True),
        ({"unified": "loading"}, False),
        ({"unified": "failed"}, False),
        ({"unified": "failed", "direct": "ready"}, True),
        ({"unified": "loading", "direct": "ready"}, False),
    ],
)
async def test_readiness_waits_for_lanes(lanes: dict[str, str], ready: bool) -> None:
    server = edge()
    server.state["lanes"] = lambda: lanes
    assert (await server.get("/health/readiness").run()).status == (200 if ready else 503)


async def test_a_draining_server_is_not_ready() -> None:
    server = edge()
    server.drain.begin()
    client = await server.get("/health/readiness").run()
    assert client.status == 503
    assert client.json["status"] == "not_ready"
    assert client.json["draining"] is True


async def test_health_lists_targets_for_those_with_a_key() -> None:
    server = locked()
    server.state["targets"] = lambda: (
        TargetHealth("gpt/openai/gpt-4o", healthy=True),
        TargetHealth("claude/anthropic/sonnet", healthy=False, reason="open for 3.0 s"),
    )
    assert (await server.get("/health").run()).status == 401
    client = await server.get("/health", authorization="Bearer sk-web").run()
    assert client.json == {
        "healthy_endpoints": [{"target": "gpt/openai/gpt-4o"}],
        "unhealthy_endpoints": [{"target": "claude/anthropic/sonnet", "reason": "open for 3.0 s"}],
        "healthy_count": 1,
        "unhealthy_count": 1,
    }


async def test_metrics_are_open_unless_the_file_says_otherwise() -> None:
    client = await locked().get("/metrics").run()
    assert client.status == 200
    assert client.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"
    assert client.bodies == [b"mobius_up 1\n"]
    closed = locked(metrics={"access": "key"})
    assert (await closed.get("/metrics").run()).status == 401
    assert (await closed.get("/metrics", authorization="Bearer sk-web").run()).status == 200


async def test_metrics_for_a_port_that_was_not_taken_are_here_for_those_with_a_key() -> None:
    elsewhere = locked(metrics={"access": {"port": 9090}})
    assert (await elsewhere.get("/metrics").run()).status == 401
    assert (await elsewhere.get("/metrics", authorization="Bearer sk-web").run()).status == 200
    assert (await edge(metrics={"access": {"port": 9090}}).get("/metrics").run()).status == 200


async def test_the_metrics_are_those_of_all_or_none() -> None:
    server = edge()
    assert (await server.get("/metrics").run()).bodies == [b"mobius_up 1\n"]
    server.everyone.silent = "the supervisor does not answer"
    for client in (server.get("/metrics"), server.get("/admin/reload", "POST")):
        await client.run()
        assert (client.status, client.error["code"]) == (503, "workers_unavailable")
        assert client.error["message"] == "the supervisor does not answer"


async def test_reload_is_for_administrators() -> None:
    server = locked()
    post = {"path": "/admin/reload", "method": "POST"}
    assert (await server.get(**post).run()).status == 401
    client = await server.get(**post, authorization="Bearer sk-web").run()
    assert client.status == 403
    assert client.error["code"] == "admin_key_required"
    assert server.snapshots.reloads == 0
    client = await server.get(**post, authorization="Bearer sk-master").run()
    assert client.json == {"result": "ok", "error": None, "generation": 3}
    assert server.snapshots.reloads == 1
    assert (await edge().get(**post).run()).status == 200


async def test_an_administrator_is_told_which_targets_would_be_asked_and_why() -> None:
    server = locked()
    target = Target("gpt/openai/gpt-4o", "gpt", "openai", "gpt-4o", identity="i", credential="c")
    server.state["explain"] = lambda ring, policy: Plan((Step(target, "healthy"),))
    path = "/admin/explain/gpt"
    assert (await server.get(path, authorization="Bearer sk-web").run()).status == 403
    client = await server.get(path, authorization="Bearer sk-master").run()
    assert client.json == {
        "model": "gpt",
        "asked": [{"target": "gpt/openai/gpt-4o", "reason": "healthy"}],
        "left_out": [],
    }
    unknown = await server.get("/admin/explain/gpd", authorization="Bearer sk-master").run()
    assert unknown.error["message"] == "the model `gpd` does not exist; did you mean `gpt`?"


async def test_a_reload_that_failed_says_where() -> None:
    server = edge()
    server.snapshots.result, server.snapshots.last_error = "error", ValueError("a.yaml:3: no")
    client = await server.get("/admin/reload", "POST").run()
    assert client.json == {"result": "error", "error": "a.yaml:3: no", "generation": 3}


@pytest.mark.parametrize("path", ["/", "/v1/chat/completions/", "/v1/nothing", "/docs"])
async def test_where_there_is_nothing_the_envelope_says_so(path: str) -> None:
    client = await edge().get(path, x_request_id="r1").run()
    assert client.status == 404
    assert client.error["code"] == "unknown_url"
    assert client.headers["x-request-id"] == "r1"


async def test_a_method_that_is_not_taken_is_405_in_the_envelope() -> None:
    client = await edge().get("/v1/chat/completions").run()
    assert client.status == 405
    assert client.error["code"] == "method_not_supported"
    assert client.headers["allow"] == "POST"


async def test_options_tell_the_methods() -> None:
    client = await edge().get("/v1/models", "OPTIONS").run()
    assert client.status == 204
    assert set(client.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_head_is_answered_where_get_is() -> None:
    assert (await edge().get("/health/liveness", "HEAD").run()).status == 200


async def test_a_fault_behind_a_small_route_says_nothing() -> None:
    server = edge()

    def lanes() -> dict[str, str]:
        raise ValueError("sk-secret")

    server.state["lanes"] = lanes
    client = await server.get("/health/readiness").run()
    assert client.status == 500
    assert client.error["code"] == "internal_error"
    assert b"sk-secret" not in b"".join(server.log_lines)


async def test_the_addresses_are_described() -> None:
    client = await edge().get("/openapi.json").run()
    assert client.json["info"] == {"title": "Mobius", "version": __version__}
    assert "/v1/chat/completions" in client.json["paths"]


def test_every_address_that_is_described_is_served_and_the_other_way_round() -> None:
    served = {(path.replace(":path", ""), method.lower()) for method, path, _ in TABLE}
    described = {(path, method) for path, operations in PATHS.items() for method in operations}
    other_spellings = {"/models", "/models/{model}", "/health/liveliness"}
    other_spellings |= {f"/responses/{{response}}{at}" for at in ("", "/input_items", "/cancel")}
    other_spellings |= {path for row in ROWS for path in list(addresses(row))[1:]}
    other_spellings |= {path for row in ROWS for path in azure_addresses(row)}
    kept = [f"/responses/{{response}}{at}" for at in ("", "/input_items", "/cancel")]
    small = ("/models", "/models/{model}", *kept)
    other_spellings |= {f"{root}{path}" for root in ROOTS for path in small}
    assert described <= served
    assert {path for path, _ in served - described} == {*other_spellings, "/openapi.json"}


def test_every_error_has_a_status_and_a_type_of_the_wire() -> None:
    def tree(kind: type[ProxyError]) -> list[type[ProxyError]]:
        return [kind, *(leaf for each in kind.__subclasses__() for leaf in tree(each))]

    for kind in tree(ProxyError):
        assert 400 <= kind.status < 600
        assert kind.type in {
            *("invalid_request_error", "rate_limit_error", "server_error"),
            *("requests", "insufficient_quota"),  # OpenAI's for its own limits
        }
