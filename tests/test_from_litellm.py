"""What docs/from-litellm.md promises to people who come with a file, keys and dashboards."""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from proxy import metrics
from proxy.access import find_caller
from proxy.config import ConfigError, load_config
from proxy.config.names import known
from proxy.controls import check_controls
from proxy.errors import RequestInvalid
from proxy.spans import Family
from proxy.types import Strategy
from tests.config.loading import load_text, mock_model, names, ring, targets

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/from-litellm.md").read_text()
SPEC = find_spec("litellm")  # which is found without being imported
assert SPEC is not None
LITELLM = Path(SPEC.origin or "").parent
EXAMPLES = sorted((LITELLM / "proxy/example_config_yaml").glob("*.yaml"))
ENVIRON = {
    "OPENAI_API_KEY": "sk-1", "AZURE_API_BASE": "https://a.test", "AZURE_API_KEY": "k",
    "ANTHROPIC_API_KEY": "sk-2", "REDIS_PASSWORD": "p", "LITELLM_MASTER_KEY": "sk-master-1234",
}  # fmt: skip
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_file_of_the_page_works_as_it_is(tmp_path: Path) -> None:
    config = load_text(tmp_path, BLOCKS[0], ENVIRON)
    assert config.warnings == ()
    snapshot = config.snapshot
    assert names(snapshot, "gpt-4") == ["gpt-4o", "claude"], "an alias, and its fallbacks"
    assert names(snapshot, "bedrock/x")[1:] == ["claude"], "the default ones"
    first, second = targets(snapshot, "gpt-4o")
    assert (first.rpm, first.tpm, first.weight) == (600, 400_000, 2)
    assert (second.timeouts.answer_s, second.timeouts.first_token_s) == (60, 10)
    assert (second.max_parallel, second.facts.max_input_tokens) == (50, 128_000)
    assert second.facts.price is not None, "of its base_model"
    found = ring(snapshot, "gpt-4o")
    assert found.groups[0].strategy is Strategy.LATENCY_BASED
    assert (len(found.oversized), len(found.content)) == (1, 1)
    assert (snapshot.policy.num_retries, snapshot.policy.breaker.failures) == (2, 4)
    assert (snapshot.policy.cooldown_time, snapshot.caching.ttl_s) == (30, 600)
    assert config.redis is not None
    assert config.redis.host == "localhost"


def test_the_keys_of_the_page_are_keys_of_litellms(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"sk-1234").hexdigest()  # as `hash_token` of LiteLLM's proxy has it
    keys = re.sub(r"key_sha256: \w+", f"key_sha256: {digest}", BLOCKS[1])
    config = load_text(tmp_path, f"model_list:\n{mock_model('m')}{keys}")
    assert config.warnings == ()
    caller = find_caller(config.snapshot.callers, b"sk-1234", wall_s=0.0)
    assert (caller.name, caller.team, caller.models) == ("web", "product", ("gpt-4o", "claude-*"))
    source = (LITELLM / "proxy/_types.py").read_text()
    assert "hashlib.sha256(token.encode()).hexdigest()" in source


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_the_examples_of_litellm_can_be_used(example: Path) -> None:
    if example.stem == "langfuse_config":
        with pytest.raises(ConfigError, match="no litellm_params"):
            load_config(example, ENVIRON)
        return
    assert load_config(example, ENVIRON).snapshot.models()


def test_as_many_examples_come_with_litellm_as_the_page_says() -> None:
    assert f"Of the {len(EXAMPLES)} example files" in " ".join(PAGE.split())


def test_every_name_that_is_not_acted_on_is_one_of_litellms() -> None:
    table = PAGE.split("any other that Mobius does not act on is a warning:")[1].split("\n## ")[0]
    cells = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `")]
    sections = ("general_settings", "router_settings", "litellm_settings", "litellm_params")
    everything = frozenset().union(*(known(each) for each in (*sections, "sections")))
    named = {
        name.rpartition(".")[2] for cell in cells for name in re.findall(r"`([\w.]+)`", cell)
    } - {"tags", *sections}
    assert len(named) > 30
    assert named - everything == set()


def test_every_metric_of_the_page_is_there() -> None:
    ours = {each.name for each in vars(metrics).values() if isinstance(each, Family)}
    theirs = (LITELLM / "integrations/prometheus.py").read_text()
    for name in set(re.findall(r"`(mobius_\w+?)(?:_count)?(?:\{.*?\})?`", PAGE)):
        assert name in ours, name
    for name in set(re.findall(r"`(litellm_\w+)`", PAGE.split("## Metrics")[1])):
        assert f'"{name}"' in theirs, name


def test_every_header_of_the_page_is_there() -> None:
    ours = "".join(file.read_text() for file in (ROOT / "proxy/api").glob("*.py"))
    folders = (LITELLM / "proxy", LITELLM / "router_utils")
    files = [LITELLM / "constants.py", *(f for folder in folders for f in folder.glob("**/*.py"))]
    theirs = "".join(file.read_text() for file in files)
    for name in set(re.findall(r"`(x-mobius-[a-z-]+)", PAGE)):
        assert name in ours, name
    for name in set(re.findall(r"`(x-litellm-[a-z-]+)", PAGE)):
        assert name in theirs, name


def test_what_a_request_may_not_say_is_refused_by_name() -> None:
    row = next(
        row for row in PAGE.splitlines() if "a 400 that names the field" in row and "stream_" in row
    )
    named = re.findall(r"`(\w+)`", row.split(" | ")[0])
    assert len(named) > 5
    for name in named:
        with pytest.raises(RequestInvalid) as refused:
            check_controls({"model": "m", name: ["x"]})
        assert refused.value.param == name
