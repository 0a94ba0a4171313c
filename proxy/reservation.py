"""What one attempt is seen to use, from its reservation to its settlement. Nothing here waits."""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy import sound
from proxy.allowance import Allowance
from proxy.errors import UpstreamFailure
from proxy.estimate import PromptRates, Size
from proxy.facts import Price
from proxy.grammar import GRAMMARS, Grammar
from proxy.limits import NANO_USD, OF_TARGET, TOKENS, Claim, Limit, Scope, Unit, Window
from proxy.pricing import cost_nano_usd
from proxy.replies import Chunk, ChunkStream, Completion, Reply
from proxy.retry import Kind
from proxy.types import HEARD, Call, Json, Surface, Target, Usage
from proxy.usage import BYTES_PER_TOKEN

CANCELLED = "cancelled"
OK = "ok"


@dataclass(slots=True)
class Reservation:
    """
    The account of one attempt. `call` is the request as it is to be sent.

    `outcome` becomes the ledger's: ok, cancelled, or the kind of the failure.
    """

    id: str
    target: Target
    call: Call = field(repr=False)
    size: Size
    prompt_tokens: int  # set aside, as the next two
    completion_tokens: int
    nano_usd: int
    outcome: str = CANCELLED
    _reported: Usage | None = None
    _service_tier: str | None = None
    _heard_s: float | None = None  # of a recording, by the provider's own word
    _said_bytes: int = 0  # since the last report, which may come before the end of a stream
    _spent: bool = False  # something was surely generated

    @property
    def _grammar(self) -> Grammar:
        return GRAMMARS[self.call.surface]

    @property
    def tokens(self) -> int:
        """What is set aside, in all."""
        return self.prompt_tokens + self.completion_tokens

    def spends(self, allowance: Allowance) -> list[Claim]:
        """Return what the attempt wants of these limits of its caller's."""
        if not allowance.spending:
            return []
        amounts = {TOKENS: self.tokens, NANO_USD: self.nano_usd}
        return [Claim(limit, amounts[limit.unit]) for limit in allowance.spending]

    def claims(self, allowance: Allowance) -> list[Claim]:
        """Return the same, and after it what it wants of the deployment's own limits."""
        return self.spends(allowance) + self.takes(self.target)

    def takes(self, target: Target) -> list[Claim]:
        """Return what it wants of the limits that its deployment has of its own by this target."""
        if target.rpm is target.tpm is target.max_parallel is None:
            return []
        own = (
            (target.rpm, Unit.REQUESTS, Window.MINUTE, "rpm", 1),
            (target.tpm, Unit.TOKENS, Window.MINUTE, "tpm", self.tokens),
            (target.max_parallel, Unit.PARALLEL, Window.NOW, "max_parallel_requests", 1),
        )
        scope = scope_of(self.target)
        return [
            Claim(Limit(scope, unit, window, most, word), amount)
            for most, unit, window, word, amount in own
            if most is not None
        ]

    def watch(self, reply: Reply) -> Reply:
        """Return `reply`; what it reports is taken note of, now or as it is read."""
        self._spent = True
        match reply:
            case Completion():
                self._note_usage(reply.body)
                if self._reported is None:
                    self._said_bytes = self._grammar.said_bytes(reply.body)
            case ChunkStream():
                reply.tap(self._see)
        return reply

    def failed(self, failure: UpstreamFailure) -> None:
        self.outcome = failure.kind.value
        self._spent = self._spent or failure.tokens_spent or failure.kind is Kind.BROKEN

    def usage(self, rates: PromptRates) -> Usage:
        """
        Return the tokens that the attempt is charged with.

        What the provider reported, where it did; all that is set aside, where it goes on with an
        answer; our own count of what was generated, where something was; nothing for a call that
        failed before that.
        """
        if self._reported is not None and (self._spent or self.outcome == OK):
            if not self._said_bytes:
                return self._reported
            more = Usage(completion_tokens=self._said_tokens, estimated=True)
            return self._reported + more
        if not self._spent and self.outcome != OK:
            return Usage()
        if self.call.runs_on:
            # What it comes to is known when nobody counts any more.
            return Usage(self.prompt_tokens, self.completion_tokens, estimated=True)
        ours = Usage(
            prompt_tokens=rates.typical(model_of(self.target), self.size),
            completion_tokens=self._said_tokens,
            estimated=True,
        )
        return sound.counted(self.call, self.target.facts, ours, heard_s=self._heard_s)

    @property
    def _said_tokens(self) -> int:
        return -(-self._said_bytes // BYTES_PER_TOKEN)

    def cost_nano_usd(self, usage: Usage) -> int | None:
        """Return what `usage` costs; None where the price is not known."""
        price: Price | None = self.target.facts.price
        if self.call.surface in sound.SURFACES and (self._spent or self.outcome == OK):
            reported = self._reported is not None
            cost = sound.cost_nano_usd(
                self.call, self.target.facts, reported=reported, heard_s=self._heard_s
            )
            if cost is not None:
                return cost
        return None if price is None else cost_nano_usd(price, usage, self._service_tier)

    def _see(self, chunk: Chunk) -> None:
        if chunk.plain is not None:
            self._said_bytes += chunk.plain.text_bytes
        if told := chunk.told:
            said = self._grammar.text_bytes
            for event in told:
                self._said_bytes += said(event)
                self._note_usage(event)

    def _note_usage(self, body: Json) -> None:
        found = self._grammar.usage(body, self._reported)
        if found is not self._reported:
            self._reported, self._said_bytes = found, 0
        if self.call.surface in HEARD:
            self._heard_s = sound.heard_s(body) or self._heard_s
        tier = body.get("service_tier")
        if self.call.surface is Surface.RESPONSES and isinstance(body.get("response"), dict):
            tier = body["response"].get("service_tier")  # of an event
        if isinstance(tier, str):
            self._service_tier = tier


def model_of(target: Target) -> str:
    """Return what the rates of a model are learned under."""
    return f"{target.provider}/{target.model}"


def scope_of(target: Target) -> Scope:
    return Scope(OF_TARGET, target.identity)
