from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from proxy.everyone import Alone, Reloaded, Silent, reloaded_by_all
from proxy.metrics import Metrics
from tests.fakes import FakeClock


@dataclass
class Files:
    generation: int = 3
    last_error: Exception | None = None
    result: str = "ok"

    async def reload(self) -> str:
        return self.result


def test_gauges_that_are_set_by_whoever_looks_are_set_before_they_are_told() -> None:
    metrics = Metrics(FakeClock())

    async def refresh() -> None:
        metrics.generation(7)

    alone = Alone(metrics, Files(), refresh)
    assert ("mobius_config_generation", ()) in alone.glance()[-1].samples
    assert 7.0 not in [value for family in alone.glance() for value in family.samples.values()]
    told = asyncio.run(alone.numbers())
    assert 7.0 in [value for family in told for value in family.samples.values()]


def test_a_process_tells_what_became_of_its_file() -> None:
    async def refresh() -> None: ...

    files = Files(result="error", last_error=ValueError("a.yaml:3: no"))
    alone = Alone(Metrics(FakeClock()), files, refresh)
    assert asyncio.run(alone.reload()) == Reloaded("error", "a.yaml:3: no", 3)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (("ok", "ok"), "ok"),
        (("unchanged", "ok"), "ok"),
        (("unchanged", "unchanged"), "unchanged"),
        (("ok", "error"), "error"),
    ],
)
def test_a_reload_of_all_came_to_the_worst_of_them(results: tuple[str, ...], expected: str) -> None:
    found = [
        Reloaded(result, "no" if result == "error" else None, 5 - number)
        for number, result in enumerate(results)
    ]
    answer = reloaded_by_all(found)
    assert (answer.result, answer.generation) == (expected, 4)
    assert answer.error == ("no" if expected == "error" else None)


def test_a_reload_of_nobody_is_none() -> None:
    with pytest.raises(Silent):
        reloaded_by_all([])
