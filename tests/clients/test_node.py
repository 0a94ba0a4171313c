"""The clients for Node: OpenAI's own, and Vercel's AI SDK."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.clients.place import CROWD, KEY, SPENT, Place
from tests.clients.words import CALLED, OSLO, TEXT, check_results, cut_off, fake_of
from tests.providers import Answer, Breaks, Fails, Gate, Usage

HERE = Path(__file__).with_name("node")
NODE = shutil.which("node")
pytestmark = [
    pytest.mark.skipif(NODE is None, reason="there is no Node here: no `node` on the PATH"),
    pytest.mark.skipif(
        NODE is not None and not (HERE / "node_modules").exists(),
        reason="Node's packages are not installed: remove .venv-clients and run make test-clients",
    ),
]
VERCEL = ("vercel-chat", "vercel-responses", "vercel-compatible")
clients = pytest.mark.parametrize("client", ["openai", *VERCEL])
vercel = pytest.mark.parametrize("client", VERCEL)
models = pytest.mark.parametrize("model", ["gpt", "claude"])


def ask(place: Place, client: str, deed: str, model: str, key: str = KEY) -> Any:
    """What one deed of one client came to; what it failed with, where it did."""
    done = subprocess.run(
        [str(NODE), "ask.mjs", client, deed, place.url, key, model],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@clients
@models
def test_a_whole_answer_and_a_stream(place: Place, client: str, model: str) -> None:
    fake_of(place, model).always(Answer(usage=Usage(30, 20)))
    assert ask(place, client, "whole", model) == {"text": TEXT, "usage": [30, 20]}
    assert set(ask(place, client, "stream", model).values()) == {TEXT}


@models
def test_responses(place: Place, model: str) -> None:
    told = ask(place, "openai", "responses", model)
    ends = ["response.created", "response.completed"]
    assert told == {"text": TEXT, "again": TEXT, "ends": ends}
    fake_of(place, model).always(Answer(text=OSLO))
    assert ask(place, "openai", "respondedStructure", model) == json.loads(OSLO)


@clients
@models
def test_tools_are_called_and_their_results_are_told(place: Place, client: str, model: str) -> None:
    fake_of(place, model).script(CALLED, Answer(text="grey"))
    assert ask(place, client, "tools", model)["text"] == "grey"
    check_results(place, model)


@vercel
@models
def test_tools_are_called_in_a_stream_too(place: Place, client: str, model: str) -> None:
    fake_of(place, model).script(CALLED, Answer(text="grey"))
    assert ask(place, client, "streamedTools", model)["text"] == "grey"
    check_results(place, model)


@clients
@models
def test_an_answer_has_the_structure_that_was_asked_for(
    place: Place, client: str, model: str
) -> None:
    fake_of(place, model).always(Answer(text=OSLO))
    assert ask(place, client, "structure", model) == json.loads(OSLO)


@clients
def test_vectors(place: Place, client: str) -> None:
    assert ask(place, client, "vectors", "vectors") == [0.5, 1.5]


CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    429: "RateLimitError",
    503: "InternalServerError",
}


@clients
def test_failures_have_their_class_and_status(place: Place, client: str) -> None:
    def expect(status: int, *asked: str) -> Any:
        told = ask(place, client, "whole", *asked)
        named = CLASSES[status] if client == "openai" else "APICallError"
        assert (told["failed"].lstrip("_"), told["status"]) == (named, status), told
        return told

    for status, told in ((400, 400), (404, 404), (429, 429), (500, 503)):
        model = place.odd(status, Fails(status, headers={"retry-after": "7"}))
        failure = expect(told, model)
        assert status < 500 or "no target" in failure["message"]
    expect(401, "gpt", "sk-nobody")
    expect(404, "nothing")
    assert int(expect(429, "gpt", SPENT)["retryAfter"]) > 0


@clients
def test_a_stream_that_breaks_fails(place: Place, client: str) -> None:
    place.openai.script(Breaks(2, how="ends"))
    assert "finish reason" in ask(place, client, "broken", "gpt")["message"]


@clients
def test_raw_headers(place: Place, client: str) -> None:
    told = ask(place, client, "headers", "gpt")
    assert told["target"] == "gpt/openai/gpt-4o"
    assert told["id"]


@clients
@models
def test_fifty_streams_at_once(place: Place, client: str, model: str) -> None:
    gate, fake = Gate(), fake_of(place, model)
    fake.always(Answer(gate=gate, gate_after_tokens=2))
    opener = threading.Thread(target=place.crowded, args=(fake, gate))
    opener.start()
    try:
        assert ask(place, client, "crowd", model) == [TEXT] * CROWD
    finally:
        opener.join()


@clients
@models
def test_leaving_ends_the_providers_work(place: Place, client: str, model: str) -> None:
    fake = fake_of(place, model)
    fake.script(Answer(gate=Gate(), gate_after_tokens=2))
    assert ask(place, client, "leave", model) == {"left": True}
    cut_off(fake)
