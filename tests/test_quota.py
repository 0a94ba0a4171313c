"""What a request may use: admitted, set aside, settled and recorded, whatever becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from proxy.allowance import Allowances
from proxy.errors import (
    BudgetSpent,
    LimitReached,
    PriceUnknown,
    ProxyError,
    QuotaUnavailable,
    RateLimited,
    TooManyTokens,
)
from proxy.facts import ModelFacts, Price, Rates
from proxy.limits import Claim, Limit, Refusal, Scope, ScopeKind, Unit, Window
from proxy.policy import BudgetUsd, Limits
from proxy.replies import ChunkStream, Completion
from proxy.retry import Kind
from proxy.snapshot import Snapshot
from proxy.store import MOST_AMOUNT
from proxy.store.memory import MemoryStore
from proxy.store.port import Standings, StoreUnavailable
from proxy.types import Caller, Target
from tests.fakes import (
    UNLIMITED,
    Bench,
    Gate,
    answer,
    ask,
    delta,
    finish,
    ring,
    role,
    target,
    usage,
)

OK = answer(7, 3)
STREAM = [role(), delta("t0 "), delta("t1 "), finish(), usage(7, 3)]
WEB = Caller("web", team="product")
PRICE = Price((Rates(prompt=1_000_000, completion=2_000_000),))  # 1 and 2 micro-dollars a token
KEY = Scope(ScopeKind.KEY, "web")
TPD = Limit(KEY, Unit.TOKENS, Window.DAY, 10**9, "tpd")
PARALLEL = Limit(KEY, Unit.PARALLEL, Window.NOW, 9, "max_parallel")
NANO = Limit(KEY, Unit.NANO_USD, Window.TOTAL, 10**12, "budget_usd.total")


def of_key(**limits: Any) -> Allowances:
    return Allowances(keys={"web": Limits(**limits)})


def budget(usd: float) -> Allowances:
    return of_key(budget_usd=BudgetUsd(total=usd))


def priced(label: str = "a", *, known: int | None = 100, **facts: Any) -> Target:
    return target(label, facts=ModelFacts(PRICE, 10_000, known), **facts)


def bench(*steps: Any, allowances: Allowances = UNLIMITED, **facts: Any) -> Bench:
    given = facts.pop("ring", None) or ring(priced())
    return Bench({"a": steps}, ring=given, allowances=allowances, **{"num_retries": 0, **facts})


def serve(bench: Bench, **facts: Any) -> Completion:
    reply = asyncio.run(bench.serve(ask(**facts), WEB))
    assert isinstance(reply, Completion)
    return reply


def refused(bench: Bench, kind: type[ProxyError] = LimitReached, **facts: Any) -> ProxyError:
    with pytest.raises(kind) as caught:
        asyncio.run(bench.serve(ask(**facts), WEB))
    return caught.value


def used(bench: Bench, *limits: Limit) -> list[int]:
    standings = asyncio.run(bench.store.standings(limits))
    return [each.used for each in standings]


# The row of an attempt


def test_an_attempt_has_one_row_opened_before_its_call_and_closed_with_what_it_took() -> None:
    place = bench(OK)
    serve(place, tags=("agent=planner",), body={"user": "ann", "max_tokens": 10})
    (row,), (end,) = place.ledger.opened, place.ledger.closed
    assert (row.request_id, row.attempt, row.key, row.team, row.user) == (
        "req-1",
        1,
        "web",
        "product",
        "ann",
    )
    assert (row.model, row.target, row.tags) == ("m", "a", ("agent=planner",))
    assert row.completion_tokens == 10
    assert end.id == row.id
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (7, 3)
    assert (end.nano_usd, end.outcome, end.answered) == (13_000, "ok", True)


def test_every_physical_call_has_a_row_of_its_own_and_one_of_them_answered() -> None:
    place = Bench(
        {"a": [Kind.TRANSIENT, Kind.TRANSIENT], "b": [OK]},
        ring=ring(priced("a"), priced("b")),
        num_retries=1,
    )
    serve(place)
    assert [(row.target, row.attempt) for row in place.ledger.opened] == [
        ("a", 1),
        ("a", 2),
        ("b", 3),
    ]
    assert [row.outcome for row in place.ledger.closed] == ["transient", "transient", "ok"]
    assert [row.answered for row in place.ledger.closed] == [False, False, True]
    assert place.ledger.admitted == ["web"]
    assert len({row.id for row in place.ledger.opened}) == 3


def test_two_requests_with_the_same_id_of_the_callers_are_two() -> None:
    place = bench(OK, OK)
    serve(place)
    serve(place)
    assert len({row.id for row in place.ledger.opened}) == 2


def test_a_model_is_recorded_by_the_name_that_was_asked_for() -> None:
    under = replace(ring(priced()), pattern="gpt-*")
    place = bench(OK, ring=under)
    concrete = tuple(replace(each, name="gpt-5") for each in under.groups)
    place.rings["gpt-5"] = replace(under, model="gpt-5", groups=concrete)
    serve(place, model="gpt-5")
    assert place.ledger.opened[0].model == "gpt-5"
    assert place.tally.model == "gpt-*"


def test_a_request_without_an_attempt_is_counted_all_the_same() -> None:
    place = bench(allowances=of_key(tpm=5))
    refused(place)
    assert (place.ledger.opened, place.ledger.admitted) == ([], ["web"])


def test_who_is_not_let_in_is_not_counted() -> None:
    place = bench(allowances=of_key(rpm=0))
    refused(place)
    assert place.ledger.admitted == []


# Streams


def test_a_stream_keeps_its_place_and_its_reservation_until_it_closes() -> None:
    place = bench(STREAM, allowances=of_key(tpd=10**9, max_parallel=9))

    async def main() -> None:
        reply = await place.serve(ask(stream=True, body={"max_tokens": 10}), WEB)
        assert isinstance(reply, ChunkStream)
        tokens, places = await place.store.standings([TPD, PARALLEL])
        assert tokens.used == place.ledger.opened[0].prompt_tokens + 10
        assert places.used == 1
        async for _ in reply:
            pass
        standings = await place.store.standings([TPD, PARALLEL])
        assert [each.used for each in standings] == [10, 0]
        assert place.ledger.closed[0].outcome == "ok"

    asyncio.run(main())


def test_who_leaves_midway_pays_for_what_was_seen() -> None:
    place = bench(STREAM, allowances=of_key(tpd=10**9, max_parallel=9))

    async def main() -> None:
        reply = await place.serve(ask(stream=True), WEB)
        assert isinstance(reply, ChunkStream)
        await anext(reply)
        await anext(reply)
        await reply.aclose()

    asyncio.run(main())
    (end,) = place.ledger.closed
    assert (end.outcome, end.answered, end.usage.estimated) == ("cancelled", False, True)
    assert end.usage.completion_tokens == 1
    assert used(place, TPD, PARALLEL) == [end.usage.prompt_tokens + 1, 0]


def test_who_leaves_before_the_answer_gives_all_of_it_back() -> None:
    gate = Gate()
    place = bench((gate, OK), allowances=of_key(tpd=10**9, max_parallel=9, rpm=9))

    async def main() -> None:
        task = asyncio.create_task(place.serve(ask(), WEB))
        await gate.reached.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert [row.outcome for row in place.ledger.closed] == ["cancelled"]
    assert used(place, TPD, PARALLEL) == [0, 0]
    assert place.ledger.admitted == ["web"]


# A file that is edited meanwhile


@pytest.mark.parametrize("by", ["the reload", "the next request"])
def test_a_limit_that_comes_with_an_edit_sees_what_is_under_way(by: str) -> None:
    place = bench(STREAM, STREAM, STREAM, allowances=UNLIMITED)

    async def main() -> None:
        first = await place.serve(ask(stream=True, body={"max_tokens": 50}), WEB)
        assert isinstance(first, ChunkStream)
        row = place.ledger.opened[0]
        held = row.prompt_tokens + 50
        place.allowances = of_key(tpd=held + 60, max_parallel=2, budget_usd=BudgetUsd(total=1))
        if by == "the reload":
            place.quota.follow(place._snapshot())
            standings = await place.store.standings([TPD, PARALLEL, NANO])
            assert [each.used for each in standings] == [held, 1, row.nano_usd]
        with pytest.raises(LimitReached, match="tpd"):
            await place.serve(ask(stream=True, body={"max_tokens": 50}), WEB)
        second = await place.serve(ask(stream=True, body={"max_tokens": 1}), WEB)
        with pytest.raises(LimitReached, match="max_parallel"):
            await place.serve(ask(stream=True, body={"max_tokens": 1}), WEB)
        for each in (first, second):
            assert isinstance(each, ChunkStream)
            await each.aclose()
        standings = await place.store.standings([TPD, PARALLEL])
        assert [each.used for each in standings] == [
            sum(
                end.usage.prompt_tokens + end.usage.completion_tokens for end in place.ledger.closed
            ),
            0,
        ]

    asyncio.run(main())


def test_an_attempt_that_begins_after_an_edit_counts_under_the_limits_that_it_brought() -> None:
    gate = Gate()
    place = Bench(
        {"a": [(gate, Kind.TRANSIENT)], "b": [STREAM]},
        ring=ring(priced("a"), priced("b")),
        num_retries=0,
    )

    async def main() -> None:
        task = asyncio.create_task(place.serve(ask(stream=True, body={"max_tokens": 50}), WEB))
        await gate.reached.wait()
        place.allowances = of_key(tpd=60, max_parallel=9)
        place.quota.follow(place._snapshot())
        place.quota.follow(Snapshot())  # another such edit, and back: nothing counts twice
        place.quota.follow(place._snapshot())
        gate.opened.set()
        reply = await task
        assert isinstance(reply, ChunkStream)
        row = place.ledger.opened[-1]
        assert row.target == "b"
        standings = await place.store.standings([TPD, PARALLEL])
        assert [each.used for each in standings] == [row.prompt_tokens + 50, 1]
        await reply.aclose()

    asyncio.run(main())


def test_a_limit_that_an_edit_gives_a_deployment_sees_the_calls_under_way() -> None:
    place = bench(STREAM, STREAM, STREAM, ring=ring(priced("a")))

    async def main() -> None:
        first = await place.serve(ask(stream=True, body={"max_tokens": 50}), WEB)
        assert isinstance(first, ChunkStream)
        held = place.ledger.opened[0].prompt_tokens + 50
        limited = priced("a", tpm=held + 60, max_parallel=2, rpm=9)
        place.rings = {name: ring(limited) for name in place.rings}
        for _ in range(2):  # told twice it counts once
            place.allowances = of_key(rpm=99)
            place.quota.follow(place._snapshot())
        scope = Scope(ScopeKind.TARGET, limited.identity)
        tokens = Limit(scope, Unit.TOKENS, Window.MINUTE, held + 60, "tpm")
        places = Limit(scope, Unit.PARALLEL, Window.NOW, 2, "max_parallel_requests")
        standings = await place.store.standings([tokens, places])
        assert [each.used for each in standings] == [held, 1]
        with pytest.raises(ProxyError, match="is rate limited"):
            await place.serve(ask(stream=True, body={"max_tokens": 50}), WEB)
        await first.aclose()
        (row,) = place.ledger.closed
        standings = await place.store.standings([tokens, places])
        assert [each.used for each in standings] == [
            row.usage.prompt_tokens + row.usage.completion_tokens,
            0,
        ]

    asyncio.run(main())


def test_only_limits_of_requests_that_are_in_force_no_more_are_forgotten() -> None:
    place = bench(*[OK] * 3, allowances=of_key(rpd=9, rpm=9, tpd=10**9))
    limits = [Limit(KEY, Unit.REQUESTS, window, 9, "x") for window in (Window.DAY, Window.MINUTE)]
    serve(place)
    place.ledger.past = 5
    place.allowances = of_key(rpm=8)
    serve(place)
    place.allowances = of_key(rpd=9, rpm=9, tpd=10**9)
    assert used(place, *limits, TPD) == [5, 2, 20]


def test_a_request_that_comes_with_the_file_before_is_under_that_file() -> None:
    place = bench(OK, OK, allowances=of_key(rpm=1))
    old, place.allowances = replace(place._snapshot(), generation=1), UNLIMITED
    place.quota.follow(replace(place._snapshot(), generation=2))
    tally = place.tally
    late = place.quota.admit(ask(), WEB, old, tally)
    assert [limit.word for limit in late._admission.allowance.admission] == ["rpm"]
    serve(place)


# What is set aside


@pytest.mark.parametrize(
    ("body", "known", "tokens", "sent"),
    [
        ({"max_tokens": 10}, 100, 10, None),
        ({}, 100, 100, None),
        ({}, None, 64, 64),
        ({"n": 3}, None, 192, 64),
        ({"n": 3.0}, None, 192, 64),
        ({"max_tokens": None}, None, 64, 64),
    ],
)
def test_an_answer_is_bounded_by_the_request_the_model_or_the_default(
    body: dict[str, Any], known: int | None, tokens: int, sent: int | None
) -> None:
    place = bench(
        OK,
        allowances=of_key(tpd=10**9),
        ring=ring(priced(known=known)),
        quota={"default_max_tokens": 64},
    )
    serve(place, body=body)
    assert place.ledger.opened[0].completion_tokens == tokens
    assert place.upstream.calls[0].call.body.get("max_completion_tokens") == sent


def test_nothing_is_added_to_a_request_that_no_limit_counts_the_tokens_of() -> None:
    place = bench(OK, allowances=of_key(rpm=9, max_parallel=9), ring=ring(priced(known=None)))
    serve(place)
    assert "max_completion_tokens" not in place.upstream.calls[0].call.body


def test_another_provider_is_told_the_bound_by_its_older_name() -> None:
    anthropic = priced(known=None, provider="anthropic")
    place = bench(OK, allowances=of_key(max_tokens_per_request=50), ring=ring(anthropic))
    serve(place)
    body = place.upstream.calls[0].call.body
    assert (body.get("max_tokens"), body.get("max_completion_tokens")) == (50, None)


def test_what_the_file_says_for_a_body_bounds_it_and_no_more_than_the_key_may() -> None:
    defaults = {"max_tokens": 40}
    place = bench(
        OK, allowances=of_key(tpd=10**9), ring=ring(priced(known=None, defaults=defaults))
    )
    serve(place)
    assert place.ledger.opened[0].completion_tokens == 40
    assert "max_completion_tokens" not in place.upstream.calls[0].call.body
    least = of_key(max_tokens_per_request=30)
    place = bench(OK, allowances=least, ring=ring(priced(known=None, defaults=defaults)))
    serve(place)
    assert place.upstream.calls[0].call.body["max_completion_tokens"] == 30


def test_a_body_that_names_a_bound_without_a_number_is_not_bounded_by_the_files() -> None:
    # `upstream/arguments.py` leaves the file's away then, so it bounds nothing.
    made = ring(priced(known=None, defaults={"max_completion_tokens": 40}))
    place = bench(OK, allowances=of_key(tpd=10**9), ring=made)
    serve(place, body={"max_tokens": None})
    assert place.upstream.calls[0].call.body["max_completion_tokens"] == 4096


def test_money_is_set_aside_for_the_longest_prompt_and_answer_there_can_be() -> None:
    place = bench(OK, allowances=budget(1000))
    call = ask(body={"max_tokens": 10}, size_bytes=500)
    asyncio.run(place.serve(call, WEB))
    assert place.ledger.opened[0].nano_usd == (500 + 100) * 1000 + 10 * 2000
    assert used(place, NANO) == [13_000]


@pytest.mark.parametrize("body", [{"max_tokens": 10**12}, {"max_tokens": 2**63, "n": 2**63}])
def test_who_asks_for_more_than_there_is_hears_it_of_the_provider_or_of_its_limits(
    body: dict[str, Any],
) -> None:
    place = bench(OK, ring=ring(priced(known=100)))
    serve(place, body=body)
    opened = place.ledger.opened[0]
    assert 0 < opened.completion_tokens <= MOST_AMOUNT
    assert opened.nano_usd == MOST_AMOUNT  # else the ledger takes no such row
    assert place.upstream.calls[0].call.body == {**ask(body=body).body}
    for limits in (of_key(tpd=10**9), budget(1000)):
        place = bench(OK, allowances=limits, ring=ring(priced(known=100)))
        with pytest.raises(LimitReached):
            serve(place, body=body)
        assert place.upstream.calls == []


# Refusals


def test_tokens_that_do_not_fit_are_refused_and_nobody_is_asked() -> None:
    place = bench(allowances=of_key(tpm=50))
    error = refused(place, body={"max_tokens": 50})
    assert (error.status, error.type, error.should_retry) == (429, "tokens", False)
    assert place.asked == []
    assert place.value("mobius_quota_refused_total", scope="key", limit="tpm") == 1
    assert place.tally.tokens_left is not None
    assert place.tally.tokens_left.remaining == 50


def test_a_budget_that_is_spent_is_told_as_openai_does() -> None:
    place = bench(OK, allowances=budget(0.00025))
    serve(place, body={"max_tokens": 1}, size_bytes=100)
    error = refused(place, BudgetSpent, body={"max_tokens": 10}, size_bytes=120)
    assert (error.code, error.should_retry, error.retry_after_s) == (
        "insufficient_quota",
        False,
        None,
    )


def test_a_budget_is_never_exceeded_by_what_was_foreseen() -> None:
    place = bench(*[answer(100, 10)] * 50, allowances=budget(0.001))
    served = 0
    for _ in range(50):
        try:
            serve(place, body={"max_tokens": 10}, size_bytes=20)
            served += 1
        except BudgetSpent:
            pass
    assert used(place, NANO)[0] <= 1_000_000
    assert served == 1_000_000 // 120_000


def test_more_tokens_than_one_request_may_ask_for_are_the_callers_mistake() -> None:
    place = bench(allowances=of_key(max_tokens_per_request=50))
    assert refused(place, TooManyTokens, body={"max_tokens": 51}).param == "max_tokens"
    assert place.ledger.admitted == []


def test_a_target_without_a_price_is_not_for_who_has_a_budget() -> None:
    place = bench(allowances=budget(1), ring=ring("a"))
    error = refused(place, PriceUnknown)
    assert (error.status, place.asked) == (403, [])
    assert not place.blamed("a")


def test_a_target_with_a_price_is_asked_instead_of_one_without() -> None:
    place = Bench(
        {"a": [], "b": [OK]},
        ring=ring(target("a"), priced("b")),
        allowances=budget(1),
    )
    serve(place)
    assert place.asked == ["b"]


def test_a_target_without_a_price_may_be_free() -> None:
    place = bench(OK, allowances=budget(1), ring=ring("a"), quota={"unknown_price": "free"})
    serve(place)
    assert place.ledger.closed[0].nano_usd is None
    assert used(place, NANO) == [0]


def test_without_a_budget_no_price_has_to_be_known() -> None:
    serve(bench(OK, allowances=of_key(tpm=10**6), ring=ring("a")))


# Limits of a deployment


def test_a_deployment_that_is_full_is_passed_over_and_nobody_is_blamed() -> None:
    place = Bench(
        {"a": [OK], "b": [OK, OK]},
        ring=ring(priced("a", rpm=1), priced("b")),
    )
    for _ in range(3):
        serve(place)
    assert place.asked == ["a", "b", "b"]
    assert not place.blamed("a")
    assert place.tally.requests_left is None


def test_when_every_deployment_is_full_the_caller_hears_when_the_first_is_free() -> None:
    place = bench(OK, ring=ring(priced(rpm=1)), laps=1)
    serve(place)
    place.clock.pass_(20)
    error = refused(place, RateLimited)
    assert error.retry_after_s == pytest.approx(40)


# The store or the ledger in trouble


@pytest.mark.parametrize("policy", ["leased", "closed"])
def test_no_call_is_made_that_is_not_recorded(policy: str) -> None:
    place = bench(OK, allowances=of_key(tpd=10**9, rpd=9), quota={"on_store_failure": policy})
    place.ledger.broken = True
    error = refused(place, QuotaUnavailable)
    assert (error.status, error.code, place.asked) == (503, "quota_unavailable", [])
    assert used(place, TPD) == [0]
    assert not place.blamed("a")
    place.ledger.broken = False
    serve(place)


def test_a_request_that_could_not_be_recorded_is_counted_once_it_can_be() -> None:
    place = bench(OK, allowances=of_key(rpd=9))
    place.ledger.broken = True
    refused(place, QuotaUnavailable)
    assert place.ledger.admitted == ["web"]
    place.ledger.broken = False
    serve(place)
    assert place.ledger.admitted == ["web", "web"]


def test_an_open_policy_lets_calls_through_that_nobody_records() -> None:
    place = bench(OK, allowances=of_key(tpd=10**9), quota={"on_store_failure": "open"})
    place.ledger.broken = True
    serve(place)
    assert place.asked == ["a"]
    assert used(place, TPD) == [10]


class Unreachable(MemoryStore):
    """A store of which nobody knows what is left."""

    async def admit(self, id: str, limits: Sequence[Limit]) -> Standings | Refusal:
        raise StoreUnavailable("it does not answer")

    async def reserve(
        self, id: str, claims: Sequence[Claim], scopes: Sequence[Scope]
    ) -> Standings | Refusal:
        raise StoreUnavailable("it does not answer")

    async def standings(self, limits: Sequence[Limit]) -> Standings:
        raise StoreUnavailable("it does not answer")


@pytest.mark.parametrize(("policy", "asked"), [("leased", []), ("closed", []), ("open", ["a"])])
def test_while_nobody_knows_what_is_left_the_policy_decides(policy: str, asked: list[str]) -> None:
    place = bench(OK, allowances=of_key(rpm=9, tpd=10**9), quota={"on_store_failure": policy})
    place.use(Unreachable(place.clock, place.ledger))
    if asked:
        serve(place)
        assert [row.outcome for row in place.ledger.closed] == ["ok"]
    else:
        assert refused(place, QuotaUnavailable).retry_after_s == 1.0
    assert place.asked == asked
    assert place.ledger.admitted == ["web"] * len(asked)


def test_who_asks_for_too_much_hears_that_though_nobody_knows_what_is_left() -> None:
    place = bench(allowances=of_key(rpm=9, max_tokens_per_request=5))
    place.use(Unreachable(place.clock, place.ledger))
    refused(place, TooManyTokens, body={"max_tokens": 6})
    assert place.tally.requests_left is None


def test_an_attempt_that_was_not_recorded_gives_its_reservation_back() -> None:
    gate = Gate()
    place = Bench(
        {"a": [(gate, Kind.UNREACHABLE)], "b": []},
        ring=ring(priced("a"), priced("b")),
        allowances=of_key(tpd=10**9, max_parallel=5),
    )

    async def main() -> None:
        serving = asyncio.create_task(place.serve(ask(), WEB))
        await gate.reached.wait()
        place.ledger.broken = True
        gate.opened.set()
        with pytest.raises(QuotaUnavailable):
            await serving

    asyncio.run(main())
    assert used(place, TPD, PARALLEL) == [0, 0]


def test_every_failure_of_the_ring_releases_what_it_had_set_aside() -> None:
    for kind in Kind:
        place = bench(kind, allowances=of_key(tpd=10**9, max_parallel=5), laps=1)
        with pytest.raises(ProxyError):
            asyncio.run(place.serve(ask(), WEB))
        assert used(place, TPD, PARALLEL)[1] == 0
        if kind is not Kind.BROKEN:
            assert used(place, TPD) == [0]


# What is told on the way out


def test_who_is_refused_hears_how_all_of_its_limits_stand() -> None:
    limits = of_key(rpm=1, tpm=10_000, max_tokens_per_request=50)
    place = bench(OK, allowances=limits)
    serve(place, body={"max_tokens": 10})
    for kind, tokens in ((LimitReached, 10), (TooManyTokens, 51)):
        refused(place, kind, body={"max_tokens": tokens})
        left, of_tokens = place.tally.requests_left, place.tally.tokens_left
        assert left is not None
        assert of_tokens is not None
        assert (left.remaining, of_tokens.remaining) == (0, 9990)


def test_what_is_left_is_told_of_the_tightest_limit() -> None:
    place = bench(
        OK,
        allowances=Allowances(
            keys={"web": Limits(rpm=100, rpd=5, tpm=10**6)},
            teams={"product": Limits(tpd=10**5)},
        ),
    )
    serve(place, body={"max_tokens": 10})
    left, tokens = place.tally.requests_left, place.tally.tokens_left
    assert left is not None
    assert tokens is not None
    assert (left.limit.word, left.remaining) == ("rpd", 4)
    assert (tokens.limit.word, tokens.used) == ("tpd", 10)


def test_a_call_that_outlives_its_request_is_no_second_request() -> None:
    place = bench(OK)

    async def main() -> None:
        async with place.quota.admit(ask(), WEB, place._snapshot(), place.tally) as admission:
            pass
        async with place.quota.reserve(admission, target("a")):
            pass

    asyncio.run(main())
    assert (place.ledger.admitted, len(place.ledger.opened)) == (["web"], 1)
