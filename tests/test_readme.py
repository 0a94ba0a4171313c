"""What the README promises: its examples work as they stand, its defaults are the real ones."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.policy import MobiusPolicy
from tests.harness import Mobius, mobius_command

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
ADDRESS = "http://127.0.0.1:4000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def mobius() -> Iterator[Mobius]:
    with Mobius((ROOT / "litellm_config.yaml").read_text()) as running:
        yield running


@pytest.mark.e2e
def test_the_python_example_answers_without_any_key(mobius: Mobius) -> None:
    (example,) = blocks("python")
    assert ADDRESS in example
    done = subprocess.run(
        [sys.executable, "-c", example.replace(ADDRESS, mobius.url)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Hello from Mobius")


@pytest.mark.e2e
def test_the_curl_example_streams(mobius: Mobius) -> None:
    (example,) = (block for block in blocks("bash") if block.startswith("curl "))
    done = subprocess.run(
        ["bash", "-c", example.replace(ADDRESS, mobius.url)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("data: {")
    assert done.stdout.endswith("data: [DONE]\n\n")


def test_the_commands_that_it_names_exist() -> None:
    for words in re.findall(r"\.venv/bin/mobius ([a-z]+(?: [a-z]+)?)", README):
        command = words.split()[0]
        assert mobius_command(command, "--help").returncode == 0, command
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)`?", README)) <= targets


@pytest.mark.e2e
def test_the_metrics_that_it_names_are_in_the_first_scrape(mobius: Mobius) -> None:
    scrape = mobius.http.get("/metrics").text
    named = set(re.findall(r"`(mobius_\w+)`", README))
    assert len(named) > 10
    assert [
        name for name in sorted(named) if f"# TYPE {name.removesuffix('_total')}" not in scrape
    ] == []
    assert 'mobius_target_healthy{target="demo/openai/demo"} 1.0' in scrape


def test_the_defaults_that_it_shows_are_the_real_ones() -> None:
    shown = [yaml.safe_load(block) for block in blocks("yaml")]
    (section,) = (each["mobius"] for each in shown if "deadline" in each.get("mobius", {}))
    assert matches(section, MobiusPolicy().model_dump())


def matches(shown: Any, real: Any) -> bool:
    if isinstance(shown, dict):
        return all(matches(value, real[name]) for name, value in shown.items())
    return bool(shown == real) or (shown is False and real is None)


def test_the_shipped_file_is_checked_without_a_warning() -> None:
    done = mobius_command("check", config=(ROOT / "litellm_config.yaml").read_text())
    assert done.returncode == 0
    assert done.stderr == ""
    assert "gpt-4o/openai/gpt-4o" in done.stdout
    assert "then claude-sonnet/anthropic/claude-sonnet-4-5" in done.stdout


def test_it_stays_short() -> None:
    assert len(README.splitlines()) <= 150
