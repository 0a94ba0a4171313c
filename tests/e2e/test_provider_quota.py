"""What providers say is left of their limits, and the limits that the file sets for deployments.

The journals of the fakes are the judges: who was asked, and who was not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest

from tests.e2e.provider_configs import (
    ALONE,
    FIRST,
    HELLO,
    MASTER_KEY,
    OPENAI_FIRST,
    SAID,
    Lab,
    Place,
    Shape,
    Trial,
    lab,
    suspects,
    ways,
    within,
)
from tests.harness import Mobius, mobius_command, total
from tests.providers import Answer, Fails, FakeOpenAI, Gate

pytestmark = pytest.mark.e2e

TWO_A_MINUTE = Shape(("openai",), general=("backup",), every=(("rpm", 2),))
FEW_TOKENS = Shape(("openai",), general=("backup",), first=(("tpm", 1000),))
ONE_AT_ONCE = Shape(("openai",), general=("backup",), first=(("max_parallel_requests", 1),))


@pytest.fixture(scope="module")
def rings() -> Iterator[Lab]:
    shapes = dict.fromkeys(FIRST.values(), 12) | dict.fromkeys(ALONE.values(), 12)
    with lab(shapes | dict.fromkeys((TWO_A_MINUTE, FEW_TOKENS, ONE_AT_ONCE), 3)) as running:
        yield running


def left(
    suspect: str, remaining: int, *, reset_s: float, unit: str = "requests", limit: int = 60
) -> dict[str, str]:
    """What a provider says is left, spelt as it spells it."""
    if suspect == "openai":
        return {
            f"x-ratelimit-remaining-{unit}": str(remaining),
            f"x-ratelimit-limit-{unit}": str(limit),
            f"x-ratelimit-reset-{unit}": f"{reset_s:g}s",
        }
    moment = datetime.now(UTC) + timedelta(seconds=reset_s)
    return {
        f"anthropic-ratelimit-{unit}-remaining": str(remaining),
        f"anthropic-ratelimit-{unit}-limit": str(limit),
        f"anthropic-ratelimit-{unit}-reset": moment.isoformat().replace("+00:00", "Z"),
    }


def reason(rings: Lab, ring: Trial, place: Place) -> str:
    """Why a target stands where it does, as the gateway explains it."""
    headers = {"authorization": f"Bearer {MASTER_KEY}"}
    plan = rings.mobius.http.get(f"/admin/explain/{ring.name}", headers=headers).json()
    return str({step["target"]: step["reason"] for step in plan["asked"]}[place.label])


def gauges(rings: Lab, place: Place, name: str = "remaining") -> dict[str, float]:
    """What is told of a target, by unit."""
    scraped = rings.mobius.metrics()
    return {
        dict(labels)["unit"]: value
        for (known, labels), value in scraped.items()
        if known == f"mobius_provider_{name}" and ("target", place.label) in labels
    }


# What the provider says.


@ways
@suspects
def test_a_provider_with_nothing_left_is_passed_over_until_its_limit_is_back(
    rings: Lab, suspect: str, stream: bool
) -> None:
    ring = rings.take(FIRST[suspect])
    first = ring.places[0]
    first.script(Answer(headers=left(suspect, 0, reset_s=2.0)))
    assert ring.ask(stream=stream).trail == ["0:200"]
    assert "0 requests left at the provider" in reason(rings, ring, first)
    assert ring.ask(stream=stream).trail == ["1:200"]
    assert ring.asked == [0, 1]
    rings.mobius.wait_until(
        lambda: reason(rings, ring, first).startswith("healthy"), what="the limit back"
    )
    assert ring.ask(stream=stream).trail == ["0:200"]
    assert ring.asked == [0, 1, 0]


@suspects
def test_what_stands_beside_an_error_counts_as_well(rings: Lab, suspect: str) -> None:
    ring = rings.take(FIRST[suspect])
    # A 409 is tried again on the spot; the health of its target is as good as before.
    ring.places[0].always(Fails(409, headers=left(suspect, 0, reset_s=60.0)))
    assert ring.ask().trail == ["0:409", "0:409", "1:200"]
    assert ring.ask().trail == ["1:200"]
    assert ring.asked == [0, 0, 1, 1]


@suspects
def test_a_429_says_for_how_long_its_target_is_passed_over(rings: Lab, suspect: str) -> None:
    ring = rings.take(FIRST[suspect])
    headers = {"retry-after-ms": "20", **left(suspect, 0, reset_s=60.0)}
    ring.places[0].always(Fails(429, headers=headers))
    assert ring.ask().trail == ["0:429", "0:429", "1:200"]
    # Its Retry-After has passed by now, or passes soon; the other limit has not.
    rings.mobius.wait_until(
        lambda: "left at the provider" in reason(rings, ring, ring.places[0]), what="no cooldown"
    )
    assert ring.ask().trail == ["1:200"]
    assert ring.asked == [0, 0, 1, 1]


@suspects
def test_a_request_that_needs_more_tokens_than_are_left_goes_elsewhere(
    rings: Lab, suspect: str
) -> None:
    ring = rings.take(FIRST[suspect])
    headers = left(suspect, 1000, reset_s=60.0, unit="tokens", limit=2000)
    ring.places[0].always(Answer(headers=headers))
    assert ring.ask(max_tokens=10).trail == ["0:200"]
    assert ring.ask(max_tokens=1500).trail == ["1:200"]
    assert ring.ask(max_tokens=100).trail == ["0:200"]
    assert ring.asked == [0, 1, 0]


@suspects
def test_requests_that_come_together_share_what_is_left(rings: Lab, suspect: str) -> None:
    ring = rings.take(FIRST[suspect])
    first, second = ring.places
    silent = dict.fromkeys(left(suspect, 0, reset_s=0.0))
    gate = Gate()
    first.script(Answer(headers=left(suspect, 2, reset_s=60.0)))
    ring.ask()
    for place in (first, second):
        place.always(Answer(headers=silent, gate=gate))
    with ThreadPoolExecutor() as pool:
        together = [pool.submit(ring.ask) for _ in range(6)]
        try:
            rings.mobius.wait_until(lambda: len(ring.asked) == 7, what="all of them asked")
        finally:
            gate.open()
        assert [each.result().text for each in together] == [SAID] * 6
    assert (len(first.requests), len(second.requests)) == (1 + 2, 4)


@suspects
def test_a_provider_alone_is_asked_whatever_it_says(rings: Lab, suspect: str) -> None:
    ring = rings.take(ALONE[suspect])
    ring.places[0].always(Answer(headers=left(suspect, 0, reset_s=60.0)))
    for _ in range(3):
        assert ring.ask().text == SAID
    assert ring.asked == [0, 0, 0]


@pytest.mark.parametrize(
    "junk",
    [
        {"x-ratelimit-remaining-requests": "-1"},
        {"x-ratelimit-remaining-requests": "none"},
        {"x-ratelimit-remaining-requests": "9" * 300},
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "in a while"},
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9" * 300},
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-limit-requests": "0"},
    ],
    ids=str,
)
def test_junk_changes_nothing(rings: Lab, junk: Mapping[str, str]) -> None:
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].always(Answer(headers={"x-ratelimit-reset-requests": "60s", **junk}))
    for _ in range(2):
        assert ring.ask().trail == ["0:200"]


@suspects
def test_what_is_left_is_a_gauge_until_it_is_back(rings: Lab, suspect: str) -> None:
    ring = rings.take(ALONE[suspect])
    place = ring.places[0]
    ring.places[0].script(
        Answer(
            headers=left(suspect, 41, reset_s=60.0)
            | left(suspect, 700, reset_s=1.0, unit="tokens", limit=900)
        )
    )
    ring.ask()
    assert gauges(rings, place)["requests"] == 41
    assert gauges(rings, place, "limit")["requests"] == 60
    rings.mobius.wait_until(
        lambda: "tokens" not in gauges(rings, place), what="the limit of tokens back"
    )
    assert gauges(rings, place)["requests"] == 41


def test_anthropics_limits_of_input_and_output_are_gauges_too(rings: Lab) -> None:
    ring = rings.take(ALONE["anthropic"])
    units = {"requests": 1, "tokens": 2, "input-tokens": 3, "output-tokens": 4}
    headers: dict[str, str] = {}
    for unit, number in units.items():
        headers |= left("anthropic", number, reset_s=60.0, unit=unit)
    ring.places[0].script(Answer(headers=headers))
    ring.ask()
    assert gauges(rings, ring.places[0]) == {
        unit.replace("-", "_"): number for unit, number in units.items()
    }


@ways
@suspects
def test_a_caller_without_limits_is_told_the_providers(
    rings: Lab, suspect: str, stream: bool
) -> None:
    ring = rings.take(ALONE[suspect])
    told = left(suspect, 41, reset_s=60.0) | left(suspect, 7, reset_s=60.0, unit="tokens")
    ring.places[0].script(Answer(headers=told))
    headers = ring.ask(stream=stream).headers
    for unit, remaining in (("requests", "41"), ("tokens", "7")):
        assert headers[f"x-ratelimit-limit-{unit}"] == "60"
        assert headers[f"x-ratelimit-remaining-{unit}"] == remaining
        reset = headers[f"x-ratelimit-reset-{unit}"]
        assert reset == "1m0s" or 50.0 < float(reset.removesuffix("s")) <= 60.0


# What the file says.


def test_a_deployment_at_its_rpm_is_not_asked_and_the_next_is(rings: Lab) -> None:
    ring = rings.take(TWO_A_MINUTE)
    trails = [ring.ask().trail for _ in range(4)]
    assert trails == [["0:200"], ["0:200"], ["1:200"], ["1:200"]]
    refusal = ring.refused()
    assert (refusal.status, refusal.raised) == (429, openai.RateLimitError)
    assert refusal.code == "rate_limit_exceeded"
    assert refusal.trail == []
    # When the first of the first one's two requests leaves its minute.
    assert within(refusal.retry_after_s, 40.0, 60.0)
    assert ring.asked == [0, 0, 1, 1]


def test_a_deployment_that_is_full_is_not_taken_for_ill(rings: Lab) -> None:
    ring = rings.take(TWO_A_MINUTE)
    for _ in range(4):
        ring.ask()
    for _ in range(6):
        ring.refused()
    for place in ring.places:
        assert re.fullmatch(r"healthy, \d% of its limits left", reason(rings, ring, place))
        assert total(rings.mobius.metrics(), "mobius_target_healthy", target=place.label) == 1
    refused = {"scope": "target", "limit": "rpm"}
    assert total(rings.mobius.metrics(), "mobius_quota_refused_total", **refused) >= 12


def test_a_deployment_too_full_for_a_long_answer_still_gives_a_short_one(rings: Lab) -> None:
    ring = rings.take(FEW_TOKENS)
    assert ring.ask(max_tokens=600).trail == ["0:200"]
    assert ring.ask(max_tokens=990).trail == ["1:200"]
    assert ring.ask(max_tokens=100).trail == ["0:200"]
    assert ring.asked == [0, 1, 0]


def test_a_deployment_answers_only_so_many_at_once(rings: Lab) -> None:
    ring = rings.take(ONE_AT_ONCE)
    gate = Gate()
    ring.places[0].script(Answer(gate=gate, gate_after_tokens=1))
    body: Any = {"model": ring.name, "messages": HELLO, "stream": True}
    with ring.client.chat.completions.create(**body) as stream:
        next(iter(stream))
        assert ring.ask().trail == ["1:200"]
        gate.open()
        for _ in stream:
            pass
    assert ring.ask().trail == ["0:200"]
    assert ring.asked == [0, 1, 0]


# The whole of it: usage-based, an edit of the file, and the command.


def deployment(fake: FakeOpenAI, number: int, **params: Any) -> dict[str, Any]:
    place = {"model": f"openai/m{number}", "api_key": f"k{number}", "api_base": fake.base_url}
    return {"model_name": "m", "litellm_params": {**place, **params}}


def config(strategy: str, *deployments: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_list": list(deployments),
        "router_settings": {"routing_strategy": strategy},
        "general_settings": {"master_key": MASTER_KEY},
    }


def test_usage_based_fills_every_deployment_to_its_limit_and_none_beyond() -> None:
    with FakeOpenAI() as fake:
        few, many = deployment(fake, 0, rpm=3), deployment(fake, 1, rpm=9)
        with Mobius(config("usage-based-routing-v2", few, many)) as mobius:
            client = mobius.openai(api_key=MASTER_KEY)
            asked = []
            for _ in range(12):
                client.chat.completions.create(model="m", messages=HELLO)
                asked.append((len(fake.journal.requests("m0")), len(fake.journal.requests("m1"))))
            assert asked[-1] == (3, 9)
            assert asked[7] == (2, 6), "shared in proportion on the way as well"
            assert total(mobius.metrics(), "mobius_quota_refused_total") == 0
            with pytest.raises(openai.RateLimitError):
                client.chat.completions.create(model="m", messages=HELLO)
            assert len(fake.journal.requests()) == 12


def test_what_a_provider_said_survives_an_edit_and_the_command_explains_it() -> None:
    with FakeOpenAI() as fake:
        first, second = deployment(fake, 0), deployment(fake, 1)
        before = config("health-based", first, second)
        with Mobius(before) as mobius:
            client = mobius.openai(api_key=MASTER_KEY)
            fake.script(Answer(headers=left("openai", 0, reset_s=300.0)), model="m0")
            client.chat.completions.create(model="m", messages=HELLO)
            mobius.edit({**before, "mobius": {"num_retries": 2}})
            mobius.wait_until(
                lambda: total(mobius.metrics(), "mobius_config_generation") == 2, what="the edit"
            )
            client.chat.completions.create(model="m", messages=HELLO)
            assert len(fake.journal.requests("m0")) == 1
            told = mobius_command("explain", "m", "--url", mobius.url, "--key", MASTER_KEY)
            assert "1. m/openai/m1  healthy" in told.stdout
            assert "2. m/openai/m0  asked last for" in told.stdout
            assert "0 requests left at the provider" in told.stdout
            assert total(mobius.metrics(), "mobius_provider_limit", target="m/openai/m0") == 60
            mobius.edit(config("health-based", second))
            mobius.wait_until(
                lambda: total(mobius.metrics(), "mobius_config_generation") == 3, what="the edit"
            )
            assert total(mobius.metrics(), "mobius_provider_limit", target="m/openai/m0") == 0
