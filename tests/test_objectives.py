"""What `mobius.slo` promises is counted request by request; the alerts name what is there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.allowance import Allowances
from proxy.errors import (
    AdminOnly,
    HeadersTooLarge,
    KeyRejected,
    MethodRefused,
    ModelUnknown,
    OriginRefused,
    ProxyError,
    RateLimited,
    Refused,
    UrlUnknown,
)
from proxy.metrics import Metrics
from proxy.objectives import CALLERS_OWN
from proxy.policy import Limits, MobiusPolicy, SloPolicy
from proxy.retry import Kind
from proxy.types import Call
from tests.fakes import (
    Bench,
    Fails,
    FakeClock,
    Passes,
    Script,
    answer,
    ask,
    delta,
    finish,
    limited,
    role,
    usage,
)

CONFIG = Path(__file__).resolve().parent.parent / "config"
OK = answer()
FIRST, AVAILABLE = "first_token", "availability"
YES, NO = (1.0, 0.0), (0.0, 1.0)
Counts = dict[str, tuple[float, float]]


def classes(base: type[ProxyError] = ProxyError) -> Iterator[type[ProxyError]]:
    yield base
    for each in base.__subclasses__():
        yield from classes(each)


def serve(bench: Bench, call: Call | None = None) -> None:
    with suppress(ProxyError):
        asyncio.run(bench.read(call) if call and call.stream else bench.serve(call))


def counts(bench: Bench, model: str = "m") -> Counts:
    """How many met each objective and how many did not, where there is any."""
    name = "mobius_slo_requests_total"
    found = {labels["objective"] for labels, _ in bench.samples(name) if labels["model"] == model}

    def of(objective: str, met: str) -> float:
        return bench.value(name, model=model, objective=objective, met=met)

    return {each: (of(each, "true"), of(each, "false")) for each in found}


@pytest.mark.parametrize(
    ("script", "stream", "expected"),
    [
        ([(Passes(2.0), OK)], False, {FIRST: YES, AVAILABLE: YES}),
        ([(Passes(3.0), OK)], False, {FIRST: YES, AVAILABLE: YES}),
        ([(Passes(3.5), OK)], False, {FIRST: NO, AVAILABLE: YES}),
        ([Kind.TRANSIENT, OK], False, {FIRST: YES, AVAILABLE: YES}),
        ([Kind.TRANSIENT] * 4, False, {AVAILABLE: NO}),
        ([limited(9.0)], False, {AVAILABLE: NO}),
        ([Fails(Kind.MISSING, 404)], False, {AVAILABLE: NO}),
        ([Fails(Kind.CALLER, 400, code="whatever the provider says")], False, {}),
        ([[role(), Passes(2.0), delta("t0"), Passes(60.0), finish(), usage()]], True,
         {FIRST: YES, AVAILABLE: YES}),
        ([[role(), Passes(4.0), delta("t0"), finish(), usage()]], True,
         {FIRST: NO, AVAILABLE: YES}),
        ([[delta("t0"), Kind.TRANSIENT]], True, {FIRST: YES, AVAILABLE: NO}),
        ([[role(), Kind.CREDENTIAL]], True, {AVAILABLE: NO}),
    ],
)  # fmt: skip
def test_what_became_of_a_request_is_met_or_missed_or_does_not_count(
    script: list[Script], stream: bool, expected: Counts
) -> None:
    bench = Bench({"a": script}, laps=4)
    serve(bench, ask(stream=stream))
    assert counts(bench) == expected


def test_the_first_miss_is_one_more_and_not_a_new_series() -> None:
    bench = Bench({"a": [OK]})
    serve(bench)
    found = {(x["objective"], x["met"]): n for x, n in bench.samples("mobius_slo_requests_total")}
    assert found == {
        (FIRST, "true"): 1,
        (FIRST, "false"): 0,
        (AVAILABLE, "true"): 1,
        (AVAILABLE, "false"): 0,
    }


def test_a_limit_of_the_callers_own_is_no_breach() -> None:
    bench = Bench({"a": [OK, OK]}, allowances=Allowances(models={"m": Limits(rpm=1)}))
    serve(bench)
    serve(bench)
    assert bench.value("mobius_request_seconds_count", outcome="rate_limit_exceeded") == 1
    assert counts(bench) == {FIRST: YES, AVAILABLE: YES}


def test_one_who_leaves_counts_for_what_was_seen_and_for_nothing_else() -> None:
    async def leave(bench: Bench, call: Call) -> None:
        reply = await bench.serve(call)
        reading = aiter(reply)  # type: ignore[arg-type]
        await anext(reading)
        await reply.aclose()  # type: ignore[union-attr]

    bench = Bench({"a": [[delta("t0"), delta("t1"), finish(), usage()]]})
    asyncio.run(leave(bench, ask(stream=True)))
    assert bench.value("mobius_request_seconds_count", outcome="ok") == 0
    assert counts(bench) == {FIRST: YES}


def test_a_model_that_the_file_does_not_have_is_no_series() -> None:
    bench = Bench({"a": [OK]})
    serve(bench, ask(model="invented"))
    assert bench.samples("mobius_slo_requests_total") == []


def test_what_is_promised_is_shown_and_an_edit_counts_from_then_on() -> None:
    bench = Bench({"a": [(Passes(2.0), OK)] * 2})
    serve(bench)
    assert bench.value("mobius_slo_first_token_seconds") == 3.0
    bench.metrics.promise(SloPolicy(first_token_s=1.0, first_token_share=0.9, availability=0.99))
    serve(bench)
    assert counts(bench) == {FIRST: (1.0, 1.0), AVAILABLE: (2.0, 0.0)}
    assert bench.value("mobius_slo_first_token_seconds") == 1.0
    assert bench.value("mobius_slo_first_token_share") == 0.9
    assert bench.value("mobius_slo_availability") == 0.99


def test_of_every_error_that_says_it_is_the_callers_it_is_known_whether_it_counts() -> None:
    said = {each for each in classes() if 400 <= each.status < 500}
    own = {each for each in classes() if issubclass(each, CALLERS_OWN)}
    assert own - said == {Refused}  # which has the status of its provider
    before = {
        *(AdminOnly, HeadersTooLarge, KeyRejected, MethodRefused, OriginRefused, UrlUnknown)
    }  # anybody knows which model is meant
    assert said - own - before == {ModelUnknown, RateLimited}  # by providers, where it counts


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((CONFIG / "alerts.yml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_the_alerts_name_series_that_are_there() -> None:
    numbers = Metrics(FakeClock()).numbers()
    there = {f"{each.name}_total" if each.kind == "counter" else each.name for each in numbers}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {name for rule in rules() for name in re.findall(r"mobius[_:][\w:]+", rule["expr"])}
    assert len(asked) > 8
    assert asked <= there | recorded
    used = {name for name in asked if ":" in name}
    assert used | {rule["record"] for rule in rules() if "alert" in rule and "record" in rule} == (
        recorded
    )


def test_each_window_is_measured_over_what_its_name_says() -> None:
    for rule in rules():
        name = rule.get("record", "")
        if "ratio_rate" in name:
            assert set(re.findall(r"\[(\w+)\]", rule["expr"])) == {name.rpartition("rate")[2]}
    objectives = {
        rule["labels"]["objective"] for rule in rules() if "budget" in str(rule.get("record"))
    }
    assert objectives == {FIRST, AVAILABLE}


def test_each_alert_has_a_long_and_a_short_window_at_one_rate() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    found = []
    for rule in alerts:
        factors = set(re.findall(r"\(([\d.]+) \*", rule["expr"]))
        found.append((factors, re.findall(r"ratio_rate(\w+)", rule["expr"])))
    assert found == [
        ({"14.4"}, ["1h", "5m"]),
        ({"6"}, ["6h", "30m"]),
        ({"3"}, ["1d", "2h"]),
        ({"1"}, ["3d", "6h"]),
    ]
    promised = MobiusPolicy().slo
    budgets = (1 - promised.availability, 1 - promised.first_token_share)
    assert all(14.4 * budget < 1 for budget in budgets)  # else the first of them never fires


def test_prometheus_is_given_the_alerts() -> None:
    prometheus = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
    assert prometheus["rule_files"] == ["alerts.yml"]
    mounts = yaml.safe_load((CONFIG / "compose.yaml").read_text())["services"]["prometheus"]
    assert "./alerts.yml:/etc/prometheus/alerts.yml:ro" in mounts["volumes"]
