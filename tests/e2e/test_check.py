"""`mobius check` says what a person needs to know about a file, and never a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from tests.harness import mobius_command
from tests.harness.child import MOBIUS, ROOT
from tests.providers import (
    Answer,
    Fails,
    FakeAnthropic,
    FakeOpenAI,
    Silent,
    closed_port,
    openai_errors,
)

pytestmark = pytest.mark.e2e

KEYS = {name: f"sk-{name}-0123456789abcdef" for name in ("openai", "anthropic", "wrong", "literal")}
GOOD = """
model_list:
  - model_name: chat
    litellm_params: {model: openai/gpt-4o, api_key: os.environ/FIRST_KEY}
  - model_name: chat
    litellm_params: {model: openai/gpt-4o-mini, api_key: os.environ/FIRST_KEY}
  - model_name: claude
    litellm_params: {model: anthropic/claude-sonnet-4-5, api_key: os.environ/SECOND_KEY}
  - model_name: "any/*"
    litellm_params: {model: "openai/*", api_key: os.environ/FIRST_KEY}
router_settings:
  routing_strategy: health-based
  fallbacks: [{chat: [claude]}]
"""


def said(done: CompletedProcess[str]) -> str:
    """All that was printed; no key is in it."""
    text = done.stdout + done.stderr
    assert not [name for name, key in KEYS.items() if key in text]
    assert "Traceback" not in text
    return text


def test_a_good_file_is_shown_ring_by_ring() -> None:
    done = mobius_command("check", config=GOOD, env={"FIRST_KEY": KEYS["openai"]})
    assert done.returncode == 0, said(done)
    assert done.stderr == ""
    assert said(done).splitlines() == [
        "chat",
        "  chat/openai/gpt-4o  direct [health-based]",
        "  chat/openai/gpt-4o-mini  direct [health-based]",
        "    then claude/anthropic/claude-sonnet-4-5  translated, messages direct"
        "  unconfigured: SECOND_KEY is not set",
        "claude",
        "  claude/anthropic/claude-sonnet-4-5  translated, messages direct"
        "  unconfigured: SECOND_KEY is not set",
        "any/*",
        "  any/*/openai/*  direct",
    ]


def test_the_lane_of_responses_is_shown_where_it_is_another_than_that_of_chats() -> None:
    config = """
model_list:
  - model_name: local
    litellm_params: {model: openai/llama, api_base: "http://x/v1", api_key: os.environ/FIRST_KEY}
    model_info: {supported_endpoints: [/v1/chat/completions]}
  - model_name: azure
    litellm_params: {model: azure/g, api_base: "https://x", api_key: os.environ/FIRST_KEY}
"""
    done = mobius_command("check", config=config, env={"FIRST_KEY": KEYS["openai"]})
    assert said(done).splitlines() == [
        "local",
        "  local/openai/llama  direct, responses as chats",
        "azure",
        "  azure/azure/g  unified, responses direct",
    ]


def test_the_file_that_comes_with_the_service_is_good() -> None:
    done = mobius_command("check", config=(ROOT / "litellm_config.yaml").read_text())
    assert done.returncode == 0, said(done)
    assert "unconfigured: OPENAI_API_KEY is not set" in said(done)


@pytest.mark.parametrize(
    ("change", "line", "word"),
    [
        (("fallbacks: [{chat: [claude]}]", "fallbacks: [{chat: [clod]}]"), 12, "clod"),
        (("routing_strategy", "routing_stratgy"), 11, "routing_strategy"),
        (("model_list:", "model_list: ["), None, "litellm_config.yaml:"),
        (("{model: openai/gpt-4o, ", "{modle: openai/gpt-4o, "), 3, "modle"),
    ],
    ids=["fallback", "setting", "syntax", "parameter"],
)
def test_a_mistake_is_told_with_its_line(
    change: tuple[str, str], line: int | None, word: str
) -> None:
    done = mobius_command(
        "check", config=GOOD.replace(*change).lstrip("\n"), env={"FIRST_KEY": "x"}
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert word in said(done)
    assert f"litellm_config.yaml:{line or ''}" in said(done)


def test_a_file_that_is_not_there_is_a_mistake_too() -> None:
    done = mobius_command("check", "--config", "nowhere.yaml")
    assert done.returncode == 1
    assert "nowhere.yaml" in said(done)


def test_a_key_in_the_file_is_warned_of_and_not_shown() -> None:
    config = GOOD.replace("os.environ/FIRST_KEY", KEYS["literal"])
    done = mobius_command("check", config=config, env={"SECOND_KEY": KEYS["anthropic"]})
    assert done.returncode == 0
    assert "warning:" in said(done)
    assert "litellm_config.yaml:" in done.stderr


Live = dict[str, str]


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[CompletedProcess[str], Live, FakeOpenAI]]:
    """One run against a provider in every state there is, and its lines by target."""
    with FakeOpenAI() as openai, FakeAnthropic() as anthropic, closed_port() as port:
        openai.script(openai_errors.invalid_api_key(), model="wrong-key")
        openai.script(Fails(404), model="unknown")
        openai.script(Fails(429), model="busy")
        openai.script(Fails(500), model="down")
        openai.script(*[Fails(400)] * 3, model="picky")
        openai.script(Silent(), model="silent")
        refused = f"no such key: {KEYS['wrong']} at https://x.test/?key=1"
        openai.script(Fails(401, {"error": {"message": refused}}), model="talkative")
        openai.script(Answer(tokens=5000, gap_s=0.02), model="long")
        openai.script(openai_errors.unsupported_parameter(), model="reasoning")
        too_small = [openai_errors.unsupported_parameter(), Fails(400)]
        openai.script(*too_small, Answer(tokens=5000, gap_s=0.02), model="wordy")
        config = live_config(openai.base_url, anthropic.base_url, f"http://127.0.0.1:{port}/v1")
        env = {"OPENAI": KEYS["openai"], "ANTHROPIC": KEYS["anthropic"], "WRONG": KEYS["wrong"]}
        done = mobius_command("check", "--live", config=config, env=env)
        text = said(done).partition("\nlive:\n")[2]
        lines = {line.split()[1].split("/")[0]: line for line in text.splitlines()}
        yield done, lines, openai


def live_config(openai: str, anthropic: str, nowhere: str) -> dict[str, Any]:
    def entry(name: str, model: str, base: str | None, **more: Any) -> dict[str, Any]:
        place = {} if base is None else {"api_base": base}
        params = {"model": model, "api_key": "os.environ/OPENAI", **place, **more}
        return {"model_name": name, "litellm_params": params}

    return {
        "model_list": [
            entry("well", "openai/gpt-4o", openai),
            entry("long", "openai/long", openai),
            entry("reasoning", "openai/reasoning", openai),
            entry("wordy", "openai/wordy", openai),
            entry("claude", "anthropic/claude", anthropic, api_key="os.environ/ANTHROPIC"),
            entry("mocked", "openai/demo", None, mock_response="Hello"),
            entry("wrong-key", "openai/wrong-key", openai, api_key="os.environ/WRONG"),
            entry("talkative", "openai/talkative", openai, api_key="os.environ/WRONG"),
            entry("unknown", "openai/unknown", openai),
            entry("busy", "openai/busy", openai),
            entry("down", "openai/down", openai),
            entry("picky", "openai/picky", openai),
            entry("silent", "openai/silent", openai, stream_timeout=0.5),
            entry("closed", "openai/closed", nowhere),
            entry("unset", "openai/unset", openai, api_key="os.environ/NOT_SET_ANYWHERE"),
            entry("any/*", "openai/*", openai),
        ]
    }


Run = tuple[CompletedProcess[str], Live, FakeOpenAI]


def test_every_target_is_asked_and_what_is_wrong_with_it_is_said(live: Run) -> None:
    done, lines, _ = live
    assert done.returncode == 1
    for name in ("well", "long", "reasoning", "wordy", "claude", "mocked"):
        assert lines[name].startswith("  ok "), lines[name]
        assert "first token after" in lines[name]
    wrong = {
        "wrong-key": "the key was refused (401)",
        "talkative": "the key was refused (401): no such key: [redacted] at [redacted]",
        "unknown": "the provider does not know this model or address (404)",
        "busy": "rate limited now; the key works (429)",
        "down": "failed (500)",
        "picky": "the provider refused the request (400)",
        "silent": "no first token in time (silent)",
        "closed": "no connection; check api_base, DNS and TLS (unreachable)",
    }
    for name, words in wrong.items():
        assert lines[name].startswith("  fail "), lines[name]
        assert words in lines[name]


def test_an_unset_variable_is_told_and_is_not_a_fault(live: Run) -> None:
    _, lines, openai = live
    assert lines["unset"].startswith("  - ")
    assert "unconfigured: NOT_SET_ANYWHERE is not set" in lines["unset"]
    assert openai.journal.requests("unset") == []
    assert lines["any"].startswith("  - ")
    assert "a wildcard" in lines["any"]


def asked(model: str, run: Run) -> list[tuple[object, object]]:
    """What each call to the model limited its answer to: `max_tokens`, `max_completion_tokens`."""
    bodies = [entry.json for entry in run[2].journal.requests(model)]
    assert all(body["stream"] for body in bodies)
    return [(body.get("max_tokens"), body.get("max_completion_tokens")) for body in bodies]


def test_a_target_is_asked_once_for_one_token(live: Run) -> None:
    done, _, openai = live
    for model in {entry.model for entry in openai.journal.requests()}:
        if model not in ("reasoning", "wordy", "picky"):
            assert asked(str(model), live) == [(1, None)], model
    assert done.stderr == ""


def test_a_model_that_refuses_the_limit_is_asked_in_other_words(live: Run) -> None:
    assert asked("reasoning", live) == [(1, None), (None, 1)]
    assert asked("wordy", live) == asked("picky", live) == [(1, None), (None, 1), (None, None)]


@pytest.mark.parametrize("model", ["long", "wordy"])
def test_nobody_reads_on_after_the_first_token(live: Run, model: str) -> None:
    entry = live[2].journal.requests(model)[-1]
    assert entry.closed_by == "client"
    assert len(entry.tokens_sent) < 5000


def test_when_every_target_answers_the_command_is_content() -> None:
    with FakeOpenAI() as openai:
        config = yaml.safe_dump(
            {
                "model_list": [
                    {
                        "model_name": "chat",
                        "litellm_params": {
                            "model": "openai/gpt-4o",
                            "api_base": openai.base_url,
                            "api_key": "os.environ/OPENAI",
                        },
                    }
                ]
            }
        )
        done = mobius_command("check", "--live", config=config, env={"OPENAI": KEYS["openai"]})
    assert done.returncode == 0, said(done)
    assert "ok    chat/openai/gpt-4o  first token after" in said(done)


def test_without_litellm_the_command_says_so(tmp_path: Path) -> None:
    (tmp_path / "litellm").mkdir()
    (tmp_path / "litellm" / "__init__.py").write_text("raise ImportError('half installed')\n")
    done = mobius_command(
        "check",
        "--live",
        config=GOOD,
        env={"FIRST_KEY": KEYS["openai"], "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        command=MOBIUS,
    )
    assert done.returncode == 1
    assert "LiteLLM cannot be imported" in said(done)
