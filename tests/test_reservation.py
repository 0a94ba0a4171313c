"""What one attempt is charged with, whatever became of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest

from proxy.errors import UpstreamFailure
from proxy.estimate import PromptRates, Size
from proxy.facts import ModelFacts, Price, Rates
from proxy.replies import Chunk, ChunkStream, Completion
from proxy.reservation import CANCELLED, OK, Reservation
from proxy.retry import Kind
from proxy.types import Call, Json, Surface, Usage
from tests.fakes import answer, ask, delta, finish, role, target, usage

PRICE = Price((Rates(prompt=1_000_000, completion=2_000_000),))  # pico-dollars


def reservation(**facts: Any) -> Reservation:
    return Reservation("r.1", target("a", **facts), ask(), Size(400), 200, 50, 7)


def whole(body: Json) -> Completion:
    return Completion(orjson.dumps(body), body)


def read(held: Reservation, *events: Json) -> None:
    """The reservation has seen a stream of these events."""

    none: list[Chunk] = []

    async def nothing() -> AsyncGenerator[Chunk, None]:
        for each in none:
            yield each

    async def main() -> None:
        stream = ChunkStream([Chunk.of_events([event]) for event in events], nothing())
        held.watch(stream)
        assert len([chunk async for chunk in stream]) == len(events)

    asyncio.run(main())


def test_what_is_set_aside_is_the_prompt_and_the_answer() -> None:
    assert reservation().tokens == 250


def test_the_provider_is_believed() -> None:
    held = reservation()
    held.watch(whole(answer(7, 3)))
    held.outcome = OK
    assert held.usage(PromptRates()) == Usage(7, 3)


def responding(**body: Any) -> Reservation:
    """The reservation of a request for a Response, in a tier that costs ten times as much."""
    call = Call("m", False, {"input": "a", **body}, Surface.RESPONSES)
    dear = Rates(prompt=10_000_000, completion=20_000_000)
    facts = ModelFacts(price=Price(PRICE.rates, {"priority": (dear,)}))
    return Reservation("r.1", target("a", facts=facts), call, Size(400), 200, 50, 7)


def test_a_response_that_runs_on_is_charged_with_all_that_is_set_aside() -> None:
    queued: dict[str, Any] = {"object": "response", "status": "queued", "output": [], "usage": None}
    held = responding(background=True)
    held.watch(whole(queued))
    held.outcome = OK
    assert held.usage(PromptRates()) == Usage(200, 50, estimated=True)
    # Once it is told what it took, as at the end of a stream, that is believed.
    counts = {"input_tokens": 7, "output_tokens": 3}
    told = responding(background=True)
    read(told, {"type": "response.created", "response": queued})
    read(told, {"type": "response.completed", "response": {**queued, "usage": counts}})
    told.outcome = OK
    assert told.usage(PromptRates()) == Usage(7, 3)
    refused = responding(background=True)
    refused.failed(UpstreamFailure("no", kind=Kind.CALLER))
    assert refused.usage(PromptRates()) == Usage()
    # It does not run on elsewhere, whatever the body says.
    held = Reservation("r.1", target("a"), ask(body={"background": True}), Size(400), 200, 50, 7)
    held.watch(whole({"choices": []}))
    held.outcome = OK
    assert held.usage(PromptRates()).completion_tokens == 0


def test_a_response_costs_what_its_tier_does_also_when_events_tell_it() -> None:
    counts = {"input_tokens": 7, "output_tokens": 3}
    body = {"status": "completed", "output": [], "service_tier": "priority", "usage": counts}
    one, other = responding(), responding()
    one.watch(whole(body))
    read(other, {"type": "response.completed", "response": body})
    assert one.cost_nano_usd(Usage(7, 3)) == other.cost_nano_usd(Usage(7, 3)) == 130_000


def test_a_stream_is_charged_with_what_it_reports_at_its_end() -> None:
    held = reservation()
    read(held, delta("t0 "), finish(), usage(7, 3))
    held.outcome = OK
    assert held.usage(PromptRates()) == Usage(7, 3)


def test_what_a_stream_says_after_its_report_is_charged_beside_it() -> None:
    # Some report the prompt with the first chunk, some the sum so far with every one.
    held = reservation()
    read(held, {**role(), "usage": usage(7, 0)["usage"]}, delta("t" * 9))
    assert held.usage(PromptRates()) == Usage(7, 3, estimated=True)
    held = reservation()
    read(held, {**delta("t" * 9), "usage": usage(7, 2)["usage"]})
    assert held.usage(PromptRates()) == Usage(7, 2)


@pytest.mark.parametrize("reported", [None, {}, {"prompt_tokens": -1, "completion_tokens": 3}, "7"])
def test_without_a_count_that_can_be_believed_ours_is_charged(reported: object) -> None:
    said = {"message": {"content": "x" * 41}, "finish_reason": "stop"}
    body = {"choices": [said], **({} if reported is None else {"usage": reported})}
    held = reservation()
    held.watch(whole(body))
    held.outcome = OK
    assert held.usage(PromptRates()) == Usage(101, 11, estimated=True)


def test_a_client_that_leaves_midway_pays_for_what_was_generated() -> None:
    held = reservation()
    read(held, delta("x" * 8))
    assert held.outcome == CANCELLED
    assert held.usage(PromptRates()) == Usage(101, 2, estimated=True)


def test_a_client_that_leaves_before_anything_came_pays_nothing() -> None:
    assert reservation().usage(PromptRates()) == Usage()


def test_a_stream_that_broke_pays_for_what_was_seen() -> None:
    held = reservation()
    read(held, delta("x" * 8))
    held.failed(UpstreamFailure("gone", kind=Kind.BROKEN))
    assert held.outcome == "broken"
    assert held.usage(PromptRates()) == Usage(101, 2, estimated=True)


def test_a_call_that_failed_before_any_answer_pays_nothing() -> None:
    for kind in Kind:
        if kind is not Kind.BROKEN:
            held = reservation()
            held.failed(UpstreamFailure("no", kind=kind))
            assert (held.outcome, held.usage(PromptRates())) == (kind.value, Usage())


def test_a_call_that_failed_after_tokens_were_surely_spent_pays_for_its_prompt() -> None:
    held = reservation()
    held.failed(UpstreamFailure("reset in the body", kind=Kind.TRANSIENT, tokens_spent=True))
    assert held.usage(PromptRates()) == Usage(101, 0, estimated=True)


def test_a_price_is_for_the_tier_that_served() -> None:
    tiers = {"priority": (Rates(prompt=3_000_000, completion=6_000_000),)}
    held = reservation(facts=ModelFacts(Price(PRICE.rates, tiers)))
    held.watch(whole({**answer(7, 3), "service_tier": "priority"}))
    held.outcome = OK
    assert held.cost_nano_usd(held.usage(PromptRates())) == 39_000
    other = reservation(facts=ModelFacts(Price(PRICE.rates, tiers)))
    other.watch(whole(answer(7, 3)))
    assert other.cost_nano_usd(Usage(7, 3)) == 13_000


def test_without_a_price_the_cost_is_not_known() -> None:
    assert reservation().cost_nano_usd(Usage(7, 3)) is None
    assert reservation(facts=ModelFacts(PRICE)).cost_nano_usd(Usage()) == 0
