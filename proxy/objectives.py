"""
What the file promises (`mobius.slo`), and how many requests kept to it.

A request counts where it is of a model of the file, and neither the caller's own mistake nor left
by its caller. Those are no breach of a promise, and no proof that it is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import Metric as Page
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from proxy.errors import (
    BodyTooLarge,
    BodyTooSlow,
    LimitReached,
    ModelForbidden,
    PriceUnknown,
    Refused,
    RequestInvalid,
    ResponseUnknown,
    TooManyTokens,
)
from proxy.policy import SloPolicy
from proxy.spans import Family
from proxy.types import Tally

FIRST_TOKEN_S = Family(
    "mobius_slo_first_token_seconds",
    "As the file has it: how soon a stream begins and a whole answer is there.",
)
FIRST_TOKEN_SHARE = Family(
    "mobius_slo_first_token_share", "As the file has it: of the answers, how many are so soon."
)
AVAILABILITY = Family(
    "mobius_slo_availability", "As the file has it: of the requests, how many are answered."
)
REQUESTS = Family(
    "mobius_slo_requests_total",
    "Requests that count for an objective, by whether they met it.",
    ("model", "objective", "met"),
)
# A key, a body or a limit of the caller's. A model that its provider does not know is ours to mend.
CALLERS_OWN = (
    *(BodyTooLarge, BodyTooSlow, RequestInvalid, Refused),
    *(LimitReached, ModelForbidden, PriceUnknown, ResponseUnknown, TooManyTokens),
)
NO_MODEL = "unknown"


class Objectives(Collector):
    """Counts for the event loop alone, so it needs no lock."""

    def __init__(self) -> None:
        self.promised = SloPolicy()
        # By model, whether it was answered and whether that was soon; None where it does not count.
        self._counts: Counter[tuple[str, bool | None, bool | None]] = Counter()

    def count(self, tally: Tally, error: BaseException | None, total_s: float) -> None:
        """Take note of a request that is over; `total_s` is what it took."""
        answered = True if error is None else _breach(error)
        soon: bool | None = None
        if tally.first_content_s is not None:
            soon = tally.first_content_s - tally.started_s <= self.promised.first_token_s
        elif answered and not tally.stream:
            soon = total_s <= self.promised.first_token_s
        self._counts[tally.model, answered, soon] += 1

    def collect(self) -> Iterator[Page]:
        promised = self.promised
        yield _gauge(FIRST_TOKEN_S, promised.first_token_s)
        yield _gauge(FIRST_TOKEN_SHARE, promised.first_token_share)
        yield _gauge(AVAILABILITY, promised.availability)
        family = CounterMetricFamily(REQUESTS.name, REQUESTS.text, labels=REQUESTS.labels)
        for (model, objective, met), count in self._met().items():
            family.add_metric((model, objective, "true" if met else "false"), count)
        yield family

    def _met(self) -> Counter[tuple[str, str, bool]]:
        """Return the counts by objective; each that is there is there as met and as not met."""
        found: Counter[tuple[str, str, bool]] = Counter()
        for (model, answered, soon), count in self._counts.items():
            for objective, met in (("availability", answered), ("first_token", soon)):
                if met is not None and model != NO_MODEL:
                    found[model, objective, met] += count
                    found[model, objective, not met] += 0
        return found


def _breach(error: BaseException) -> bool | None:
    """Return False where an error breaks what was promised, else None."""
    ours = isinstance(error, Exception) and not isinstance(error, CALLERS_OWN)
    return False if ours else None


def _gauge(family: Family, value: float) -> Page:
    return GaugeMetricFamily(family.name, family.text, value=value)
