"""A request leaves nothing that only a garbage collector can find: its pauses are everybody's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.e2e.stream_checks import target
from tests.harness.config_file import ConfigFile
from tests.harness.garbage import LEAVES
from tests.providers import Answer, Fails, FakeOpenAI, Silent, Step

pytestmark = pytest.mark.e2e

# By kind of request, which is the name of a model: what its provider does.
STEPS: dict[str, Step] = {
    "whole": Answer(),
    "stream": Answer(),
    "hit": Answer(),
    "hit-stream": Answer(),
    "fails": Fails(400),
    "falls-back": Fails(503),
    LEAVES: Silent(),
}
SECONDS = 60


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """How many objects of which type were left, by kind of request."""
    folder = tmp_path_factory.mktemp("garbage")
    with FakeOpenAI() as fake:
        for kind, step in STEPS.items():
            fake.always(step, model=kind)
        config = {
            "model_list": [target(f"openai/{kind}", fake.base_url, name=kind) for kind in STEPS],
            "litellm_settings": {"cache": True, "cache_params": {"type": "local"}},
            "router_settings": {"num_retries": 0, "fallbacks": [{"falls-back": ["whole"]}]},
            "mobius": {"laps": 1, "breaker": {"failures": 10_000, "min_calls": 10_000}},
        }
        file = ConfigFile(folder, config)
        command = [sys.executable, "-m", "tests.harness.garbage", str(file.path), *STEPS]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode()
    left: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return left


@pytest.mark.parametrize("kind", STEPS)
def test_a_request_leaves_no_circle(found: dict[str, dict[str, int]], kind: str) -> None:
    assert found[kind] == {}
