"""LangChain's ChatOpenAI, OpenAIEmbeddings and ChatAnthropic."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.clients.place import KEY, SPENT, Place
from tests.clients.words import (
    CALLED,
    GREY,
    OSLO,
    SAID,
    TEXT,
    Ask,
    Weather,
    all_at_once,
    check_results,
    cut_off,
    fake_of,
)
from tests.providers import Answer, Breaks, Fails, Gate, Usage

ASKED = [SystemMessage("be brief"), HumanMessage(SAID)]
models = pytest.mark.parametrize("model", ["gpt", "claude"])
# Chat completions, responses, messages.
WAYS = ("chat", "responses", "anthropic")
ways = pytest.mark.parametrize("way", WAYS)


def chat(place: Place, way: str, model: str, key: str = KEY, **more: Any) -> Any:
    more = {"max_retries": 0, "max_tokens": 50, **more}
    if way == "anthropic":
        return ChatAnthropic(model=model, base_url=place.tap.url, api_key=key, **more)
    # What it takes for the fastest way to count tokens fetches a table from elsewhere.
    return ChatOpenAI(
        model=model, base_url=place.url, api_key=key, use_responses_api=way == "responses", **more
    )


@tool  # type: ignore[untyped-decorator]
def weather(city: str) -> str:
    """Of a city."""
    return f"grey in {city}"


@ways
@models
def test_a_whole_answer(place: Place, model: str, way: str) -> None:
    fake_of(place, model).always(Answer(usage=Usage(30, 20)))
    answer = chat(place, way, model).invoke(ASKED)
    assert answer.text == TEXT
    assert answer.usage_metadata["total_tokens"] == 50


@ways
@models
def test_a_stream(place: Place, model: str, way: str) -> None:
    pieces = list(chat(place, way, model, stream_usage=True).stream(ASKED))
    assert len(pieces) > 5
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole.text == TEXT
    assert whole.usage_metadata["output_tokens"] == 5


@ways
@models
@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
def test_tools_are_called_and_their_results_are_told(
    place: Place, model: str, way: str, streamed: bool
) -> None:
    fake_of(place, model).script(CALLED, Answer(text="grey"))
    bound = chat(place, way, model).bind_tools([weather])
    messages: list[Any] = list(ASKED)
    answer: Any = None
    for _ in range(2):
        if streamed:
            pieces = list(bound.stream(messages))
            answer = sum(pieces[1:], start=pieces[0])
        else:
            answer = bound.invoke(messages)
        messages.append(answer)
        for call in answer.tool_calls:
            told = weather.invoke(call)
            assert isinstance(told, ToolMessage)
            messages.append(told)
    assert answer.text == "grey"
    check_results(place, model)


@ways
@models
def test_an_answer_has_the_structure_that_was_asked_for(place: Place, model: str, way: str) -> None:
    fake_of(place, model).always(Answer(text=OSLO))
    structured = chat(place, way, model).with_structured_output(Weather, method="json_schema")
    assert structured.invoke(ASKED) == GREY


def test_vectors(place: Place) -> None:
    # It would send the numbers of tokens, by a table that it fetches from elsewhere.
    vectors = OpenAIEmbeddings(
        model="vectors", base_url=place.url, api_key=KEY, check_embedding_ctx_length=False
    )
    assert [vector[0] for vector in vectors.embed_documents(["a", "b"])] == [0.5, 1.5]
    assert vectors.embed_query("a")[0] == 0.5


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequestError"),
        (404, "NotFoundError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
    ],
)
@ways
def test_failures_have_the_sdks_classes(place: Place, way: str, status: int, name: str) -> None:
    step = Fails(status, headers={"retry-after": "7"})
    model = place.odd(status, step, claude=way == "anthropic")
    sdk: Any = anthropic if way == "anthropic" else openai
    with pytest.raises(getattr(sdk, name)) as caught:
        chat(place, way, model).invoke(ASKED)
    if status == 429:
        assert 0 < float(caught.value.response.headers["retry-after"]) <= 7


@ways
def test_our_own_refusals_have_the_sdks_classes(place: Place, way: str) -> None:
    sdk: Any = anthropic if way == "anthropic" else openai
    for key, model, name in (
        ("sk-nobody", "gpt", "AuthenticationError"),
        (KEY, "nothing", "NotFoundError"),
        (SPENT, "gpt", "RateLimitError"),
    ):
        with pytest.raises(getattr(sdk, name)):
            chat(place, way, model, key).invoke(ASKED)


@ways
@models
def test_a_stream_that_breaks_raises(place: Place, model: str, way: str) -> None:
    fake_of(place, model).script(Breaks(2, how="ends"))
    sdk: Any = anthropic if way == "anthropic" else openai
    with pytest.raises(sdk.APIError):
        list(chat(place, way, model).stream(ASKED))


def test_raw_headers(place: Place) -> None:
    answer = chat(place, "chat", "gpt", include_response_headers=True).invoke(ASKED)
    assert isinstance(answer, AIMessage)
    assert answer.response_metadata["headers"]["x-mobius-target"] == "gpt/openai/gpt-4o"


def crowd_of(place: Place, way: str, model: str) -> Ask:
    asked = chat(place, way, model)

    async def ask(number: int) -> str:
        return "".join([piece.text async for piece in asked.astream(f"number {number}")])

    return ask


# Those that share connections, which they keep for the next loop of events.
@pytest.mark.parametrize("sharing", [("chat", "responses"), ("anthropic",)], ids=" and ".join)
def test_fifty_streams_at_once(place: Place, sharing: tuple[str, ...]) -> None:
    cases = [(way, name) for way in sharing for name in ("gpt", "claude")]
    all_at_once(place, *((fake_of(place, name), crowd_of(place, way, name)) for way, name in cases))


@ways
@models
def test_leaving_ends_the_providers_work(place: Place, model: str, way: str) -> None:
    fake = fake_of(place, model)
    fake.script(Answer(gate=Gate(), gate_after_tokens=2))
    stream = chat(place, way, model).stream(ASKED)
    next(stream)
    stream.close()
    cut_off(fake)
