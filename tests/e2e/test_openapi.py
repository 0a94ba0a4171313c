"""Whatever fits `/openapi.json`, and whatever nearly fits it, is answered as it says.

The providers are healthy, so that nothing is ever theirs to answer for: no 5xx, no fault in the
log, no status and no body that is not described.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.harness import Mobius
from tests.providers import FakeAnthropic, FakeOpenAI

pytestmark = pytest.mark.e2e

MASTER = "sk-master-1234"
HEADERS = {"authorization": f"Bearer {MASTER}"}
MODELS = ("gpt", "claude", "nothing")
CASES = 1_000
PROOF_CASES = 50_000
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    schema: Any


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with (
        FakeOpenAI() as openai,
        FakeAnthropic() as anthropic,
        Mobius(_config(openai, anthropic)) as mobius,
    ):
        raw = mobius.http.get("/openapi.json", headers=HEADERS).json()
        yield Place(mobius, schemathesis.openapi.from_dict(_with_models(raw)))


def _config(openai: FakeOpenAI, anthropic: FakeAnthropic) -> dict[str, Any]:
    targets = (
        ("gpt", "openai/gpt-4o", openai.base_url),
        ("claude", "anthropic/claude-sonnet-4-5", anthropic.base_url),
    )
    return {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {"model": model, "api_base": base, "api_key": "sk-x-1234"},
            }
            for name, model, base in targets
        ],
        "general_settings": {"master_key": MASTER},
        "mobius": {"ai": {"model": "gpt"}},
    }


def _with_models(value: Any) -> Any:
    """The description, which names the models that there are: else all that is asked is a 404.

    Nor is a time given in which no provider could answer: a 504 would be right.
    """
    if isinstance(value, list):
        return [_with_models(each) for each in value]
    if not isinstance(value, dict):
        return value
    told = {name: _with_models(each) for name, each in value.items()}
    told.get("properties", {}).pop("timeout", None)
    model = told.get("properties", {}).get("model")
    if isinstance(model, dict) and "configured name" in model.get("description", ""):
        told["properties"]["model"] = {"enum": list(MODELS)}
    return told


def campaign(place: Place, cases: int) -> Counter[int]:
    """Every operation that takes anything is asked its share of so many cases, the others once.

    Half of a share fits the description, the other half does not. What comes back is how often
    each status was answered.
    """
    operations = [result.ok() for result in place.schema.get_all_operations()]
    share = -(-cases // (2 * sum(map(_takes_anything, operations))))
    statuses: Counter[int] = Counter()
    for operation in operations:
        modes = [GenerationMode.POSITIVE]
        modes += [GenerationMode.NEGATIVE] if _takes_anything(operation) else []
        for mode in modes:
            _ask(place, operation.as_strategy(generation_mode=mode), share, statuses)
    assert '"fault"' not in place.mobius.log
    assert "Traceback" not in place.mobius.log
    return statuses


def _takes_anything(operation: Any) -> bool:
    said = operation.definition.raw
    return bool(said.get("requestBody") or said.get("parameters"))


def _ask(place: Place, strategy: Any, cases: int, statuses: Counter[int]) -> None:
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def ask(case: Any) -> None:
        case.headers.update(HEADERS)
        response = case.call(base_url=place.mobius.url)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    ask()


def test_a_thousand_requests_are_answered_as_it_is_described(place: Place) -> None:
    statuses = campaign(place, CASES)
    assert statuses.total() >= CASES * 0.8
    assert statuses[200] > CASES * 0.1
    assert statuses[400] > CASES * 0.1


@pytest.mark.proof
@pytest.mark.timeout(7200)
def test_fifty_thousand_requests_are_answered_as_it_is_described(place: Place) -> None:
    assert campaign(place, PROOF_CASES).total() >= PROOF_CASES * 0.8
