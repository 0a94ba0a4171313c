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
from functools import partial

from proxy import refusals, sound
from proxy.admission import Admission, Admitting, Reserving
from proxy.allowance import Allowance, Allowances
from proxy.errors import QuotaUnavailable, TooManyTokens
from proxy.estimate import (
    FREE,
    PromptRates,
    answers_to,
    bound_of,
    filled,
    needs_bound,
    prompt_most,
)
from proxy.headroom import Headroom
from proxy.ids import Ids
from proxy.leeway import Need
from proxy.limits import NOTHING, OF_TARGET, REQUESTS, Claim, Refusal, Spent, Unit
from proxy.metrics import Metrics
from proxy.pricing import bound_nano_usd
from proxy.reservation import OK, Reservation, model_of, scope_of
from proxy.snapshot import Snapshot, is_at
from proxy.store import MOST_AMOUNT, Closed, LedgerUnavailable, Opened, Records
from proxy.store.port import QuotaStore, Standings, StoreUnavailable
from proxy.types import Call, Caller, Tally, Target

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
        self._file = Allowances()  # that is in force
        self._generation = 0
        self._targets: dict[str, Target] = {}  # of that file, by label
        # What is under way: requests that were let in, and attempts as long as they are open.
        self._inside: dict[str, Admission] = {}
        self._aside: dict[str, tuple[Admission, Reservation]] = {}
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
        model, user = counted_as or call.model, call.user
        admission = Admission(
            self._ids.next(),
            call,
            caller,
            user,
            model,
            self._allowance(snapshot, caller, user, model),
            snapshot.policy.quota,
            tally,
            self._store.wall(),
            snapshot.allowances,
        )
        return Admitting(self, admission)

    def follow(self, snapshot: Snapshot) -> None:
        """
        Have what is under way count under the limits of the file that is in force from now on.

        Those it has already count as before; of the others it holds what it would have asked for.
        """
        if snapshot.allowances is self._file or snapshot.generation < self._generation:
            return
        before, self._file = self._file, snapshot.allowances
        self._generation, self._known = snapshot.generation, {}
        self._targets = {target.label: target for target in snapshot.targets()}
        # Whoever is let in without such a limit is not counted under it: only in the ledger.
        now = {limit.counter for limit in self._file.configured()}
        gone = [limit for limit in before.configured() if limit.counter not in now]
        self._store.forget([limit for limit in gone if limit.unit is Unit.REQUESTS])
        for admission in self._inside.values():
            self._count_place(admission)
        for admission, reservation in self._aside.values():
            self._count_attempt(admission, reservation)

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
            if admission.allowance.most_tokens is not None:
                await self._check_tokens(admission)
            if limits:
                admission.holds = True
                await self._let_in(self._store.admit(admission.id, limits), admission)
        except BaseException:
            if limits:
                await self._store.leave(admission.id)
            raise
        self._inside[admission.id] = admission
        if admission.file is not self._file:
            self._count_place(admission)

    async def leave(self, admission: Admission) -> None:
        """Have a request that was let in recorded, and its place free."""
        if not admission.recorded:
            caller = admission.caller
            self._ledger.admit(
                key=caller.name,
                team=caller.team or "",
                user=admission.user or "",
                model=admission.model,
                at=admission.at,
            )
            admission.recorded = True  # a call that is shared may go on, and is no second one
        self._inside.pop(admission.id, None)
        if admission.holds:
            await self._store.leave(admission.id)

    async def open(self, admission: Admission, target: Target) -> Reservation:
        """Return a reservation that stands in the store and in the ledger; raises as `reserve`."""
        reservation = self._sized(admission, target)
        claims = reservation.claims(admission.allowance)
        scopes = (*admission.allowance.scopes, scope_of(target))
        try:
            await self._let_in(self._store.reserve(reservation.id, claims, scopes), admission)
            self._aside[reservation.id] = (admission, reservation)
            if admission.file is not self._file:
                self._count_attempt(admission, reservation)
            await self._record(admission, reservation)
        except BaseException:
            self._aside.pop(reservation.id, None)
            await self._store.settle(reservation.id, NOTHING)
            raise
        return reservation

    def needs(self, admission: Admission) -> Callable[[Target], Need]:
        """Return what says how much the request may take of the limits of a target's provider."""
        return partial(self._need, admission)

    def _need(self, admission: Admission, target: Target) -> Need:
        call, size, answers = admission.measured
        if call.surface in FREE or sound.is_wordless(call, target.facts):
            return Need(1, 0, 0)
        # An answer whose length it does not bound is short, mostly: what it may be is no estimate.
        if target.defaults and not answers.stated:
            answers = answers_to(filled(call.body, target.defaults), call.surface)
        return Need(1, self._rates.typical(model_of(target), size), answers.tokens)

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
            if not admission.spare:
                self._metrics.refused(limit)
            if limit.scope.kind is OF_TARGET:
                self._headroom.heard((answer.standing(),))
                raise refusals.target_full(answer)
            await self._tell_left(admission)
            admission.tally.note((answer.standing(),))
            raise refusals.limit_reached(answer)
        admission.tally.note(answer)
        # The limits of the target itself stand at the end, where it has any.
        if answer and answer[-1].limit.scope.kind is OF_TARGET:
            self._headroom.heard(answer)

    def _sized(self, admission: Admission, target: Target) -> Reservation:
        allowance, policy, facts = admission.allowance, admission.policy, target.facts
        call, size, answers = admission.measured
        if (
            allowance.has_budget
            and policy.unknown_price == "refuse"
            and not (call.surface in FREE or sound.is_priced(call, facts))
        ):
            raise refusals.unpriced(target.label)
        known, most = facts.max_output_tokens, allowance.most_tokens
        if target.defaults:
            answers = answers_to(filled(call.body, target.defaults), call.surface)
        answers = answers.within(
            known=known, default=policy.default_max_tokens, most=most[1] if most else None
        )
        if (allowance.spending or most) and needs_bound(answers, known):
            bound = bound_of(target.provider, call.surface)
            call = replace(call, body={**call.body, bound: answers.each_tokens})
        prompt_bound = 0 if call.surface in FREE else prompt_most(size, facts.max_input_tokens)
        prompt = min(prompt_bound, self._rates.high(model_of(target), size))
        completion, nano = answers.tokens, 0
        if call.surface in sound.SURFACES:
            default = policy.default_max_tokens
            prompt, completion, nano = sound.aside_for(
                call, facts, prompt, prompt_most=prompt_bound, default_tokens=default
            )
        elif facts.price is not None:
            nano = bound_nano_usd(facts.price, prompt_bound, completion, call.service_tier)
        admission.reserved += 1  # two may be reserved for at once
        id = f"{admission.id}.{admission.reserved}"
        # Of what no provider gives, the books hold no more; the provider is still asked for all.
        completion, nano = min(MOST_AMOUNT, completion), min(MOST_AMOUNT, nano)
        return Reservation(id, target, call, size, prompt, completion, nano)

    async def _record(self, admission: Admission, reservation: Reservation) -> None:
        """Write the row of the ledger before the call is made."""
        admission.attempts += 1
        call, caller, target = admission.call, admission.caller, reservation.target
        # By place, as `Closed` below: with names it would take three times as long.
        row = Opened(
            reservation.id,
            admission.tally.request_id,
            admission.attempts,
            caller.name,
            caller.team or "",
            admission.user or "",
            admission.model,
            target.label,
            target.provider,
            call.surface,
            self._store.wall(),
            reservation.prompt_tokens,
            reservation.completion_tokens,
            reservation.nano_usd,
            call.tags,
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
            self._rates.learn(model_of(reservation.target), reservation.size, usage.prompt_tokens)
        tally.spend(usage, cost, reserved_tokens=reservation.tokens)
        self._metrics.spent(tally, usage, cost)
        spent = Spent(usage.prompt_tokens + usage.completion_tokens, cost or 0)
        outcome = reservation.outcome
        # Of two that were asked at once both may have come to their end.
        answers = outcome == OK and not admission.answered
        admission.answered = admission.answered or answers
        closed = Closed(reservation.id, usage, cost, outcome, answers, self._store.wall())
        self._aside.pop(reservation.id, None)
        # In one step, so that whoever asks the ledger for the past sees both or neither.
        try:
            await self._store.settle(reservation.id, spent)
        finally:
            await self._ledger.close(closed)
        self._headroom.settled(reservation.target, freed_tokens=reservation.tokens - spent.tokens)

    async def _check_tokens(self, admission: Admission) -> None:
        answers = admission.measured.answers
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

    def _count_place(self, admission: Admission) -> None:
        """Have a request that was let in hold a place of limits that were not in its file."""
        limits = self._now(admission).admission
        claims = [Claim(limit, 1) for limit in limits if limit.unit is Unit.PARALLEL]
        if claims:
            self._store.adopt(admission.id, claims)
            admission.holds = True

    def _count_attempt(self, admission: Admission, reservation: Reservation) -> None:
        claims = reservation.spends(self._now(admission))
        written = self._targets.get(reservation.target.label)
        if written is not None and is_at(reservation.target, written):
            # It was a request when it began, which its deployment's minute has seen or has not.
            own = reservation.takes(written)
            claims += [claim for claim in own if claim.limit.unit is not REQUESTS]
        if claims:
            self._store.adopt(reservation.id, claims)

    def _now(self, admission: Admission) -> Allowance:
        """Return what the request would stand under, if it came now."""
        return self._found(admission.caller, admission.user, admission.model)

    def _allowance(
        self, snapshot: Snapshot, caller: Caller, user: str | None, model: str
    ) -> Allowance:
        if snapshot.allowances is not self._file:
            self.follow(snapshot)
        if snapshot.allowances is not self._file:  # one that came before the last edit
            return snapshot.allowances.of(caller, user=user, model=model)
        return self._found(caller, user, model)

    def _found(self, caller: Caller, user: str | None, model: str) -> Allowance:
        key = (caller.name, user, model)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            found = self._known[key] = self._file.of(caller, user=user, model=model)
        return found
