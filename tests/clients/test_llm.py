"""Simon Willison's `llm`, as it is typed, with its file of extra models."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clients.place import CROWD, KEY, SPENT, Place
from tests.clients.words import CALLED, OSLO, SAID, TEXT, check_results, cut_off, fake_of
from tests.harness.child import Child, clean_env
from tests.providers import Answer, Breaks, Fails, Gate, Usage

LLM = (str(Path(sys.executable).with_name("llm")),)
FUNCTIONS = """
def weather(city: str) -> str:
    "Of a city"
    return f"grey in {city}"
"""
SCHEMA = "city, sky"
models = pytest.mark.parametrize("model", ["gpt", "claude"])
ways = pytest.mark.parametrize("way", ["chat", "responses"])


class Shell:
    """A home with the file that says where the models are, and the command."""

    def __init__(self, place: Place, home: Path) -> None:
        self.home = home
        url = {"OPENAI_BASE_URL": place.url, "OPENAI_API_KEY": KEY}
        self.env = clean_env(home, {"LLM_USER_PATH": str(home), **url})
        self.models: list[dict[str, Any]] = []
        for name in ("gpt", "claude", "nothing"):
            for way in ("chat", "responses", "completion"):
                self.add(f"{way}-{name}", name, way)

    def add(self, model_id: str, name: str, way: str = "chat") -> None:
        """The model can be asked by this id."""
        where = {"model_id": model_id, "model_name": name, "api_key_name": "openai"}
        knows = {"supports_schema": True, "supports_tools": True, way: True}
        self.models.append({**where, "api_base": self.env["OPENAI_BASE_URL"], **knows})
        (self.home / "extra-openai-models.yaml").write_text(yaml.safe_dump(self.models))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command, run to its end."""
        return subprocess.run(
            [*LLM, *words],
            env=self.env,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def says(self, *words: str) -> str:
        """What it prints, once it has ended well."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.removesuffix("\n")


@pytest.fixture
def shell(place: Place, tmp_path: Path) -> Shell:
    return Shell(place, tmp_path)


@ways
@models
def test_an_answer_whole_and_streamed(place: Place, shell: Shell, model: str, way: str) -> None:
    fake_of(place, model).always(Answer(usage=Usage(30, 20)))
    asked = ("-m", f"{way}-{model}", "-s", "be brief", SAID)
    assert shell.says("--no-stream", *asked) == TEXT
    assert shell.says(*asked) == TEXT
    (logged, _) = json.loads(shell.says("logs", "--json"))
    assert (logged["input_tokens"], logged["output_tokens"]) == (30, 20)
    assert [entry.streams for entry in fake_of(place, model).journal.requests()] == [False, True]


def test_text_that_goes_on(place: Place, shell: Shell) -> None:
    assert shell.says("-m", "completion-gpt", "once") == TEXT


@ways
@models
def test_tools_are_called_and_their_results_are_told(
    place: Place, shell: Shell, model: str, way: str
) -> None:
    for whole in ((), ("--no-stream",)):
        fake_of(place, model).journal.clear()
        place.tap.clear()
        fake_of(place, model).script(CALLED, Answer(text="grey"))
        asked = ("-m", f"{way}-{model}", "--functions", FUNCTIONS, *whole, SAID)
        assert shell.says(*asked).endswith("grey")
        check_results(place, model)


@ways
@models
def test_an_answer_has_the_structure_that_was_asked_for(
    place: Place, shell: Shell, model: str, way: str
) -> None:
    fake_of(place, model).always(Answer(text=OSLO))
    found = shell.says("-m", f"{way}-{model}", "--schema", SCHEMA, SAID)
    assert json.loads(found) == json.loads(OSLO)


@models
def test_a_conversation_goes_on(place: Place, shell: Shell, model: str) -> None:
    shell.says("-m", f"chat-{model}", SAID)
    shell.says("-c", "and then?")
    sent = fake_of(place, model).journal.last.json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert TEXT.strip() in str(sent[1]["content"])


def test_vectors(place: Place, shell: Shell) -> None:
    assert json.loads(shell.says("embed", "-m", "3-small", "-c", "a"))[0] == 0.5


def test_models_are_listed(place: Place, shell: Shell) -> None:
    found = shell.says("openai", "endpoint", place.url, "--models", "--key", KEY)
    assert {"gpt", "claude"} <= set(found.split())


def test_failures_are_told_in_the_providers_words(place: Place, shell: Shell) -> None:
    for status, words in ((400, "could not parse"), (404, "does not know the model"), (500, "503")):
        name = f"odd-{status}"
        shell.add(name, place.odd(status, Fails(status)))
        done = shell.run("-m", name, SAID)
        assert done.returncode == 1
        assert words in done.stderr, done.stderr
    for key, model, words in (
        ("sk-nobody", "gpt", "API key"),
        (SPENT, "gpt", "limit of key `spent` is reached"),
        (KEY, "nothing", "nothing"),
    ):
        done = shell.run("-m", f"chat-{model}", "--key", key, SAID)
        assert done.returncode == 1
        assert words in done.stderr, done.stderr


def test_a_stream_that_breaks_is_an_error(place: Place, shell: Shell) -> None:
    place.openai.script(Breaks(2, how="ends"))
    done = shell.run("-m", "chat-gpt", SAID)
    assert done.returncode == 1
    assert done.stdout.startswith("t0 t1 ")
    assert "Error" in done.stderr


def test_many_streams_at_once(place: Place, shell: Shell) -> None:
    """Each is a process that takes seconds of a processor: a tenth of the crowd."""
    count = CROWD // 10
    shell.says("-m", "chat-gpt", SAID)  # which makes its log: several at once could not
    with ThreadPoolExecutor(count) as pool:
        asked = [pool.submit(shell.says, "-n", "-m", "chat-gpt", str(n)) for n in range(count)]
        assert [each.result() for each in asked] == [TEXT] * count


@ways
@models
def test_leaving_ends_the_providers_work(place: Place, shell: Shell, model: str, way: str) -> None:
    fake = fake_of(place, model)
    fake.script(Answer(gate=Gate(), gate_after_tokens=2))
    child = Child([*LLM, "-m", f"{way}-{model}", SAID], env=shell.env, folder=shell.home)
    try:
        place.mobius.wait_until(lambda: "t1" in child.log, 60, "the second word")
        child.signal(signal.SIGTERM)  # an interrupt is ignored by what runs in the background
        cut_off(fake)
    finally:
        child.end(10)
