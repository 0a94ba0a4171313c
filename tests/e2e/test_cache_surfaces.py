"""The cache on every surface, through the official SDKs where there is one."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import pytest

from tests.e2e.quota_place import secret
from tests.e2e.test_cache import config
from tests.harness import Mobius, redis_server, wait_until
from tests.providers import Answer, FakeAnthropic, FakeOpenAI

pytestmark = pytest.mark.e2e

SAID = "t0 t1 t2 t3 t4 "
WEB = {"authorization": f"Bearer {secret('web')}"}
MASTER = {"authorization": "Bearer sk-master"}


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    gpt: FakeOpenAI
    claude: FakeAnthropic

    def calls(self) -> int:
        return len(self.gpt.journal.requests()) + len(self.claude.journal.requests())

    def post(self, path: str, body: dict[str, Any], **headers: str) -> tuple[Any, str]:
        """The JSON of the answer, and what the cache did."""
        answer = self.mobius.http.post(path, json=body, headers=WEB | headers)
        assert answer.status_code == 200, answer.text
        return answer.json(), answer.headers["x-mobius-cache"]


def settings(gpt: FakeOpenAI, claude: FakeAnthropic, **cache: Any) -> dict[str, Any]:
    found = config(gpt.base_url, cache=cache)
    params = {"model": "anthropic/c", "api_base": claude.base_url, "api_key": "sk-provider"}
    found["model_list"].append({"model_name": "claude", "litellm_params": params})
    return found


@pytest.fixture(scope="module")
def providers() -> Iterator[tuple[FakeOpenAI, FakeAnthropic]]:
    with FakeOpenAI() as gpt, FakeAnthropic() as claude:
        yield gpt, claude


@pytest.fixture(scope="module")
def place(providers: tuple[FakeOpenAI, FakeAnthropic]) -> Iterator[Place]:
    with Mobius(settings(*providers, type="local")) as mobius:
        yield Place(mobius, *providers)


Asks: TypeAlias = Callable[[Mobius, str, bool], tuple[Any, str]]


def of_text(mobius: Mobius, text: str, stream: bool) -> tuple[Any, str]:
    client = mobius.openai(secret("web")).completions.with_raw_response
    raw: Any = client.create(model="m", prompt=text, stream=stream)
    parsed = raw.parse()
    events = list(parsed) if stream else [parsed]
    return "".join(each.choices[0].text for each in events), raw.headers["x-mobius-cache"]


def of_a_response(mobius: Mobius, text: str, stream: bool) -> tuple[Any, str]:
    client = mobius.openai(secret("web")).responses.with_raw_response
    raw: Any = client.create(model="m", input=text, stream=stream)
    parsed = raw.parse()
    if not stream:
        return parsed.output_text, raw.headers["x-mobius-cache"]
    events = list(parsed)
    assert events[-1].type == "response.completed"
    said = [each.delta for each in events if each.type == "response.output_text.delta"]
    return "".join(said), raw.headers["x-mobius-cache"]


def of_a_message(mobius: Mobius, text: str, stream: bool, model: str = "claude") -> tuple[Any, str]:
    client = mobius.anthropic(secret("web"))
    asked: Any = {
        "model": model,
        "max_tokens": 9,
        "messages": [{"role": "user", "content": text}],
    }
    if not stream:
        raw: Any = client.messages.with_raw_response.create(**asked)
        return raw.parse().content[0].text, raw.headers["x-mobius-cache"]
    with client.messages.stream(**asked) as read:
        said = "".join(read.text_stream)
        message = read.get_final_message()
        assert message.content[0].text == said  # type: ignore[union-attr]
        assert message.stop_reason == "end_turn"
        return said, read.response.headers["x-mobius-cache"]


def of_a_translated_message(mobius: Mobius, text: str, stream: bool) -> tuple[Any, str]:
    return of_a_message(mobius, text, stream, "m")


@pytest.mark.parametrize("asks", [of_text, of_a_message, of_a_translated_message])
@pytest.mark.parametrize("first", [False, True])
def test_a_stream_and_a_whole_answer_are_the_same(place: Place, asks: Asks, first: bool) -> None:
    before, text = place.calls(), f"{asks.__name__} {first}"
    assert asks(place.mobius, text, first) == (SAID, "miss")
    assert asks(place.mobius, text, first) == (SAID, "hit")
    assert asks(place.mobius, text, not first) == (SAID, "hit")
    assert place.calls() == before + 1


def test_a_stream_of_a_response_is_another_answer_than_a_whole_one(place: Place) -> None:
    before = place.calls()
    for stream in (False, True):
        assert of_a_response(place.mobius, "apart", stream) == (SAID, "miss")
        assert of_a_response(place.mobius, "apart", stream) == (SAID, "hit")
    assert place.calls() == before + 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/moderations", {"model": "m", "input": "harm"}),
        ("/v1/rerank", {"model": "m", "query": "q", "documents": ["a", "b"]}),
        ("/v1/embeddings", {"model": "m", "input": "single"}),
    ],
)
def test_what_is_never_streamed_is_kept_as_well(
    place: Place, path: str, body: dict[str, Any]
) -> None:
    before = place.calls()
    one, how = place.post(path, body)
    other, again = place.post(path, body)
    assert (how, again) == ("miss", "hit")
    one.pop("usage", None), other.pop("usage", None)
    assert one == other
    assert place.calls() == before + 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/images/generations", {"model": "m", "prompt": "a cat"}),
        ("/v1/responses", {"model": "m", "input": "a", "store": True}),
        ("/v1/responses", {"model": "m", "input": "a", "previous_response_id": "resp_1"}),
        ("/v1/responses", {"model": "m", "input": "a", "conversation": "conv_1"}),
    ],
)
def test_what_is_more_than_a_question_is_asked_each_time(
    place: Place, path: str, body: dict[str, Any]
) -> None:
    before = place.calls()
    assert [place.post(path, body)[1] for _ in range(2)] == ["bypass"] * 2
    assert place.calls() == before + 2


def test_the_same_body_elsewhere_or_under_other_headers_is_another_question(place: Place) -> None:
    body = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "where"}]}
    beta = {"anthropic-beta": "context-1m-2025-08-07"}
    assert place.post("/v1/chat/completions", body)[1] == "miss"
    assert place.post("/v1/messages", body)[1] == "miss"
    assert place.post("/v1/messages", body, **beta)[1] == "miss"
    assert place.post("/v1/messages", body, **beta)[1] == "hit"
    assert place.post("/v1/messages", body)[1] == "hit"


# Vectors


def vectors(place: Place, *numbers: int, **more: Any) -> tuple[list[float], Any, str]:
    """The first number of each vector, the usage, and what the cache did."""
    body = {"model": "m", "input": [f"v{number}" for number in numbers], **more}
    answer, how = place.post("/v1/embeddings", body)
    assert [each["index"] for each in answer["data"]] == list(range(len(numbers)))
    assert all(each["object"] == "embedding" for each in answer["data"])
    assert (answer["object"], answer["model"]) == ("list", "x")
    read = [each["embedding"] for each in answer["data"]]
    if more.get("encoding_format") == "base64":
        read = [struct.unpack("<4f", base64.b64decode(each)) for each in read]
    assert {len(each) for each in read} == {more.get("dimensions", 4)}
    return [each[0] for each in read], answer["usage"], how


def check_vectors(place: Place, **more: Any) -> None:
    journal = place.gpt.journal
    numbers, usage, how = vectors(place, 1, 2, **more)
    assert (numbers, how) == ([1, 2], "miss")
    assert usage["prompt_tokens"] > 0
    numbers, usage, how = vectors(place, 3, 2, 4, 1, 3, **more)
    assert (numbers, how) == ([3, 2, 4, 1, 3], "partial")
    assert journal.last.json == {"model": "x", "input": ["v3", "v4"], **more}
    assert usage["prompt_tokens"] == usage["total_tokens"] > 0
    before = place.calls()
    numbers, usage, how = vectors(place, 4, 3, 2, 1, **more)
    assert (numbers, how) == ([4, 3, 2, 1], "hit")
    assert usage == {"prompt_tokens": 0, "total_tokens": 0}
    assert place.calls() == before


@pytest.mark.parametrize(
    "more", [{}, {"encoding_format": "base64"}, {"encoding_format": "float"}, {"dimensions": 3}]
)
def test_only_inputs_that_are_not_kept_are_asked_for(place: Place, more: dict[str, Any]) -> None:
    check_vectors(place, user=f"only {more}", **more)


def test_texts_and_tokens_of_one_or_many_requests_are_the_same_inputs(place: Place) -> None:
    def ask(*inputs: Any) -> str:
        return place.post("/v1/embeddings", {"model": "m", "input": inputs[0]})[1]

    assert [ask("alone"), ask(["alone"]), ask("alone")] == ["miss", "hit", "hit"]
    assert [ask([5, 6]), ask([[5, 6]]), ask([[7], [5, 6]])] == ["miss", "hit", "partial"]
    assert place.gpt.journal.last.json["input"] == [[7]]
    assert [ask([6, 5]), ask("5 6")] == ["miss", "miss"]


def test_the_official_sdk_reads_what_is_put_together(place: Place) -> None:
    client = place.mobius.openai(secret("web"))

    def ask(*texts: str) -> list[float]:
        found = client.embeddings.create(model="m", input=list(texts), user="sdk")
        return [each.embedding[0] for each in found.data]

    assert ask("v1") == [1.0]
    assert ask("v2", "v1", "v3") == [2.0, 1.0, 3.0]
    assert ask("v3", "v1", "v2") == [3.0, 1.0, 2.0]


def test_the_ledger_has_what_was_paid_for(place: Place) -> None:
    def told() -> tuple[int, int, int]:
        answer = place.mobius.http.get("/admin/usage?group_by=key,model", headers=MASTER).json()
        found = [row for row in answer["rows"] if (row["key"], row["model"]) == ("batch", "m")]
        row = found[0] if found else {"admitted": 0, "attempts": 0, "prompt_tokens": 0}
        return row["admitted"], row["attempts"], row["prompt_tokens"]

    def ask(*texts: str) -> tuple[str, int]:
        key = {"authorization": f"Bearer {secret('batch')}"}
        body = {"model": "m", "input": texts, "user": "paid"}
        answer = place.mobius.http.post("/v1/embeddings", json=body, headers=key)
        return answer.headers["x-mobius-cache"], answer.json()["usage"]["prompt_tokens"]

    paid = 0
    for texts, expected, attempts in (
        (["a", "b"], "miss", 1),
        (["a", "c"], "partial", 2),
        (["c", "b"], "hit", 2),
    ):
        admitted = told()[0]
        how, tokens = ask(*texts)
        paid += tokens
        assert how == expected
        assert told() == (admitted + 1, attempts, paid)


def test_vectors_are_kept_on_a_disk(providers: tuple[FakeOpenAI, FakeAnthropic]) -> None:
    with Mobius(settings(*providers, type="disk")) as mobius:
        check_vectors(Place(mobius, *providers))


@pytest.mark.redis
def test_replicas_share_vectors_and_the_streams_of_every_surface(
    providers: tuple[FakeOpenAI, FakeAnthropic],
) -> None:
    with redis_server() as server:
        shared = settings(*providers, type="redis", url=server.url)
        with Mobius(shared) as one, Mobius(shared) as two:
            here, there = Place(one, *providers), Place(two, *providers)
            check_vectors(here)
            wait_until(lambda: vectors(there, 1, 2, 3, 4)[2] == "hit")
            for asks in (of_text, of_a_response, of_a_message):
                check_shared(here, there, asks)
            server.stop()
            assert vectors(there, 1, 9)[0::2] == ([1, 9], "miss")


def check_shared(here: Place, there: Place, asks: Asks) -> None:
    """Who listens to a stream elsewhere reads what its own provider would have said."""
    fake: FakeOpenAI | FakeAnthropic = here.claude if asks is of_a_message else here.gpt
    fake.script(Answer(gap_s=0.02))
    before, text = here.calls(), f"shared {asks.__name__}"
    found = in_threads([partial(asks, place.mobius, text, True) for place in (here, there)])
    assert {said for said, _ in found} == {SAID}
    assert here.calls() == before + 1


def in_threads(works: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(works)) as pool:
        return [each.result() for each in [pool.submit(work) for work in works]]
