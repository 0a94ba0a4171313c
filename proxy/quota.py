"""
What a request may use: admitted once, set aside before each attempt, settled when it closes.

The unit of account is the attempt, a physical call: each has a reservation in the store and a row
in the ledger under one id, and both are settled exactly once, whatever becomes of the call. When
the store or the ledger cannot be reached, `mobius.quota.on_store_failure` decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from proxy import refusals, sound
from proxy.admission import Admission, Admitting, Reserving
from proxy.allowance import Allowance, Allowances
from proxy.errors import QuotaUnavailable, TooManyTokens
from proxy.estimate import (
    BOUNDS,
    FREE,
    Answers,
    PromptRates,
    answers_to,
    prompt_most,
)
from proxy.headroom import Headroom
from proxy.ids import Ids
from proxy.leeway import Need
from proxy.limits import NOTHING, Claim, Limit, Refusal, Scope, ScopeKind, Spent, Unit, Window
from proxy.metrics import Metrics
from proxy.pricing import bound_nano_usd
from proxy.reservation import OK, Reservation, model_of
from proxy.snapshot import Snapshot
from proxy.store import MOST_AMOUNT, Closed, LedgerUnavailable, Opened, Records
from proxy.store.port import QuotaStore, Standings, StoreUnavailable
from proxy.types import Call, Caller, Json, Surface, Tally, Target

MOST_KNOWN = 10_000  # callers, users and models whose limits are remembered from the last request


class Quota:
    def __init__(
        self,
        store: QuotaStore,
        ledger: Records,
        metrics: Metrics,
        headroom: Headroom,
        rates: PromptRates | None = None,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._metrics = metrics
        self._headroom = headroom
        self._ids = Ids()
        self._rates = rates or PromptRates()
        self._allowances = Allowances()
        self._known: dict[tuple[str, str | None, str], Allowance] = {}

    def admit(
        self,
        call: Call,
        caller: Caller,
        snapshot: Snapshot,
        tally: Tally,
        *,
        counted_as: str | None = None,
    ) -> Admitting:
        """
        Let the request in, and give back its place when the block ends.

        `counted_as` is the model whose limits it is under, where that was asked for by an alias.
        Its beginning raises LimitReached, TooManyTokens, QuotaUnavailable.
        """
        model = counted_as or call.model
        admission = Admission(
            self._ids.next(),
            call=call,
            caller=caller,
            model=model,
            allowance=self._allowance(snapshot.allowances, caller, call.user, model),
            policy=snapshot.policy.quota,
            tally=tally,
            at=self._store.wall(),
        )
        return Admitting(self, admission)

    def reserve(self, admission: Admission, target: Target) -> Reserving:
        """
        Set aside what a call of `target` may take, and settle what it took when the block ends.

        Its beginning raises LimitReached and QuotaUnavailable; UpstreamFailure where another
        target may do.
        """
        return Reserving(self, admission, target)

    async def enter(self, admission: Admission) -> None:
        """Have the request counted and let in. Raises as `admit` does: then it holds nothing."""
        limits = admission.allowance.admission
        try:
            await self._check_tokens(admission)
            if limits:
                await self._let_in(self._store.admit(admission.id, limits), admission)
        except BaseException:
            if limits:
                await self._store.leave(admission.id)
            raise

    async def leave(self, admission: Admission) -> None:
        """Have a request that was let in recorded, and its place free."""
        if not admission.recorded:
            call, caller = admission.call, admission.caller
            self._ledger.admit(
                key=caller.name,
                team=caller.team or "",
                user=call.user or "",
                model=admission.model,
                at=admission.at,
            )
            admission.recorded = True  # a call that is shared may go on, and is no second one
        if admission.allowance.admission:
            await self._store.leave(admission.id)

    async def open(self, admission: Admission, target: Target) -> Reservation:
        """Return a reservation that stands in the store and in the ledger; raises as `reserve`."""
        reservation = self._sized(admission, target)
        claims = _claims(admission.allowance, reservation)
        scopes = (*admission.allowance.scopes, _scope_of(target))
        try:
            await self._let_in(self._store.reserve(reservation.id, claims, scopes), admission)
            await self._record(admission, reservation)
        except BaseException:
            await self._store.settle(reservation.id, NOTHING)
            raise
        return reservation

    def needs(self, admission: Admission) -> Callable[[Target], Need]:
        """Return what says how much the request may take of the limits of a target's provider."""
        # An answer whose length it does not bound is short, mostly: what it may be is no estimate.
        body, surface = admission.call.body, admission.call.surface
        answers = answers_to(body, known=None, default=0, most=None, surface=surface)

        def need(target: Target) -> Need:
            if surface in FREE or _is_wordless_sound(admission.call, target):
                return Need(1, 0, 0)
            tokens = answers.tokens
            if target.defaults and not answers.stated:
                filled = {**target.defaults, **body}
                tokens = answers_to(
                    filled, known=None, default=0, most=None, surface=surface
                ).tokens
            return Need(1, self._rates.typical(model_of(target), admission.size), tokens)

        return need

    async def _let_in(self, asked: Awaitable[Standings | Refusal], admission: Admission) -> None:
        try:
            answer = await asked
        except (StoreUnavailable, LedgerUnavailable) as exc:
            if admission.policy.on_store_failure == "open":
                return
            raise QuotaUnavailable(
                "the quota of this key cannot be looked up", retry_after_s=1.0
            ) from exc
        if isinstance(answer, Refusal):
            limit = answer.limit
            self._metrics.refused(limit)
            if limit.scope.kind is ScopeKind.TARGET:
                self._headroom.heard((answer.standing(),))
                raise refusals.target_full(answer)
            await self._tell_left(admission)
            admission.tally.note((answer.standing(),))
            raise refusals.limit_reached(answer)
        admission.tally.note(answer)
        # The limits of the target itself stand at the end, where it has any.
        if answer and answer[-1].limit.scope.kind is ScopeKind.TARGET:
            self._headroom.heard(answer)

    def _sized(self, admission: Admission, target: Target) -> Reservation:
        call, allowance, policy = admission.call, admission.allowance, admission.policy
        facts, free = target.facts, admission.call.surface in FREE
        priced = free or sound.is_priced(call, facts)
        if allowance.has_budget and not priced and policy.unknown_price == "refuse":
            raise refusals.unpriced(target.label)
        most = allowance.most_tokens[1] if allowance.most_tokens else None
        known = facts.max_output_tokens
        body = _filled(call.body, target.defaults)
        answers = answers_to(
            body,
            known=known,
            default=policy.default_max_tokens,
            most=most,
            surface=call.surface,
        )
        if (allowance.spending or most) and _needs_bound(answers, known):
            call = replace(
                call, body={**call.body, _bound_of(target, call.surface): answers.each_tokens}
            )
        prompt_bound = 0 if free else prompt_most(admission.size, facts.max_input_tokens)
        prompt = min(prompt_bound, self._rates.high(model_of(target), admission.size))
        completion, nano = answers.tokens, 0
        if call.surface in sound.SURFACES:
            default = policy.default_max_tokens
            prompt, completion, nano = sound.aside_for(
                call, facts, prompt, prompt_most=prompt_bound, default_tokens=default
            )
        elif facts.price is not None:
            nano = bound_nano_usd(facts.price, prompt_bound, completion, call.service_tier)
        id = f"{admission.id}.{admission.attempts + 1}"
        # Of what no provider gives, the books hold no more; the provider is still asked for all.
        completion, nano = min(MOST_AMOUNT, completion), min(MOST_AMOUNT, nano)
        return Reservation(id, target, call, admission.size, prompt, completion, nano)

    async def _record(self, admission: Admission, reservation: Reservation) -> None:
        """Write the row of the ledger before the call is made."""
        admission.attempts += 1
        call, caller, target = admission.call, admission.caller, reservation.target
        # By place, as `Closed` below: with names it would take three times as long.
        row = Opened(
            reservation.id,
            call.request_id,
            admission.attempts,
            caller.name,
            caller.team or "",
            call.user or "",
            call.tags,
            admission.model,
            target.label,
            target.provider,
            call.surface,
            self._store.wall(),
            reservation.prompt_tokens,
            reservation.completion_tokens,
            reservation.nano_usd,
        )
        first, admission.recorded = not admission.recorded, True
        try:
            await self._ledger.open(row, admitted=first)
        except LedgerUnavailable as exc:
            admission.recorded = not first
            if admission.policy.on_store_failure != "open":
                raise QuotaUnavailable(
                    "the ledger cannot be written, and no call is made that is not recorded",
                    retry_after_s=1.0,
                ) from exc

    async def settle(self, admission: Admission, reservation: Reservation) -> None:
        """Have what the attempt took in the store, in the ledger and in the tally."""
        tally = admission.tally
        usage = reservation.usage(self._rates)
        cost = reservation.cost_nano_usd(usage)
        if not usage.estimated:
            self._rates.learn(model_of(reservation.target), admission.size, usage.prompt_tokens)
        tally.spend(usage, cost, reserved_tokens=reservation.tokens)
        self._metrics.spent(tally, usage, cost)
        spent = Spent(usage.prompt_tokens + usage.completion_tokens, cost or 0)
        outcome = reservation.outcome
        closed = Closed(reservation.id, usage, cost, outcome, outcome == OK, self._store.wall())
        # In one step, so that whoever asks the ledger for the past sees both or neither.
        try:
            await self._store.settle(reservation.id, spent)
        finally:
            await self._ledger.close(closed)
        self._headroom.settled(reservation.target, freed_tokens=reservation.tokens - spent.tokens)

    async def _check_tokens(self, admission: Admission) -> None:
        if admission.allowance.most_tokens is not None:
            call = admission.call
            answers = answers_to(call.body, known=None, default=0, most=None, surface=call.surface)
            if answers.stated:
                try:
                    refusals.check_tokens(admission.allowance, answers.each_tokens)
                except TooManyTokens:
                    await self._tell_left(admission)
                    raise

    async def _tell_left(self, admission: Admission) -> None:
        """Take note, for one who is refused, of how all of its limits stand, if that is known."""
        allowance = admission.allowance
        with suppress(StoreUnavailable, LedgerUnavailable):
            limits = (*allowance.admission, *allowance.spending)
            admission.tally.note(await self._store.standings(limits))

    def _allowance(
        self, allowances: Allowances, caller: Caller, user: str | None, model: str
    ) -> Allowance:
        if allowances is not self._allowances or len(self._known) >= MOST_KNOWN:
            self._allowances, self._known = allowances, {}
        key = (caller.name, user, model)
        found = self._known.get(key)
        if found is None:
            found = allowances.of(caller, user=user, model=model)
            self._known[key] = found
        return found


def _is_wordless_sound(call: Call, target: Target) -> bool:
    """Say whether what is spoken, or heard, takes no tokens there."""
    return call.surface in sound.SURFACES and not sound.takes_tokens(call, target.facts)


def _needs_bound(answers: Answers, known: int | None) -> bool:
    """Say whether nothing but us keeps an answer within what is set aside for it."""
    return not answers.stated and (known is None or answers.each_tokens < known)


def _filled(body: Json, defaults: Json) -> Json:
    """Return the body and what the file says for it; one that names a bound keeps its own."""
    if not defaults:
        return body
    named = any(name in body for name in BOUNDS)
    return {k: v for k, v in defaults.items() if not (named and k in BOUNDS)} | {**body}


def _bound_of(target: Target, surface: Surface) -> str:
    """Return the parameter that bounds an answer. OpenAI's newer models take no other."""
    match surface:
        case Surface.RESPONSES:
            return "max_output_tokens"
        case Surface.CHAT if target.provider in {"openai", "azure"}:
            return "max_completion_tokens"
        case _:
            return "max_tokens"


def _scope_of(target: Target) -> Scope:
    return Scope(ScopeKind.TARGET, target.identity)


def _claims(allowance: Allowance, reservation: Reservation) -> list[Claim]:
    """Return what the attempt wants of the caller's limits and of the deployment's own."""
    target = reservation.target
    tokens = reservation.tokens
    claims = [
        Claim(limit, tokens if limit.unit is Unit.TOKENS else reservation.nano_usd)
        for limit in allowance.spending
    ]
    if target.rpm is target.tpm is target.max_parallel is None:
        return claims
    own = (
        (target.rpm, Unit.REQUESTS, Window.MINUTE, "rpm", 1),
        (target.tpm, Unit.TOKENS, Window.MINUTE, "tpm", tokens),
        (target.max_parallel, Unit.PARALLEL, Window.NOW, "max_parallel_requests", 1),
    )
    for most, unit, window, word, amount in own:
        if most is not None:
            claims.append(Claim(Limit(_scope_of(target), unit, window, most, word), amount))
    return claims
