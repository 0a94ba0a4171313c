"""
The Prometheus instruments, on a registry of their own so that two apps can live in one test.

Every label is a name from the configuration or a member of a closed set: nothing that a client
invents becomes a series.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from proxy.clock import Clock
from proxy.errors import ProxyError, UpstreamFailure
from proxy.types import Tally, Target

# Seconds, half a millisecond to a quarter of an hour: our own time and a model's in one scale.
BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0,
)  # fmt: skip


class Metrics:
    """What happened, as numbers. One `mobius_request_seconds` observation per model request."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.registry = registry = CollectorRegistry()
        by_request = ("surface", "model", "provider", "stream", "outcome")

        def histogram(name: str, text: str, labels: tuple[str, ...]) -> Histogram:
            return Histogram(name, text, labels, buckets=BUCKETS_S, registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self._request = histogram(
            "mobius_request_seconds", "From a request's arrival to its last byte.", by_request
        )
        self._first = histogram(
            "mobius_time_to_first_token_seconds",
            "From a streamed request's arrival to its first content.",
            ("model", "provider"),
        )
        self._inter = histogram(
            "mobius_inter_token_seconds", "Between two chunks of content.", ("model", "provider")
        )
        self._attempt = histogram(
            "mobius_attempt_seconds",
            "One physical call, to its last byte.",
            ("target", "outcome"),
        )
        self._overhead = histogram(
            "mobius_overhead_seconds", "Our own time: total less upstream and backoff.", ("model",)
        )
        self._tokens = counter(
            "mobius_tokens_total", "Tokens, in kinds that do not overlap.", ("model", "kind")
        )
        self._retries = counter("mobius_retries_total", "Same target asked again.", ("model",))
        self._fallbacks = counter(
            "mobius_fallbacks_total",
            "Another target asked, for one that failed or rests.",
            ("model",),
        )
        self._rejected = counter(
            "mobius_rejected_total", "Turned away before the ring.", ("reason",)
        )
        self._reloads = counter("mobius_config_reload_total", "Reloads of the file.", ("result",))
        self._in_flight = Gauge(
            "mobius_in_flight_requests", "Model requests under way.", registry=registry
        )
        self._healthy = Gauge(
            "mobius_target_healthy", "1 healthy, 0 open or cooling.", ("target",), registry=registry
        )
        self._generation = Gauge(
            "mobius_config_generation", "The configuration in force.", registry=registry
        )
        for result in ("ok", "error", "unchanged"):
            self._reloads.labels(result)

    @contextmanager
    def measure(self, tally: Tally) -> Iterator[None]:
        """Observe one model request from here to the end of the block, however it ends."""
        self._in_flight.inc()
        tally.outcome = "cancelled"
        try:
            yield
            tally.outcome = "ok"
        except Exception as exc:
            tally.outcome, tally.status = outcome_of(exc)
            raise
        finally:
            self._in_flight.dec()
            self._observe(tally)

    def _observe(self, tally: Tally) -> None:
        total_s = self._clock.now() - tally.started_s
        stream = "true" if tally.stream else "false"
        self._request.labels(
            tally.surface, tally.model, tally.provider, stream, tally.outcome
        ).observe(total_s)
        self._overhead.labels(tally.model).observe(
            max(0.0, total_s - tally.upstream_s - tally.waits_s)
        )
        if tally.retries:
            self._retries.labels(tally.model).inc(tally.retries)
        if tally.fallbacks:
            self._fallbacks.labels(tally.model).inc(tally.fallbacks)
        if tally.usage is not None:
            for kind, tokens in tally.usage.kinds():
                if tokens:
                    self._tokens.labels(tally.model, kind).inc(tokens)

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
            self._attempt.labels(target.label, outcome).observe(self._clock.now() - start_s)

    def content(self, tally: Tally) -> None:
        """Observe the arrival of one chunk of content of a stream."""
        now_s = self._clock.now()
        if tally.first_content_s is None:
            tally.first_content_s = now_s
            self._first.labels(tally.model, tally.provider).observe(now_s - tally.started_s)
        elif tally.last_content_s is not None:
            gap_s = now_s - tally.last_content_s
            self._inter.labels(tally.model, tally.provider).observe(gap_s)
        tally.last_content_s = now_s

    def rejected(self, reason: str) -> None:
        """Count a request turned away before the ring; `reason` is an error's code."""
        self._rejected.labels(reason).inc()

    def reloaded(self, result: str) -> None:
        self._reloads.labels(result).inc()

    def generation(self, number: int) -> None:
        self._generation.set(number)

    def healthy(self, target: str, *, healthy: bool) -> None:
        self._healthy.labels(target).set(healthy)

    def render(self) -> bytes:
        return generate_latest(self.registry)


def outcome_of(exc: BaseException) -> tuple[str, int]:
    """Return the label and the status of a failed request: an error's code is a closed set."""
    if isinstance(exc, ProxyError):
        # The class's own code: an instance may carry a provider's, which is not a closed set.
        return type(exc).code or type(exc).type, exc.status
    return "internal_error", 500
