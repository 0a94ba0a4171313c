"""Several processes on one page: nothing that counts is lost, and no sum goes down."""

from __future__ import annotations

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.metrics import GAUGES, Metrics
from proxy.numbers import GAUGE, FamilyOf, Numbers, as_json, from_json, lasting, together
from proxy.types import Surface, Tally
from tests.fakes import FakeClock
from tests.harness.metrics import Samples, parse, total


def gauge(name: str, value: float, **labels: str) -> Numbers:
    return (FamilyOf(name, GAUGE, "", {(name, tuple(labels.items())): value}),)


def value(numbers: Numbers) -> list[float]:
    return [number for family in numbers for number in family.samples.values()]


def served(*models: str, took_s: float = 0.2) -> Metrics:
    """The metrics of a process that has answered one request for each of these."""
    clock = FakeClock()
    metrics = Metrics(clock)
    for model in models:
        tally = Tally("r", Surface.CHAT, model, False, clock.now())
        with metrics.measure(tally):
            clock.pass_(took_s)
    return metrics


def page(numbers: Numbers) -> Samples:
    return parse(Metrics(FakeClock()).render(numbers).decode())


def test_the_page_of_one_process_is_the_one_it_would_show_itself() -> None:
    metrics = served("a", "b", "a")
    assert metrics.render(metrics.numbers()) == metrics.render()


def test_what_counts_up_is_added_for_each_series() -> None:
    one, other = served("a", "b", took_s=0.002), served("b", "c", took_s=0.2)
    samples = page(together([one.numbers(), other.numbers()], GAUGES))
    for model, count in {"a": 1, "b": 2, "c": 1}.items():
        assert total(samples, "mobius_request_seconds_count", model=model) == count
        assert total(samples, "mobius_request_seconds_bucket", model=model, le="+Inf") == count
    fast = total(samples, "mobius_request_seconds_bucket", model="b", le="0.0025")
    assert fast == 1
    assert total(samples, "mobius_request_seconds_sum", model="b") == pytest.approx(0.202)


def test_the_page_of_several_is_one_that_can_be_read() -> None:
    one, other = served("a"), served("b")
    text = one.render(together([one.numbers(), other.numbers()], GAUGES)).decode()
    families = [family.name for family in text_string_to_metric_families(text)]
    assert len(families) == len(set(families))
    bounds = [line for line in text.splitlines() if line.startswith("mobius_request_seconds_b")]
    assert len(bounds) == 2 * 23
    assert text.count("# TYPE mobius_request_seconds histogram") == 1


def test_a_counter_counts_since_the_first_of_them_began() -> None:
    def born(at: float) -> Numbers:
        return (FamilyOf("x", "counter", "", {("x_total", ()): 1.0, ("x_created", ()): at}),)

    (family,) = together([born(7.0), born(5.0)], {})
    assert family.samples == {("x_total", ()): 2.0, ("x_created", ()): 5.0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobius_in_flight_requests", 4),
        ("mobius_target_healthy", 1),
        ("mobius_config_generation", 1),
        ("mobius_quota_remaining", 1),
        ("mobius_provider_remaining", 1),
        ("mobius_provider_limit", 3),
        ("mobius_slo_first_token_seconds", 3),
        ("mobius_slo_first_token_share", 1),
        ("mobius_slo_availability", 1),
    ],
)
def test_each_gauge_is_taken_together_in_its_own_way(name: str, expected: float) -> None:
    assert value(together([gauge(name, 3), gauge(name, 1)], GAUGES)) == [expected]


def test_it_is_said_of_every_gauge_how() -> None:
    numbers = Metrics(FakeClock()).numbers()
    assert {family.name for family in numbers if family.kind == GAUGE} == set(GAUGES)


def test_a_gauge_that_one_of_them_does_not_have_is_the_others() -> None:
    found = together([gauge("g", 3, a="1"), gauge("g", 1, a="2")], {})
    assert value(found) == [3, 1]


def test_of_the_dead_only_what_counts_up_is_left() -> None:
    dead = served("a")
    dead.generation(7)
    kept = lasting(dead.numbers())
    assert {family.kind for family in kept} == {"counter", "histogram"}
    again = page(together([kept, served("a").numbers()], GAUGES))
    assert total(again, "mobius_request_seconds_count", model="a") == 2
    assert total(again, "mobius_config_generation") == 0


def test_nobody_has_no_numbers() -> None:
    assert together([], GAUGES) == ()


def test_what_one_process_tells_another_is_what_it_has() -> None:
    numbers = served("a", "b").numbers()
    assert from_json(orjson.loads(orjson.dumps(as_json(numbers)))) == numbers
