"""What is told of a model, in OpenAI's form and in Anthropic's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.api.described import described, owner_of
from proxy.catalogue import PriceTable
from proxy.facts import Stated
from proxy.snapshot import Snapshot
from proxy.types import Caller, Group, Ring, Target
from tests.api.fakes import COMPLETION, Edge, replies, sha256, snapshot
from tests.fakes import target

pytestmark = pytest.mark.anyio

TABLE = PriceTable(
    {
        "gpt": {
            "litellm_provider": "openai", "mode": "chat", "max_input_tokens": 128_000,
            "max_output_tokens": 16_000, "input_cost_per_token": 2.5e-6,
            "output_cost_per_token": 1e-5, "supports_vision": True, "supports_tool_choice": True,
        },
        "claude": {
            "litellm_provider": "anthropic", "mode": "chat", "max_input_tokens": 200_000,
            "max_output_tokens": 8_000, "input_cost_per_token": 3e-6,
            "output_cost_per_token": 1e-5, "supports_vision": True, "supports_tool_choice": False,
        },
    }
)  # fmt: skip
ANTHROPIC = {"anthropic_version": "2023-06-01"}


def known(model: str, provider: str, **stated: Any) -> Target:
    said = Stated(**stated)
    facts = TABLE.find(provider, model, said)
    return replace(
        target(f"{model}/{provider}/{model}"),
        provider=provider, model=model, facts=facts, stated=said,
    )  # fmt: skip


GPT, CLAUDE = known("gpt", "openai"), known("claude", "anthropic")


def serving(*names: str, **targets: tuple[Target, ...]) -> Edge:
    rings = {name: Ring(name, (Group(name, ()),)) for name in names}
    rings |= {name: Ring(name, (Group(name, found),)) for name, found in targets.items()}
    return Edge(replies(COMPLETION), replace(snapshot(), rings=rings))


def test_one_target_is_told_of_as_the_table_has_it() -> None:
    assert described([GPT]) == {
        "mode": "chat", "max_input_tokens": 128_000, "max_output_tokens": 16_000,
        "input_cost_per_token": 2.5e-6, "output_cost_per_token": 1e-5,
        "supports_vision": True, "supports_tool_choice": True,
    }  # fmt: skip


def test_of_several_what_holds_whichever_answers() -> None:
    assert described([GPT, CLAUDE]) == {
        "mode": "chat", "max_input_tokens": 128_000, "max_output_tokens": 8_000,
        "input_cost_per_token": 3e-6, "output_cost_per_token": 1e-5,
        "ranges": {"input_cost_per_token": [2.5e-6, 3e-6]},
        "supports_vision": True, "supports_tool_choice": False,
    }  # fmt: skip
    assert described([GPT, known("mystery", "openai")]) == {}
    assert described([]) == {}


def test_the_file_s_word_stands_above_the_table_s() -> None:
    numbers = (("input_cost_per_token", 1e-6), ("max_input_tokens", 5))
    stated = replace(known("gpt", "openai", numbers=numbers), info={"mode": "own", "id": "secret"})
    found = described([stated])
    assert (found["input_cost_per_token"], found["max_input_tokens"]) == (1e-6, 5)
    assert found["mode"] == "own"
    assert "id" not in found
    wrong = replace(GPT, info={"mode": 7, "supports_vision": "yes"})
    assert described([wrong]) == described([GPT])


def test_a_mock_has_no_price() -> None:
    found = described([known("gpt", "openai", mocked=True)])
    assert found == {"max_input_tokens": 128_000, "max_output_tokens": 16_000}


def test_the_owner_is_the_provider_where_there_is_one() -> None:
    assert owner_of([GPT, GPT]) == "openai"
    assert owner_of([GPT, CLAUDE]) is None
    assert owner_of([]) is None


async def test_openai_s_form_has_all_of_it() -> None:
    edge = serving(**{"team/gpt": (GPT,), "both": (GPT, CLAUDE)})
    listed = (await edge.get("/v1/models").run()).json["data"]
    assert [(each["id"], each["owned_by"]) for each in listed] == [
        ("team/gpt", "openai"), ("both", "mobius")
    ]  # fmt: skip
    one = (await edge.get("/v1/models/team/gpt").run()).json
    assert one == listed[0]
    assert (one["max_input_tokens"], one["object"]) == (128_000, "model")


async def test_anthropic_s_form_has_pages() -> None:
    edge = serving(*(f"m{number}" for number in range(45)))

    async def ids(query: str) -> tuple[list[str], bool]:
        page = (await edge.get(f"/v1/models{query}", **ANTHROPIC).run()).json
        found = [each["id"] for each in page["data"]]
        assert (page["first_id"], page["last_id"]) == ((found or [None])[0], (found or [None])[-1])
        return found, page["has_more"]

    assert await ids("") == ([f"m{number}" for number in range(20)], True)
    assert await ids("?after_id=m19&limit=100") == ([f"m{n}" for n in range(20, 45)], False)
    assert await ids("?before_id=m5&limit=2") == (["m3", "m4"], True)
    assert await ids("?before_id=m2&limit=2") == (["m0", "m1"], False)
    assert await ids("?after_id=m44") == ([], False)
    assert await ids("?after_id=none") == await ids("?before_id=none") == ([], False)
    for limit in ("0", "1001", "-1", "x", ""):
        client = await edge.get(f"/v1/models?limit={limit}", **ANTHROPIC).run()
        assert (client.status, client.json["type"]) == (400, "error")


async def test_anthropic_s_errors_are_anthropic_s() -> None:
    keys = {sha256("sk-web"): Caller("web", models=("gpt",))}
    server = Edge(replies(COMPLETION), Snapshot(callers=keys))
    client = await server.get("/v1/models/claude", **ANTHROPIC, x_api_key="sk-web").run()
    assert (client.status, client.json["error"]["type"]) == (404, "not_found_error")
    client = await server.get("/v1/models", **ANTHROPIC, x_api_key="sk-other").run()
    assert (client.status, client.json["error"]["type"]) == (401, "authentication_error")
    client = await server.get("/v1/models", x_api_key="sk-other").run()
    assert client.error["code"] == "invalid_api_key"
