"""The fake Gemini, seen by a raw client."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.providers import Answer, Fails, FakeGemini, ToolCall

MODEL = "/models/gemini-2.5-flash"


@pytest.fixture
def provider() -> Iterator[FakeGemini]:
    with FakeGemini() as provider:
        yield provider


def post(provider: FakeGemini, verb: str) -> httpx.Response:
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    return httpx.post(f"{provider.base_url}{MODEL}:{verb}", json=body, trust_env=False)


def test_content_is_generated_at_once(provider: FakeGemini) -> None:
    provider.script(Answer(reasoning="hm", tokens=2, tool_calls=(ToolCall("f", '{"a": 1}'),)))
    candidate = post(provider, "generateContent").json()["candidates"][0]
    assert candidate["content"]["parts"] == [
        {"text": "hm", "thought": True},
        {"text": "t0 t1 "},
        {"functionCall": {"name": "f", "args": {"a": 1}}},
    ]
    assert candidate["finishReason"] == "STOP"
    assert provider.journal.last.model == "gemini-2.5-flash"


def test_content_is_streamed(provider: FakeGemini) -> None:
    body = post(provider, "streamGenerateContent?alt=sse").text
    events = [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: ")]
    texts = [event["candidates"][0]["content"]["parts"][0]["text"] for event in events]
    assert texts == ["t0 ", "t1 ", "t2 ", "t3 ", "t4 ", ""]
    assert events[-1]["candidates"][0]["finishReason"] == "STOP"
    assert events[-1]["usageMetadata"]["candidatesTokenCount"] == 5


def test_failures_have_google_s_envelope(provider: FakeGemini) -> None:
    provider.script(Fails(429))
    assert post(provider, "generateContent").json()["error"]["status"] == "RESOURCE_EXHAUSTED"


def test_tokens_are_counted(provider: FakeGemini) -> None:
    assert post(provider, "countTokens").json()["totalTokens"] > 0
