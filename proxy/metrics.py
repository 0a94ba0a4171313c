"""
The Prometheus instruments, on a registry of their own so that two apps can live in one test.

Every label is a name from the configuration or a member of a closed set: nothing that a client
invents becomes a series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client import Metric as Page
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from proxy.clock import Clock
from proxy.errors import ProxyError, UpstreamFailure, status_of
from proxy.leeway import Leeway
from proxy.limits import NANO, Limit, Standing, Unit
from proxy.numbers import FamilyOf, Numbers, Together
from proxy.objectives import AVAILABILITY, FIRST_TOKEN_S, FIRST_TOKEN_SHARE, Objectives
from proxy.policy import SloPolicy
from proxy.spans import Counts, Family, Spans
from proxy.types import Surface, Tally, Target, Usage

REQUEST = Family(
    "mobius_request_seconds",
    "From a request's arrival to its last byte.",
    ("surface", "model", "provider", "stream", "outcome"),
)
FIRST = Family(
    "mobius_time_to_first_token_seconds",
    "From a streamed request's arrival to its first content.",
    ("model", "provider"),
)
INTER = Family(
    "mobius_inter_token_seconds", "Between two chunks of content.", ("model", "provider")
)
ATTEMPT = Family(
    "mobius_attempt_seconds", "One physical call, to its last byte.", ("target", "outcome")
)
OVERHEAD = Family(
    "mobius_overhead_seconds", "Our own time: total less upstream and backoff.", ("model",)
)
TOKENS = Family("mobius_tokens_total", "Tokens, in kinds that do not overlap.", ("model", "kind"))
CACHE = Family("mobius_cache_total", "Requests by what the cache did.", ("model", "result"))
RETRIES = Family("mobius_retries_total", "Same target asked again.", ("model",))
FALLBACKS = Family(
    "mobius_fallbacks_total", "Another target asked, for one that failed or rests.", ("model",)
)
RESUMED = Family(
    "mobius_resumed_total",
    "Streams that broke after content where others may go on, by what came of it.",
    ("model", "result"),
)
HEDGED = Family(
    "mobius_hedged_total",
    "A second target asked beside one that was late, by what came of it for the second.",
    ("model", "result"),
)
COST = Family("mobius_cost_usd_total", "US dollars that attempts cost.", ("model", "key"))
REFUSED = Family(
    "mobius_quota_refused_total", "Requests that a limit left no room for.", ("scope", "limit")
)
REMAINING = Family(
    "mobius_quota_remaining",
    "What is left under a limit: requests, tokens, US dollars or places.",
    ("scope", "name", "limit"),
)
PROVIDER_REMAINING = Family(
    "mobius_provider_remaining",
    "What a provider last said is left of its own limit; nothing once that has been reset.",
    ("target", "unit"),
)
PROVIDER_LIMIT = Family(
    "mobius_provider_limit", "The provider's own limit, with the same.", ("target", "unit")
)
PROBES = Family(
    "mobius_probes_total",
    "Targets asked how they are, because no request told.",
    ("target", "by", "outcome"),
)
REJECTED = Family("mobius_rejected_total", "Turned away before the ring.", ("reason",))
RELOADS = Family("mobius_config_reload_total", "Reloads of the file.", ("result",))
IN_FLIGHT = Family("mobius_in_flight_requests", "Model requests under way.")
HEALTHY = Family(
    "mobius_target_healthy", "1 healthy; 0 open, cooling or unconfigured.", ("target",)
)
GENERATION = Family("mobius_config_generation", "The configuration in force.")

# What a gauge is of all the workers at one address.
GAUGES: Mapping[str, Together] = {
    IN_FLIGHT.name: sum,  # each has its own requests
    HEALTHY.name: min,  # each has breakers of its own: 0 where any of them passes the target over
    GENERATION.name: min,  # at least that one is in force everywhere; a new worker begins at 1
    REMAINING.name: min,  # all ask the same Redis, one after the other: what was there at the end
    PROVIDER_REMAINING.name: min,  # each heard it from its own answers: nobody may count on more
    FIRST_TOKEN_S.name: max,  # of an edit that not all have read yet, what is easier to keep
    FIRST_TOKEN_SHARE.name: min,
    AVAILABILITY.name: min,
    PROVIDER_LIMIT.name: max,  # the same for all, and as the last that heard of a rise has it
}


class Metrics:
    """What happened, as numbers. One `mobius_request_seconds` observation per model request."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.registry = CollectorRegistry()
        self._request = self._spans(REQUEST)
        self._first = self._spans(FIRST)
        self._inter = self._spans(INTER)
        self._attempt = self._spans(ATTEMPT)
        self._overhead = self._spans(OVERHEAD)
        self._objectives = Objectives()
        self.registry.register(self._objectives)
        self._under_way = 0
        self._tokens = self._counts(TOKENS)
        self._cost = self._counts(COST)
        self._refused = self._counter(REFUSED)
        self._remaining = self._gauge(REMAINING)
        self._provider_remaining = self._gauge(PROVIDER_REMAINING)
        self._provider_limit = self._gauge(PROVIDER_LIMIT)
        self._cache = self._counts(CACHE)
        self._retries = self._counter(RETRIES)
        self._fallbacks = self._counter(FALLBACKS)
        self._resumed = self._counter(RESUMED)
        self._hedged = self._counter(HEDGED)
        self._probes = self._counter(PROBES)
        self._rejected = self._counter(REJECTED)
        self._reloads = self._counter(RELOADS)
        self._gauge(IN_FLIGHT).set_function(lambda: self._under_way)
        self._healthy = self._gauge(HEALTHY)
        self._generation = self._gauge(GENERATION)
        for result in ("ok", "error"):
            self._reloads.labels(result)

    def _spans(self, family: Family) -> Spans:
        spans = Spans(family)
        self.registry.register(spans)
        return spans

    def _counts(self, family: Family) -> Counts:
        counts = Counts(family, self._clock.wall)
        self.registry.register(counts)
        return counts

    def _counter(self, family: Family) -> Counter:
        return Counter(family.name, family.text, family.labels, registry=self.registry)

    def _gauge(self, family: Family) -> Gauge:
        return Gauge(family.name, family.text, family.labels, registry=self.registry)

    def measure(self, tally: Tally) -> Measuring:
        """Observe one model request from here to the end of the block, however it ends."""
        return Measuring(self, tally)

    def begins(self, tally: Tally) -> None:
        """Take note of a request that is under way."""
        self._under_way += 1
        tally.outcome = "cancelled"

    def ends(self, tally: Tally, error: BaseException | None) -> None:
        """Take note of how it ended; one who is cancelled has told so by being it."""
        if error is None:
            tally.outcome = "ok"
        elif isinstance(error, Exception):
            tally.outcome, tally.status = outcome_of(error, tally.surface)
        self._under_way -= 1
        total_s = self._clock.now() - tally.started_s
        self._objectives.count(tally, error, total_s)
        self._observe(tally, total_s)

    def _observe(self, tally: Tally, total_s: float) -> None:
        stream = "true" if tally.stream else "false"
        labels = (tally.surface, tally.model, tally.provider, stream, tally.outcome)
        self._request.add(labels, total_s)
        ours_s = total_s - tally.upstream_s - tally.waits_s
        self._overhead.add((tally.model,), ours_s if ours_s > 0 else 0.0)
        if tally.cache != "bypass":
            self._cache.add((tally.model, tally.cache))
        if tally.retries:
            self._retries.labels(tally.model).inc(tally.retries)
        if tally.fallbacks:
            self._fallbacks.labels(tally.model).inc(tally.fallbacks)
        if tally.hedged is not None:
            self._hedged.labels(tally.model, tally.hedged).inc()

    @contextmanager
    def attempt(self, target: Target) -> Iterator[None]:
        """Observe one physical call from here to the end of the block."""
        start_s = self._clock.now()
        outcome = "cancelled"
        try:
            yield
            outcome = "ok"
        except UpstreamFailure as failure:
            outcome = failure.kind.value
            raise
        finally:
            self._attempt.add((target.label, outcome), self._clock.now() - start_s)

    def spent(self, tally: Tally, usage: Usage, nano_usd: int | None) -> None:
        """Count what one attempt of the request took."""
        for kind, tokens in usage.kinds():
            if tokens:
                self._tokens.add((tally.model, kind), tokens)
        if nano_usd:
            self._cost.add((tally.model, tally.caller), nano_usd / NANO)

    def resumed(self, tally: Tally, result: str) -> None:
        """
        Count a stream that broke half-way and that another target might have finished.

        `result` is whole, diverged (another text), failed (nobody answered in time), unfit (more
        was said than a text) or cancelled.
        """
        self._resumed.labels(tally.model, result).inc()

    def refused(self, limit: Limit) -> None:
        """Count a request, or an attempt at a deployment, that `limit` left no room for."""
        self._refused.labels(limit.scope.kind.value, limit.word).inc()

    def remaining(self, standings: Iterable[Standing]) -> None:
        """Set what is left; there is nothing for limits that the file no longer has."""
        self._remaining.clear()
        for standing in standings:
            limit = standing.limit
            left = standing.remaining
            self._remaining.labels(limit.scope.kind.value, limit.scope.name, limit.word).set(
                left / NANO if limit.unit is Unit.NANO_USD else left
            )

    def provider(self, targets: Mapping[str, Iterable[Leeway]]) -> None:
        """Set what the provider of each target says; there is nothing for any other target."""
        self._provider_remaining.clear()
        self._provider_limit.clear()
        for label, leeways in targets.items():
            for leeway in leeways:
                unit = leeway.unit.value
                self._provider_remaining.labels(label, unit).set(leeway.remaining)
                if leeway.limit is not None:
                    self._provider_limit.labels(label, unit).set(leeway.limit)

    def content(self, tally: Tally, count: int = 1) -> None:
        """Observe the arrival of so many chunks of content of a stream, at one moment."""
        now_s = self._clock.now()
        series = (tally.model, tally.provider)
        if tally.first_content_s is None or tally.last_content_s is None:
            tally.first_content_s = now_s
            self._first.add(series, now_s - tally.started_s)
        else:
            self._inter.add(series, now_s - tally.last_content_s)
        if count > 1:
            self._inter.add(series, 0.0, count - 1)
        tally.last_content_s = now_s

    def probed(self, target: Target, by: str, outcome: str) -> None:
        """Count a probe; `outcome` is ok, unproven, cancelled, a kind of failure or a code."""
        self._probes.labels(target.label, by, outcome).inc()

    def rejected(self, reason: str) -> None:
        """Count a request turned away before the ring; `reason` is an error's code."""
        self._rejected.labels(reason).inc()

    def promise(self, slo: SloPolicy) -> None:
        """Count from here on by what the file promises now."""
        self._objectives.promised = slo

    def reloaded(self, result: str) -> None:
        self._reloads.labels(result).inc()

    def generation(self, number: int) -> None:
        self._generation.set(number)

    def healthy(self, targets: Mapping[str, bool]) -> None:
        """Set the gauge of each target; there is none for those that the file no longer has."""
        self._healthy.clear()
        for label, healthy in targets.items():
            self._healthy.labels(label).set(healthy)

    def numbers(self) -> Numbers:
        """Return all series as they are now."""
        return tuple(
            FamilyOf(
                family.name,
                family.type,
                family.documentation,
                {(s.name, tuple(s.labels.items())): float(s.value) for s in family.samples},
            )
            for family in self.registry.collect()
        )

    def render(self, numbers: Numbers | None = None) -> bytes:
        """Return the page of these numbers, or of those of this process."""
        return generate_latest(self.registry if numbers is None else _Shown(numbers))


class Measuring:
    """The block of one model request."""

    __slots__ = ("_metrics", "_tally")

    def __init__(self, metrics: Metrics, tally: Tally) -> None:
        self._metrics = metrics
        self._tally = tally

    def __enter__(self) -> None:
        self._metrics.begins(self._tally)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._metrics.ends(self._tally, error)


class _Shown:
    """Numbers in the place of a registry."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Page]:
        for family in self._numbers:
            page = Page(family.name, family.text, family.kind)
            for (name, labels), value in family.samples.items():
                page.add_sample(name, dict(labels), value)
            yield page


def outcome_of(exc: BaseException, surface: Surface = Surface.CHAT) -> tuple[str, int]:
    """Return the label and the status of a failed request: an error's code is a closed set."""
    if isinstance(exc, ProxyError):
        # The class's own code: an instance may carry a provider's, which is not a closed set.
        return type(exc).code or type(exc).type, status_of(exc, surface)
    return "internal_error", 500
