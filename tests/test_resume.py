"""A stream that broke, finished by the next target: whole, exactly, or with the error as ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.allowance import Allowances
from proxy.errors import UpstreamFailure
from proxy.facts import ModelFacts
from proxy.policy import Limits
from proxy.replies import ChunkStream
from proxy.retry import Kind
from proxy.types import Call, Json
from tests.fakes import (
    Bench,
    Fails,
    Gate,
    Passes,
    Script,
    answer,
    ask,
    delta,
    finish,
    limited,
    ring,
    role,
    sent,
    target,
    usage,
)

TAKES = ModelFacts(prefills=True)
BROKEN = Kind.TRANSIENT  # of a stream that has begun
CALL: Json = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}


@dataclass
class Heard:
    """What a client got of one stream."""

    raw: bytes = b""
    events: list[Json] = field(default_factory=list)
    error: Exception | None = None

    @property
    def text(self) -> str:
        choices = [choice for event in self.events for choice in event["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    @property
    def whole(self) -> str | None:
        """The text of a stream that came to its end."""
        ended = [c for event in self.events for c in event["choices"] if c["finish_reason"]]
        return self.text if self.error is None and len(ended) == 1 else None


def bench(scripts: dict[str, list[Script]], *, prefills: Sequence[str] = (), **facts: Any) -> Bench:
    """Targets in this order, of which some take a prefill."""
    targets = [
        target(label, facts=TAKES if label in prefills else ModelFacts()) for label in scripts
    ]
    policy = {"on_midstream": "continue", "num_retries": 0, "laps": 1}
    return Bench(scripts, ring=ring(*targets), **{**policy, **facts})


async def hear(place: Bench, call: Call | None = None) -> Heard:
    heard = Heard()
    reply = await place.serve(call or ask(stream=True))
    assert isinstance(reply, ChunkStream)
    try:
        async for chunk in reply:
            heard.raw += chunk.raw
            heard.events += sent([chunk])
    except UpstreamFailure as failure:
        heard.error = failure
    finally:
        await reply.aclose()
    return heard


def told(place: Bench, call: Call | None = None) -> Heard:
    return asyncio.run(hear(place, call))


def results(place: Bench) -> dict[str, float]:
    return {
        labels["result"]: value for labels, value in place.samples("mobius_resumed_total") if value
    }


def outcomes(place: Bench) -> list[tuple[str, int, int]]:
    rows = place.ledger.closed
    return [(row.outcome, row.usage.prompt_tokens, row.usage.completion_tokens) for row in rows]


def begins(*texts: str, end: Sequence[Any] = (BROKEN,)) -> list[Any]:
    return [role(), *map(delta, texts), *end]


# It goes on


ENDS: dict[str, list[Any]] = {
    "reset": [Kind.TRANSIENT],
    "stall": [TimeoutError()],
    "malformed": [b'{"choices": [{"delta'],
    "an error event": [{"error": {"message": "overloaded"}}],
    "no finish": [],
}


@pytest.mark.parametrize("how", ENDS)
def test_however_it_broke_the_next_target_says_the_rest(how: str) -> None:
    place = bench(
        {
            "a": [begins("Hel", "lo", end=ENDS[how])],
            "b": [begins("Hello ", "world", end=[finish(), usage()])],
        }
    )
    heard = told(place)
    assert (heard.whole, heard.text) == ("Hello world", "Hello world")
    assert place.tally.trail == ["a:200", "b:200"]
    assert (place.tally.outcome, place.tally.target, place.tally.fallbacks) == ("ok", "b", 1)
    assert results(place) == {"whole": 1}
    assert [row.outcome for row in place.ledger.closed] == ["broken", "ok"]
    assert place.blamed("a")
    assert not place.blamed("b")


def test_a_model_that_takes_a_beginning_says_the_rest_alone() -> None:
    place = bench(
        {"a": [begins("Hel", "lo wo")], "b": [begins("rld", end=[finish()])]}, prefills="b"
    )
    assert told(place).whole == "Hello world"
    _, second = place.upstream.calls
    assert second.call.body["messages"][-1] == {"role": "assistant", "content": "Hello wo"}


def test_white_space_that_it_was_not_given_it_has_to_say() -> None:
    place = bench({"a": [begins("Hello ")], "b": [begins(" world", end=[finish()])]}, prefills="b")
    assert told(place).whole == "Hello world"


def test_a_beginning_that_is_refused_is_asked_for_afresh_at_the_same_target() -> None:
    place = bench(
        {
            "a": [begins("Hello")],
            "b": [Fails(Kind.CALLER, 400), begins("Hello world", end=[finish()])],
        },
        prefills="b",
    )
    assert told(place).whole == "Hello world"
    assert [len(asked.call.body["messages"]) for asked in place.upstream.calls] == [1, 2, 1]
    assert place.tally.fallbacks == 1


def test_a_target_that_fails_is_passed_over() -> None:
    place = bench(
        {
            "a": [begins("Hello")],
            "b": [Kind.OVERLOADED],
            "c": [limited(60.0)],
            "d": [begins("Hello world", end=[finish()])],
        },
        prefills="b",
    )
    assert told(place).whole == "Hello world"
    assert place.asked == ["a", "b", "c", "d"]
    assert place.tally.fallbacks == 3


def test_what_broke_again_is_finished_by_the_one_after_that() -> None:
    place = bench(
        {
            "a": [begins("One ")],
            "b": [begins(" two ")],
            "c": [begins("One two three", end=[finish()])],
        },
        prefills="b",
    )
    heard = told(place)
    assert heard.whole == "One two three"
    assert heard.raw.count(b": resumed\n\n") == 2
    assert [row.outcome for row in place.ledger.closed] == ["broken", "broken", "ok"]
    assert results(place) == {"whole": 1}


def test_what_broke_before_it_had_caught_up_is_no_loss() -> None:
    place = bench(
        {
            "a": [begins("Hello")],
            "b": [begins("Hel")],
            "c": [begins("Hello world", end=[finish()])],
        }
    )
    heard = told(place)
    assert heard.whole == "Hello world"
    assert heard.raw.count(b": resumed\n\n") == 1


def test_a_whole_answer_goes_on_as_well() -> None:
    body = answer()
    body["choices"][0]["message"]["content"] = "Hello world"
    place = bench({"a": [begins("Hello")], "b": [body]})
    assert told(place).whole == "Hello world"


def test_the_broken_attempt_is_settled_before_the_next_begins() -> None:
    gate = Gate()
    place = bench({"a": [begins("Hello")], "b": [(gate, begins("Hello world", end=[finish()]))]})

    async def main() -> None:
        hearing = asyncio.create_task(hear(place))
        await gate.reached.wait()
        assert [row.outcome for row in place.ledger.closed] == ["broken"]
        assert [source.closed for source in place.upstream.sources] == [1]
        assert len(place.quota._aside) == 1
        gate.opened.set()
        assert (await hearing).whole == "Hello world"

    asyncio.run(main())


# As the client sees it


def test_the_seam_is_a_comment_between_what_was_sent_and_what_is_new() -> None:
    place = bench({"a": [begins("Hello")], "b": [begins("Hello wo", "rld", end=[finish()])]})
    before, after = told(place).raw.split(b": resumed\n\n")
    assert b"Hello" in before
    assert b"Hello" not in after
    assert b" wo" in after
    assert b"rld" in after


def test_events_after_the_seam_have_the_first_id_and_their_own_model() -> None:
    head = {"id": "chat-a", "created": 1, "model": "first"}
    other = {"id": "chat-b", "created": 2, "model": "second"}
    place = bench(
        {
            "a": [[{**head, **role()}, {**head, **delta("x")}, BROKEN]],
            "b": [[{**other, **role()}, {**other, **delta("xy")}, {**other, **finish()}]],
        }
    )
    heard = told(place)
    assert {(event["id"], event["created"]) for event in heard.events} == {("chat-a", 1)}
    assert [event["model"] for event in heard.events] == ["first"] * 2 + ["second"] * 2
    roles = [choice["delta"].get("role") for e in heard.events for choice in e["choices"]]
    assert roles == ["assistant", None, None, None]


def test_the_usage_is_told_once_and_is_the_sum() -> None:
    place = bench(
        {
            "a": [begins("x" * 40)],
            "b": [begins("x" * 40 + "y", end=[finish(), usage(100, 11)])],
        }
    )
    heard = told(place, ask(stream=True, wants_usage=True))
    broken, ok = outcomes(place)
    assert broken[2] == 10  # as our own count has it
    assert ok == ("ok", 100, 11)
    (told_usage,) = [event["usage"] for event in heard.events if event.get("usage")]
    assert told_usage["completion_tokens"] == 21
    assert told_usage["prompt_tokens"] == 100 + broken[1]
    assert told_usage["total_tokens"] == 121 + broken[1]
    assert place.tally.usage is not None
    assert place.tally.usage.completion_tokens == 21


def test_a_usage_that_nobody_asked_for_is_not_told() -> None:
    place = bench({"a": [begins("x")], "b": [begins("xy", end=[finish(), usage()])]})
    assert all(event["choices"] for event in told(place).events)


def test_what_failed_before_any_content_is_no_part_of_the_sum() -> None:
    place = bench(
        {
            "a": [Kind.TRANSIENT],
            "b": [begins("x")],
            "c": [begins("xy", end=[finish(), usage(100, 11)])],
        }
    )
    heard = told(place, ask(stream=True, wants_usage=True))
    (told_usage,) = [event["usage"] for event in heard.events if event.get("usage")]
    assert told_usage["completion_tokens"] == 12


# It does not


def same_as_ever(heard: Heard, text: str) -> None:
    assert isinstance(heard.error, UpstreamFailure)
    assert heard.error.kind is Kind.BROKEN
    assert (heard.text, heard.whole) == (text, None)


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [{"index": 0, "delta": CALL, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"refusal": "no"}, "finish_reason": None}]},
        {
            "choices": [
                {"index": 0, "delta": {}, "logprobs": {"content": [1]}, "finish_reason": None}
            ]
        },
    ],
)
def test_more_than_a_text_is_not_gone_on_with(event: Json) -> None:
    place = bench({"a": [[role(), delta("x"), event, BROKEN]], "b": []})
    same_as_ever(told(place), "x")
    assert place.asked == ["a"]
    assert results(place) == {"unfit": 1}


@pytest.mark.parametrize("body", [{"logprobs": True}, {"n": 2}])
def test_a_request_for_more_than_a_text_is_not_gone_on_with(body: dict[str, Any]) -> None:
    place = bench({"a": [begins("x")], "b": []})
    same_as_ever(told(place, ask(stream=True, body=body)), "x")
    assert results(place) == {}


def test_by_default_nothing_goes_on() -> None:
    place = bench({"a": [begins("x")], "b": []}, on_midstream="error")
    same_as_ever(told(place), "x")
    assert results(place) == {}


def test_after_the_last_target_there_is_nobody() -> None:
    place = bench({"a": [Kind.TRANSIENT], "b": [begins("x")]})
    same_as_ever(told(place), "x")
    assert place.asked == ["a", "b"]
    assert results(place) == {"failed": 1}


def test_the_place_that_broke_is_not_asked_under_another_name() -> None:
    twin = [target("a", identity="one"), target("b", identity="one")]
    place = Bench({"a": [begins("x")]}, ring=ring(*twin), on_midstream="continue", laps=1)
    same_as_ever(told(place), "x")


def test_another_text_ends_it_and_blames_nobody() -> None:
    place = bench({"a": [begins("Hello")], "b": [begins("Help", end=[finish()])], "c": []})
    same_as_ever(told(place), "Hello")
    assert place.asked == ["a", "b"]
    assert [row.outcome for row in place.ledger.closed] == ["broken", "cancelled"]
    assert outcomes(place)[1][2] == 1  # it is paid for
    assert not place.blamed("b")
    assert results(place) == {"diverged": 1}
    assert place.upstream.sources[1].closed == 1


def test_a_tool_that_is_called_beyond_the_seam_ends_it() -> None:
    called: Json = {"choices": [{"index": 0, "delta": CALL, "finish_reason": None}]}
    place = bench({"a": [begins("Hello")], "b": [[delta("Hello world"), called, finish()]]})
    same_as_ever(told(place), "Hello world")
    assert results(place) == {"diverged": 1}


def test_a_limit_of_the_callers_own_ends_it() -> None:
    limits = Allowances(keys={"web": Limits(tpm=120)})
    scripts: dict[str, list[Script]] = {"a": [begins("Hello" * 20)], "b": []}
    place = bench(scripts, allowances=limits)
    same_as_ever(told(place, ask(stream=True, body={"max_tokens": 60})), "Hello" * 20)
    assert results(place) == {"failed": 1}


def test_nobody_is_asked_after_the_deadline() -> None:
    place = bench({"a": [begins("x")], "b": [(Passes(9.0), Kind.TRANSIENT)], "c": []}, deadline=5.0)
    same_as_ever(told(place), "x")
    assert place.asked == ["a", "b"]


def test_a_text_that_does_not_catch_up_before_the_deadline_is_not_waited_for() -> None:
    gate = Gate()
    place = bench(
        {"a": [begins("Hello")], "b": [[delta("He"), Passes(9.0), delta("l"), gate]], "c": []},
        deadline=5.0,
    )
    same_as_ever(told(place), "Hello")
    assert results(place) == {"failed": 1}


def test_the_deadline_is_of_each_break_alone() -> None:
    place = bench(
        {
            "a": [[delta("One"), Passes(900.0), BROKEN]],
            "b": [[delta("One two"), Passes(900.0), BROKEN]],
            "c": [begins("One two three", end=[finish()])],
        },
        deadline=5.0,
    )
    assert told(place).whole == "One two three"


def test_a_target_that_rests_is_not_asked() -> None:
    place = bench({"a": [begins("Hello")] * 2, "b": [limited(60.0)]})
    for _ in range(2):
        same_as_ever(told(place), "Hello")
        assert place.tally.fallbacks == (place.asked[-1] == "b")
    assert place.asked == ["a", "b", "a"]


def test_the_providers_of_both_parts_are_waited_for() -> None:
    place = bench(
        {
            "a": [[delta("One"), Passes(3.0), delta(" t"), BROKEN]],
            "b": [(Passes(1.0), [delta("One t"), Passes(5.0), delta("wo"), finish()])],
        }
    )
    assert told(place).whole == "One two"
    assert place.tally.upstream_s == 9.0


# Whoever leaves


def test_a_client_that_leaves_while_it_goes_on_has_it_closed_and_settled() -> None:
    gate = Gate()
    place = bench({"a": [begins("Hello")], "b": [[delta("Hello wo"), gate]]})
    asyncio.run(gate.cancel(hear(place)))
    assert [source.closed for source in place.upstream.sources] == [1, 1]
    assert outcomes(place)[1] == ("cancelled", outcomes(place)[0][1], 2)
    assert (place.tally.outcome, results(place)) == ("cancelled", {"cancelled": 1})


def test_a_client_that_leaves_while_another_is_asked_has_that_settled() -> None:
    gate = Gate()
    place = bench({"a": [begins("Hello")], "b": [(gate, begins("x"))]})
    asyncio.run(gate.cancel(hear(place)))
    assert [row.outcome for row in place.ledger.closed] == ["broken", "cancelled"]
    assert (place.tally.outcome, results(place)) == ("cancelled", {"cancelled": 1})


# Whatever the text, and wherever it is cut


def pieces(text: str, cuts: Iterable[int]) -> list[str]:
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(text)}), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


def reads(events: list[Any], sizes: Sequence[int]) -> list[Any]:
    """The same events, some of them with one read of the socket."""
    found: list[Any] = []
    for at in range(len(sizes)):
        if not events:
            break
        found.append(events[: sizes[at]])
        events = events[sizes[at] :]
    return [*found, *events]


TEXT = st.text(min_size=1, max_size=40)
CUTS = st.lists(st.integers(1, 40), max_size=6)
SIZES = st.lists(st.integers(1, 4), max_size=6)


@dataclass
class Part:
    """How one target says its part: in such pieces, up to there, as a prefill or afresh."""

    cuts: list[int]
    sizes: list[int]
    until: int
    prefills: bool
    wrong: int | None  # where it says something else

    def says(self, text: str, given: int, *, last: bool) -> list[Any]:
        """Its events for a text, of which it was given so much."""
        if self.wrong is not None and self.wrong < len(text):
            other = "b" if text[self.wrong] == "a" else "a"
            text = text[: self.wrong] + other + text[self.wrong + 1 :]
        text = text[given:] if last else text[given : max(given + 1, self.until)]
        events = [role(), *(delta(piece) for piece in pieces(text, self.cuts) if piece)]
        return [
            *reads([*events, finish()] if last else events, self.sizes),
            *([] if last else [BROKEN]),
        ]


PART = st.builds(
    Part,
    CUTS,
    SIZES,
    st.integers(1, 40),
    st.booleans(),
    st.none() | st.none() | st.integers(0, 40),
)


@settings(max_examples=150, deadline=None)
@given(TEXT, st.lists(PART, min_size=2, max_size=4))
def test_what_the_client_gets_is_the_text_or_the_beginning_of_it_and_an_error(
    text: str, parts: list[Part]
) -> None:
    parts[0].wrong = None
    scripts: dict[str, list[Script]] = {}
    got, fails = "", False
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        begun = got.rstrip() if part.prefills else ""
        given = len(begun)
        events = part.says(text, given, last=last)
        scripts[str(number)] = [events]
        flat = [e for each in events for e in (each if isinstance(each, list) else [each])]
        new = "".join(e["choices"][0]["delta"].get("content", "") for e in flat if e is not BROKEN)
        own = begun + new
        if number and not (own.startswith(got) or (not last and got.startswith(own))):
            fails = True
            break
        got = max(got, own, key=len)
    prefills = [str(number) for number, part in enumerate(parts) if part.prefills]
    place = bench({str(n): scripts.get(str(n), []) for n in range(len(parts))}, prefills=prefills)
    heard = told(place)
    if fails:
        same_as_ever(heard, got)
    else:
        assert heard.whole == got
    *broken, final = [row.outcome for row in place.ledger.closed]
    assert (len(broken), final) == (len(scripts) - 1, "cancelled" if fails else "ok")
    assert set(broken) <= {"broken", "transient"}  # one who had nothing to add has not begun
