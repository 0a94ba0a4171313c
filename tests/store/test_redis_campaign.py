"""Four processes with 32 workers each on one real Redis; a judge reads afterwards what they got."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.harness import redis_server
from tests.harness.child import ROOT, clean_env
from tests.store.redis_child import PROCESSES
from tests.store.redis_judge import Judge, judged

pytestmark = pytest.mark.redis


def campaign(folder: Path, operations: int, how: str) -> tuple[Judge, Counter[str]]:
    """What the judge has found, and what the callers of the stores were told."""
    said: Counter[str] = Counter()
    with redis_server() as server:
        paths = [folder / f"{seed}.jsonl" for seed in range(PROCESSES)]
        children = []
        for seed, path in enumerate(paths):
            what = (server.url, str(seed), str(operations // PROCESSES), how, str(path))
            command = [sys.executable, "-m", "tests.store.redis_child", *what]
            children.append(
                subprocess.Popen(
                    command, env=clean_env(folder, {}), cwd=ROOT, stdout=subprocess.PIPE, text=True
                )
            )
        try:
            for child in children:
                out, _ = child.communicate(timeout=1000)
                assert child.returncode == 0
                said.update(json.loads(out))
        finally:
            for child in children:
                child.kill()
    return judged(paths), said


def check(judge: Judge, said: Counter[str], operations: int, how: str) -> None:
    found = judge.found
    print(  # noqa: T201  # the figures of the proof
        f"\n{found.steps} steps, {found.let_in} let in, {found.refused} refused; over-admission "
        f"{len(found.over)}, money over {len(found.money_over)}, refused in vain "
        f"{len(found.in_vain)}, for the leases' hundredth {found.for_leases}, most leased "
        f"{found.leases / 10_000:.2f} %; {dict(said)}"
    )
    assert found.over == []
    assert found.money_over == []
    assert found.in_vain == []
    assert how == "leased" or found.for_leases == 0
    assert found.leases <= 10_000
    assert judge.open_at_the_end() == 0
    assert said["let in"] + said["refused"] >= operations
    assert said["refused"] > operations / 50
    assert (found.let_in, found.refused) == (said["let in"], said["refused"])


@pytest.mark.parametrize(("how", "operations"), [("closed", 20_000), ("leased", 8_000)])
def test_nobody_is_let_in_too_many_nor_refused_in_vain(
    tmp_path: Path, how: str, operations: int
) -> None:
    check(*campaign(tmp_path, operations, how), operations, how)


@pytest.mark.proof
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("how", ["closed", "leased"])
def test_nobody_is_let_in_too_many_in_a_long_campaign(tmp_path: Path, how: str) -> None:
    check(*campaign(tmp_path, 200_000, how), 200_000, how)
