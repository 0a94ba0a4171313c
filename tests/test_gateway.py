"""The path of a request, on fakes: who may go where, and what is owed when a reply closes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest
from starlette.types import Message

from proxy.allowance import Allowances
from proxy.api.outbound import Outbound
from proxy.errors import LimitReached, ModelForbidden, ModelUnknown, NoTargetAvailable, ProxyError
from proxy.gateway import ring_of
from proxy.log import Log
from proxy.policy import Limits, MobiusPolicy
from proxy.replies import ChunkStream, Completion
from proxy.retry import Kind
from proxy.snapshot import Fallbacks, Snapshot, Wildcard
from proxy.types import Call, Caller, Ring
from tests.fakes import (
    ANYBODY,
    Bench,
    Fails,
    Gate,
    Passes,
    answer,
    ask,
    delta,
    finish,
    group,
    limited,
    ring,
    role,
    sent,
    target,
    usage,
)

OK = answer()
STREAM = [role(), delta("t0"), delta("t1"), finish(), usage()]


def rings() -> list[Ring]:
    """Models m, n, o and p; m falls back to n and o, to x when too long, to y for content."""
    m, n, o, p, x, y = (group(name, f"{name}-target") for name in "mnopxy")
    return [
        Ring("m", (m, n, o), oversized=(x,), content=(y,)),
        Ring("n", (n, m)),
        Ring("o", (o,)),
        Ring("p", (p,)),
        Ring("short", (p,)),  # an alias
    ]


SNAPSHOT = Snapshot(policy=MobiusPolicy(), rings={ring.model: ring for ring in rings()})


def names(call: Call, caller: Caller = ANYBODY) -> list[str]:
    return [group.name for group in ring_of(call, caller, SNAPSHOT).groups]


# Where a request may go


def test_a_ring_is_the_models_own_group_and_its_fallbacks() -> None:
    assert names(ask()) == ["m", "n", "o"]


def test_an_alias_is_no_way_round_a_models_limits() -> None:
    alias = Ring("short", (group("m", "a"),))
    limits = Allowances(models={"m": Limits(rpm=1)})
    bench = Bench({"a": [OK, OK]}, others=[alias], allowances=limits)

    async def main() -> None:
        await bench.serve(ask(model="short"))
        with pytest.raises(LimitReached, match="limit of model `m` is reached"):
            await bench.serve(ask(model="m"))

    asyncio.run(main())
    assert bench.asked == ["a"]


def test_fallbacks_are_not_transitive() -> None:
    assert names(ask(model="n")) == ["n", "m"]


def test_a_request_that_wants_no_fallbacks_gets_none_of_any_kind() -> None:
    ring = ring_of(ask(wishes={"disable_fallbacks": True}), ANYBODY, SNAPSHOT)
    assert [group.name for group in ring.groups] == ["m"]
    assert ring.oversized == ring.content == ()


def test_a_request_may_name_its_own_fallbacks() -> None:
    assert names(ask(wishes={"fallbacks": ("p", "n")})) == ["m", "p", "n"]
    assert names(ask(wishes={"fallbacks": ()})) == ["m"]


def test_wanting_none_outweighs_naming_some() -> None:
    assert names(ask(wishes={"fallbacks": ("p",), "disable_fallbacks": True})) == ["m"]


def test_a_wished_fallback_must_be_allowed_and_must_exist() -> None:
    caller = Caller("web", models=("m", "n"))
    with pytest.raises(ModelForbidden, match="`p`"):
        names(ask(wishes={"fallbacks": ("n", "p")}), caller)
    with pytest.raises(ModelUnknown, match="`q`"):
        names(ask(wishes={"fallbacks": ("q",)}))


def test_a_wished_fallback_is_allowed_by_the_name_it_is_asked_under() -> None:
    caller = Caller("web", models=("m", "short"))
    assert names(ask(wishes={"fallbacks": ("short",)}), caller) == ["m", "p"]


def test_a_request_may_name_all_that_is_asked_and_in_which_order() -> None:
    ring = ring_of(ask(wishes={"order": ("p", "m")}), ANYBODY, SNAPSHOT)
    assert [group.name for group in ring.groups] == ["p", "m"]
    assert (ring.oversized, ring.content) == ((), ())
    assert names(ask(wishes={"order": ("p", "m"), "disable_fallbacks": True})) == ["p"]
    caller = Caller("web", models=("m", "n"))
    assert names(ask(wishes={"order": ("n", "m")}), caller) == ["n", "m"]
    for order in (("p", "m"), ("m", "p")):
        with pytest.raises(ModelForbidden):
            names(ask(wishes={"order": order}), caller)
    with pytest.raises(ModelUnknown):
        names(ask(wishes={"order": ("m", "nowhere")}))


def test_a_keys_models_bind_where_fallbacks_go() -> None:
    ring = ring_of(ask(), Caller("web", models=("m", "o", "y")), SNAPSHOT)
    assert [group.name for group in ring.groups] == ["m", "o"]
    assert ring.oversized == ()
    assert [group.name for group in ring.content] == ["y"]


def test_a_model_outside_the_keys_patterns_is_forbidden_known_or_not() -> None:
    caller = Caller("web", models=("n",))
    for model in ("m", "q"):
        with pytest.raises(ModelForbidden):
            names(ask(model=model), caller)


def test_an_unknown_model_is_a_404_and_nobody_is_asked() -> None:
    bench = Bench({"a": []})
    with pytest.raises(ModelUnknown):
        asyncio.run(bench.serve(ask(model="q")))
    assert bench.asked == []
    assert bench.tally.model == "unknown"


def test_an_alias_opens_the_group_behind_it() -> None:
    assert names(ask(model="short"), Caller("web", models=("short",))) == ["p"]


def test_wishes_are_kept_to_on_the_way() -> None:
    bench = Bench({"m-target": [Kind.UNREACHABLE], "p-target": [OK]}, ring=rings()[0])
    bench.rings |= {ring.model: ring for ring in rings()}
    asyncio.run(bench.serve(ask(wishes={"fallbacks": ("p",)})))
    assert bench.asked == ["m-target", "p-target"]
    alone = Bench({"m-target": [Kind.OVERSIZED]}, ring=rings()[0])
    with pytest.raises(ProxyError) as caught:
        asyncio.run(alone.serve(ask(wishes={"disable_fallbacks": True})))
    assert caught.value.status == 400
    assert alone.asked == ["m-target"]


def test_names_under_a_wildcard_are_counted_under_its_pattern() -> None:
    bench = Bench({"star/openai/*": [OK]})
    star = replace(group("gpt-*", target("star/openai/*", model="*")))
    snapshot = Snapshot(wildcards=(Wildcard("gpt-*", star),), fallbacks=Fallbacks())
    asyncio.run(bench.gateway.serve(ask(model="gpt-invented"), ANYBODY, snapshot, bench.tally))
    assert bench.upstream.calls[0].target.model == "invented"
    assert bench.tally.model == "gpt-*"


# Whole answers


def test_a_completion_comes_back_as_it_is_with_its_usage_in_the_tally() -> None:
    bench = Bench({"a": [OK]})
    reply = asyncio.run(bench.serve())
    assert isinstance(reply, Completion)
    assert reply.body is OK
    found = bench.tally.usage
    assert found is not None
    assert (found.prompt_tokens, found.completion_tokens) == (7, 3)
    assert (bench.tally.outcome, bench.tally.status) == ("ok", 200)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": 2}, "7"])
def test_an_answer_without_a_usable_usage_is_delivered_all_the_same(usage: object) -> None:
    body = {**OK, "usage": usage}
    bench = Bench({"a": [body]})
    reply = asyncio.run(bench.serve())
    assert isinstance(reply, Completion)
    assert reply.body is body
    found = bench.tally.usage
    assert found is not None
    assert found.estimated, "our own count, and marked so"
    assert found.completion_tokens == 1


@pytest.mark.parametrize(
    ("script", "status", "outcome"),
    [
        (Fails(Kind.CALLER, 422, code="their_code"), 422, "refused"),
        (Kind.UNREACHABLE, 503, "no_target_available"),
        (limited(30.0), 429, "rate_limit_exceeded"),
        (Kind.CREDENTIAL, 502, "provider_auth_error"),
        (Kind.SILENT, 504, "deadline_exceeded"),
        (Fails(Kind.MISSING, 404), 404, "model_not_found"),
    ],
)
def test_a_failed_request_ends_with_one_outcome_out_of_a_closed_set(
    script: Any, status: int, outcome: str
) -> None:
    bench = Bench({"a": [script]})
    with pytest.raises(ProxyError) as caught:
        asyncio.run(bench.serve())
    assert caught.value.status == status
    assert (bench.tally.outcome, bench.tally.status) == (outcome, status)
    assert bench.value("mobius_in_flight_requests") == 0


def test_a_bug_of_ours_is_counted_as_one() -> None:
    bench = Bench({})
    bench.ring = bench.rings["m"] = ring("a")
    with pytest.raises(AssertionError):
        asyncio.run(bench.serve())
    assert (bench.tally.outcome, bench.tally.status) == ("internal_error", 500)
    assert [line["outcome"] for line in lines(bench)] == ["internal_error"]
    assert bench.value("mobius_in_flight_requests") == 0


# Streams


def test_a_stream_is_settled_before_its_reader_hears_that_it_ended() -> None:
    bench = Bench({"a": [list(STREAM)]})

    async def main() -> None:
        reply = await bench.serve(ask(stream=True))
        assert isinstance(reply, ChunkStream)
        chunks = [await anext(reply) for _ in STREAM[:-1]]
        assert sent(chunks) == STREAM[:-1]
        assert bench.value("mobius_in_flight_requests") == 1, "it may still break"
        assert bench.log_lines == []
        assert [chunk async for chunk in reply if chunk.raw] == []
        assert len(bench.log_lines) == 1
        await reply.aclose()
        await reply.aclose()

    asyncio.run(main())
    assert bench.tally.outcome == "ok"
    assert bench.tally.usage is not None
    assert bench.tally.usage.completion_tokens == 3
    assert len(bench.log_lines) == 1
    assert bench.value("mobius_request_seconds_count") == 1
    assert bench.value("mobius_in_flight_requests") == 0


def test_a_usage_that_was_asked_for_is_shown() -> None:
    bench = Bench({"a": [list(STREAM)]})
    assert asyncio.run(bench.read(ask(stream=True, wants_usage=True))) == STREAM
    assert bench.tally.usage is not None


def test_a_fallback_before_the_first_content_is_invisible() -> None:
    bench = Bench({"a": [[role(), Kind.TRANSIENT]] * 2, "b": [list(STREAM)]})
    assert asyncio.run(bench.read()) == STREAM[:-1]
    assert bench.tally.trail == ["a:transient", "a:transient", "b:200"]
    assert (bench.tally.outcome, bench.tally.target) == ("ok", "b")


def test_a_stream_that_breaks_after_content_is_an_upstream_error() -> None:
    bench = Bench({"a": [[delta("t0"), Kind.TRANSIENT]]})
    with pytest.raises(ProxyError) as caught:
        asyncio.run(bench.read())
    assert caught.value.code == "upstream_error"
    assert (bench.tally.outcome, bench.tally.trail) == ("upstream_error", ["a:200"])
    assert bench.value("mobius_attempt_seconds_count", outcome="broken") == 1
    assert bench.value("mobius_in_flight_requests") == 0
    assert bench.blamed("a")


@pytest.mark.parametrize("read_chunks", [0, 1, 3])
def test_a_reader_who_leaves_ends_the_upstream_call_and_blames_nobody(read_chunks: int) -> None:
    bench = Bench({"a": [list(STREAM)]}, breaker={"failures": 1, "min_calls": 1})

    async def main() -> None:
        reply = await bench.serve(ask(stream=True))
        assert isinstance(reply, ChunkStream)
        for _ in range(read_chunks):
            await anext(reply)
        await reply.aclose()
        assert bench.upstream.sources[0].closed == 1, "at once, and not when it is collected"

    asyncio.run(main())
    (source,) = bench.upstream.sources
    assert source.given < len(STREAM)
    assert bench.tally.outcome == "cancelled"
    assert bench.value("mobius_request_seconds_count", outcome="cancelled") == 1
    assert bench.value("mobius_attempt_seconds_count", outcome="cancelled") == 1
    assert bench.value("mobius_in_flight_requests") == 0
    assert not bench.blamed("a")
    assert bench.away_s("a") == 0.0


def test_a_reader_who_is_cancelled_while_waiting_settles_all_the_same() -> None:
    gate = Gate()
    bench = Bench({"a": [[delta("t0"), gate, finish()]]})

    async def main() -> None:
        await gate.cancel(bench.read())
        assert bench.upstream.sources[0].closed == 1

    asyncio.run(main())
    assert bench.tally.outcome == "cancelled"
    assert bench.value("mobius_in_flight_requests") == 0
    assert len(bench.log_lines) == 1


def test_a_caller_who_leaves_before_the_answer_cancels_the_call_and_blames_nobody() -> None:
    gate = Gate()
    bench = Bench({"a": [(gate, OK)]}, breaker={"failures": 1, "min_calls": 1})

    async def main() -> None:
        asking = asyncio.create_task(bench.serve())
        await gate.reached.wait()
        assert bench.value("mobius_in_flight_requests") == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(main())
    assert (bench.tally.outcome, bench.tally.trail) == ("cancelled", ["a:cancelled"])
    assert bench.value("mobius_in_flight_requests") == 0
    assert not bench.blamed("a")


def test_a_caller_who_leaves_before_the_first_content_closes_the_upstream() -> None:
    gate = Gate()
    bench = Bench({"a": [[role(), gate, delta("t0")]]})

    async def main() -> None:
        await gate.cancel(bench.serve(ask(stream=True)))
        assert bench.upstream.sources[0].closed == 1

    asyncio.run(main())
    assert bench.value("mobius_in_flight_requests") == 0


def test_a_caller_who_leaves_during_a_wait_leaves_nothing_behind() -> None:
    bench = Bench({"a": [limited(1.0)]})

    async def main() -> None:
        forever, waiting = asyncio.Event(), asyncio.Event()

        async def meanwhile() -> None:
            waiting.set()
            await forever.wait()

        bench.clock.meanwhile = meanwhile
        asking = asyncio.create_task(bench.serve())
        await waiting.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(main())
    assert bench.value("mobius_in_flight_requests") == 0
    assert (bench.tally.outcome, bench.tally.retries) == ("cancelled", 0)


def test_time_spent_waiting_for_a_stream_is_the_providers_and_not_ours() -> None:
    bench = Bench({"a": [[Passes(2.0), delta("t0"), Passes(3.0), delta("t1"), finish()]]})
    asyncio.run(bench.read())
    assert bench.tally.upstream_s == 5.0
    assert bench.value("mobius_overhead_seconds_sum") == 0.0
    assert bench.value("mobius_request_seconds_sum") == 5.0


def test_time_spent_on_a_reader_who_is_slow_is_not_ours() -> None:
    bench = Bench({"a": [list(STREAM)]})

    async def send(message: Message) -> None:
        bench.clock.pass_(0.25)
        asyncio.get_running_loop().call_soon(bench.clock.pass_, 4.0)
        await asyncio.sleep(0)

    async def main() -> None:
        reply = await bench.serve(ask(stream=True))
        assert isinstance(reply, ChunkStream)
        log = Log(bench.log_lines.append, bench.clock)
        await Outbound(send, bench.tally, clock=bench.clock, log=log).stream(reply)

    asyncio.run(main())
    messages = 1 + (len(STREAM) - 1) + 1  # the start, `[DONE]`, and no usage: nobody asked for it
    assert bench.tally.waits_s == messages * 4.0
    before_the_last = messages - 1  # by then it is on record
    assert bench.value("mobius_overhead_seconds_sum") == before_the_last * 0.25
    assert bench.value("mobius_request_seconds_sum") == before_the_last * 4.25


def test_a_stream_that_a_pulse_has_opened_does_not_say_what_nobody_knows_yet() -> None:
    bench = Bench({})
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == 2:
            raise asyncio.CancelledError

    async def main() -> None:
        log = Log(bench.log_lines.append, bench.clock)
        with pytest.raises(asyncio.CancelledError):
            await Outbound(send, bench.tally, clock=bench.clock, log=log).pulse(15.0)

    asyncio.run(main())
    names = {name for name, _ in sent[0]["headers"]}
    assert b"x-request-id" in names
    assert b"x-mobius-overhead-ms" not in names


def test_a_request_keeps_the_configuration_it_began_with() -> None:
    gate = Gate()
    bench = Bench({"a": [(gate, Kind.UNREACHABLE)], "b": [OK]})

    async def main() -> None:
        asking = asyncio.create_task(bench.serve())
        await gate.reached.wait()
        bench.rings.clear()
        bench.policy = MobiusPolicy(deadline=0.001)
        gate.opened.set()
        await asking

    asyncio.run(main())
    assert bench.asked == ["a", "b"]


# The log


def lines(bench: Bench) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in bench.log_lines]


def test_every_request_is_one_line_at_its_end() -> None:
    bench = Bench({"a": [OK, Kind.CREDENTIAL, list(STREAM)], "b": [Kind.UNREACHABLE]})
    asyncio.run(bench.serve())
    with pytest.raises(NoTargetAvailable):
        asyncio.run(bench.serve())
    bench.clock.pass_(400)
    asyncio.run(bench.read())
    assert [line["outcome"] for line in lines(bench)] == ["ok", "no_target_available", "ok"]
    assert lines(bench)[1]["attempts"] == ["a:credential", "b:unreachable"]
    assert lines(bench)[1]["status"] == 503
    assert lines(bench)[2]["completion_tokens"] == 3


def test_no_prompt_and_no_key_reaches_the_log_the_metrics_or_the_reprs() -> None:
    secret = target("a", params={"api_key": "sk-very-secret"})
    bench = Bench({"a": [Kind.TRANSIENT, OK]}, ring=ring(secret))
    call = ask(body={"user": "the person"})
    asyncio.run(bench.serve(call))
    shown = b"".join(bench.log_lines) + bench.metrics.render() + repr((call, secret)).encode()
    for word in (b"the prompt", b"the person", b"sk-very-secret"):
        assert word not in shown
