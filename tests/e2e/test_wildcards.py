"""Under a wildcard a stranger writes a part of a model's name, and some providers have it in a URL.

Judged by the providers: whatever the name is, our key goes to no other path than that of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from tests.e2e.stream_checks import target
from tests.harness import Mobius
from tests.providers import Entry, FakeAnthropic, FakeGemini, FakeOpenAI, FakeProvider

pytestmark = pytest.mark.e2e

HELLO = [{"role": "user", "content": "hello"}]
# By the pattern: what stands before the stranger's part of a name, the path that it leads to, and
# the model of the file.
PLACES = {
    "gemini/*": ("gemini/", "/v1beta/models/{}:generateContent", "gemini/*"),
    "models/*": ("models/", "/v1beta/models/models/{}:generateContent", "gemini/models/*"),
    "azure/*": ("azure/", "/openai/deployments/{}/chat/completions", "azure/*"),
    "openai/*": ("openai/", "/v1/chat/completions", "openai/*"),
    "groq/*": ("groq/", "/v1/chat/completions", "groq/*"),
    "anthropic/*": ("anthropic/", "/v1/messages", "anthropic/*"),
    "team/*/*": ("team/a/", "/v1beta/models/team/a/{}:generateContent", "gemini/*"),
    "*": ("", "/v1beta/models/{}:generateContent", "gemini/*"),  # what no other has matched
}
each_pattern = pytest.mark.parametrize("pattern", PLACES)
STEERING = (
    "../../evil", "..", "x/../../evil", "x/..", "../x", "./x", "x/./y", "x/.", "....//x", "/evil",
    "//evil.test/x", "x//y", "x/", "http://evil.test/x",
    "..%2fevil", "%2e%2e/evil", "%2e%2e%2fevil", "..%252fevil", "x%00", "x%0d%0ahost: evil",
    "?x=", "x?key=evil", "x?", "?", "x#", "#/../evil", "x:generateContent?alt=sse#",
    "..\\evil", "x\\..\\..\\evil", "\\\\evil.test\\x",
    "x y", "x\ty", "x\r\nhost: evil", "x\ny", "x\x00", "x\x7f", "x\u00a0y", "x\u2028y", "x\u202ey",
)  # fmt: skip
HARMLESS = (
    "model-2.5-pro", "org-model:free", "model@001", "@evil.test", "evil.test:80", "x&key=evil",
    "x;y=1", "x=1", "é", "\uff0e\uff0e\uff0fevil", "x+y", "${x}", "[x]", '"x"', "<x>", "*", "x|y",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A Mobius with one wildcard per provider, and who must not notice what a stranger tries."""

    mobius: Mobius
    fakes: Sequence[FakeProvider]

    def post(self, model: str, **more: Any) -> httpx.Response:
        body = {"model": model, "messages": HELLO, **more}
        return self.mobius.http.post("/v1/chat/completions", json=body)

    def heard(self) -> list[Entry]:
        """What has arrived anywhere since this was last asked."""
        entries = [entry for fake in self.fakes for entry in fake.journal.requests()]
        for fake in self.fakes:
            fake.journal.clear()
        return entries


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with FakeOpenAI() as openai, FakeGemini() as gemini, FakeAnthropic() as anthropic:
        azure = f"http://127.0.0.1:{openai.port}"
        bases = {
            "gemini/*": gemini.base_url, "gemini/models/*": gemini.base_url, "azure/*": azure,
            "openai/*": openai.base_url, "groq/*": openai.base_url,
            "anthropic/*": anthropic.base_url,
        }  # fmt: skip
        config = {
            # Keys of their own: a name that a provider does not know rests with its key.
            "model_list": [
                target(model, bases[model], name=name, api_key=f"sk-{at}", api_version="2024-10-21")
                for at, (name, (_, _, model)) in enumerate(PLACES.items())
            ],
            "mobius": {"laps": 1, "num_retries": 0},
        }
        with Mobius(config) as mobius:
            yield Place(mobius, (openai, gemini, anthropic))


@each_pattern
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_a_name_that_would_change_the_path_is_not_found_and_nobody_is_asked(
    place: Place, pattern: str, stream: bool
) -> None:
    before, _, _ = PLACES[pattern]
    for part in STEERING:
        answer = place.post(before + part, stream=stream)
        assert answer.status_code == 404, (part, answer.text)
        assert answer.json()["error"]["code"] == "model_not_found"
        assert [entry.path for entry in place.heard()] == [], part


@pytest.mark.parametrize(
    "pattern", ["gemini/*", "groq/*", "openai/*", "azure/*", "anthropic/*", "*"]
)
@pytest.mark.parametrize("turn", ["responses", "o_series", "gpt5_series"])
def test_a_name_that_would_turn_to_another_endpoint_is_not_found(
    place: Place, pattern: str, turn: str
) -> None:
    before, _, _ = PLACES[pattern]
    assert place.post(f"{before}{turn}/x").status_code == 404
    assert place.heard() == []


@each_pattern
def test_a_name_that_is_asked_for_is_one_part_of_the_path_and_no_more(
    place: Place, pattern: str
) -> None:
    before, path, _ = PLACES[pattern]
    for part in HARMLESS:
        place.post(before + part)
        (entry,) = place.heard()
        assert unquote(entry.path) == path.format(part)
        assert dict(entry.query) == ({"api-version": "2024-10-21"} if "azure" in pattern else {})


def test_a_fallback_that_a_caller_names_is_held_to_the_same(place: Place) -> None:
    for part in STEERING:
        answer = place.post("gemini/x", fallbacks=[f"gemini/{part}"])
        assert answer.status_code == 404, (part, answer.text)
        assert place.heard() == []
