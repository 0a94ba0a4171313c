"""
Every knob of the service: its name, unit, bounds and default, once.

These types are the `mobius:` section of `litellm_config.yaml` and, at the same time, the values the
core is built from: nothing to translate, and no second default to drift. Durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, SecretStr, Tag


def _off_is_none(value: object) -> object:
    # YAML 1.1 reads a bare `off` as false; both spellings mean that the feature is not used.
    return None if value is False or value == "off" else value


Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400)]
OptionalSeconds: TypeAlias = Annotated[Seconds | None, BeforeValidator(_off_is_none)]
# Told apart first, so that what is neither is one error and not two.
SecondsOrP90: TypeAlias = Annotated[
    Annotated[Seconds, Tag("seconds")] | Annotated[Literal["p90"], Tag("p90")],
    Discriminator(lambda value: "p90" if value == "p90" else "seconds"),
]
FIRST_TOKEN_S = 30.0


def _auto_is_none(value: object) -> object:
    if value is None:
        raise ValueError("must be a number or auto")
    return None if value == "auto" else value


class Policy(BaseModel):
    """A section of the file: frozen, and closed to names it does not know."""

    # A misspelt key is an error at start-up, not a default at three in the morning.
    model_config = ConfigDict(extra="forbid", frozen=True)


class Timeouts(Policy):
    """How long one attempt may take, phase by phase."""

    connect: Seconds = 5.0
    first_token: Annotated[Seconds | None, BeforeValidator(_auto_is_none)] = Field(
        default=FIRST_TOKEN_S,
        description="From the call to the first content of a stream; auto: as the last ones say.",
    )
    idle: Seconds = Field(
        default=60.0, description="Between two events of a stream; comments do not count."
    )
    answer: Seconds = Field(default=600.0, description="A whole answer that is not streamed.")
    stream: Seconds = Field(default=1800.0, description="A whole stream.")


class BreakerPolicy(Policy):
    """When a target is given a rest, and for how long."""

    failures: int = Field(default=5, ge=1, description="Consecutive failures that open it.")
    share: float = Field(default=0.5, gt=0, le=1, description="Or this share of the last 30 s …")
    min_calls: int = Field(default=10, ge=1, description="… of at least so many calls.")
    rest: Seconds = Field(default=10.0, description="Times the number of openings in a row.")
    rest_cap: Seconds = 30.0
    slow: OptionalSeconds = Field(
        default=None, description="A first token later than this is a failure."
    )


class RetryBudget(Policy):
    """How many same-target retries and laps the process allows itself; going on is always free."""

    share: float = Field(default=0.2, ge=0, le=1, description="Of the requests of the last 10 s.")
    min: int = Field(default=3, ge=0, description="Allowed in 10 s however few requests there are.")


class HedgePolicy(Policy):
    """Ask the next target too when the first one has not begun to answer by then."""

    after: Annotated[SecondsOrP90 | None, BeforeValidator(_off_is_none)] = None
    budget: float = Field(default=0.05, ge=0, le=1, description="Of the requests, at most.")


class RingPolicy(Policy):
    """How the ring is walked. The defaults of the file's settings of the same names."""

    deadline: Seconds = Field(default=120.0, description="Attempts may be started until then.")
    laps: int = Field(default=2, ge=1, le=10)
    num_retries: int = Field(
        default=1, ge=0, le=10, description="Same target, transient faults only."
    )
    retry_after_wait: float = Field(default=2.0, ge=0, le=60)
    backoff_base: Seconds = Field(default=0.25, description="Full jitter, doubling.")
    backoff_cap: Seconds = 4.0
    cooldown_time: Seconds = Field(
        default=5.0, description="First rest after a 429 without a header."
    )
    cooldown_cap: Seconds = Field(default=60.0, description="Of the doubling.")
    retry_after_cap: Seconds = Field(
        default=3600.0, description="A Retry-After is believed up to this."
    )
    long_rest: Seconds = Field(
        default=300.0, description="After a refused key or an empty account."
    )
    timeouts: Timeouts = Timeouts()
    breaker: BreakerPolicy = BreakerPolicy()
    retry_budget: RetryBudget = RetryBudget()
    hedge: HedgePolicy = HedgePolicy()


class LimitsPolicy(Policy):
    """What one request, and all of them together, may take."""

    body_mb: float = Field(default=10.0, gt=0, le=1024)
    upload_mb: float = Field(default=30.0, gt=0, le=4096, description="A form with its files.")
    answer_mb: float = Field(
        default=64.0, gt=0, le=4096, description="A provider's answer, decoded."
    )
    in_flight: int = Field(default=2000, ge=1)
    json_depth: int = Field(default=64, ge=2, le=1000)
    header_kb: float = Field(default=32.0, gt=0, le=128)  # a longer head is cut off unheard


class BudgetUsd(Policy):
    """US dollars per UTC day, per UTC month, and ever."""

    day: float | None = Field(default=None, ge=0)
    month: float | None = Field(default=None, ge=0)
    total: float | None = Field(default=None, ge=0)


class Limits(Policy):
    """What a key, a team, a user or a model may use."""

    rpm: int | None = Field(default=None, ge=0)
    tpm: int | None = Field(default=None, ge=0)
    rpd: int | None = Field(default=None, ge=0)
    tpd: int | None = Field(default=None, ge=0)
    max_parallel: int | None = Field(default=None, ge=1)
    max_tokens_per_request: int | None = Field(default=None, ge=1)
    budget_usd: BudgetUsd | None = None


class KeyPolicy(Policy):
    """One caller's key: the secret itself or its SHA-256, and what it may do."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")
    key: SecretStr | None = None
    key_sha256: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{64}$")
    team: str | None = None
    models: tuple[str, ...] = Field(default=(), description="Patterns; none: every model.")
    limits: Limits | None = None
    expires: str | None = Field(default=None, description="An ISO 8601 date or time, UTC.")
    cache_scope: Literal["key", "team", "shared"] | None = None


class TeamPolicy(Policy):
    """Limits that the keys of one team share."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")
    limits: Limits | None = None


class QuotaPolicy(Policy):
    """What quota does where the facts are missing."""

    on_store_failure: Literal["leased", "closed", "open"] = "leased"
    unknown_price: Literal["refuse", "free"] = "refuse"
    default_max_tokens: int = Field(default=4096, ge=1)


class LedgerPolicy(Policy):
    """Where usage is recorded, and how long it is kept."""

    path: str = "data/mobius.db"
    keep_days: int = Field(default=400, ge=1)


class CachePolicy(Policy):
    """Who shares cached answers, and how much memory they may take."""

    scope: Literal["key", "team", "shared"] = "key"
    max_memory_mb: float = Field(default=256.0, gt=0)
    max_entry_mb: float = Field(default=4.0, gt=0)
    stale_if_error: float = Field(
        default=0.0, ge=0, description="Seconds that an expired answer may stand in for failures."
    )
    finish_reasons: tuple[str, ...] = Field(
        default=("stop", "tool_calls", "function_call"), description="Of answers that are kept."
    )
    pace: OptionalSeconds = Field(
        default=None,
        description="Between the events of a stream that is given again; off: all of it at once.",
    )


class AiPolicy(Policy):
    """The ring behind `/ai/*`."""

    model: str = "chat"


class ProbesPolicy(Policy):
    """Ask targets how they are that no request has told of. Off unless `every` says how often."""

    every: OptionalSeconds = Field(
        default=None, description="Without news of a target; its probes are never closer together."
    )
    by: Literal["models", "token", "either"] = Field(
        default="either",
        description="The list of models, which is free; one token, which proves more; or the list "
        "and, where that proves nothing, a token.",
    )


class SloPolicy(Policy):
    """What the operator promises; exported for alerts."""

    first_token_s: Seconds = Field(
        default=3.0, description="To the first content of a stream, or to the whole of an answer."
    )
    first_token_share: float = Field(
        default=0.95, gt=0, le=1, description="Of the answers, how many are so soon."
    )
    availability: float = Field(
        default=0.999, gt=0, le=1, description="Of the requests, how many are answered."
    )


class MetricsPort(Policy):
    """Serve `/metrics` on a port of its own, to everybody who reaches that."""

    port: int = Field(ge=1, le=65_535)
    host: str | None = Field(
        default=None, min_length=1, description="To listen on; none is the server's own."
    )


class MetricsPolicy(Policy):
    """Who may read `/metrics`: everybody, whoever has a key, or whoever reaches a port."""

    access: Literal["open", "key"] | MetricsPort = "open"


class MobiusPolicy(RingPolicy):
    """The whole `mobius:` section."""

    on_midstream: Literal["error", "continue"] = "error"
    lanes: Mapping[str, Literal["direct", "translated", "unified"]] = Field(
        default_factory=dict, description="By label of a target, model name, or provider."
    )
    limits: LimitsPolicy = LimitsPolicy()
    grace: float = Field(default=30.0, ge=0, le=3600)
    keepalive: Seconds = 15.0
    keys: tuple[KeyPolicy, ...] = ()
    teams: tuple[TeamPolicy, ...] = ()
    models: Mapping[str, Limits] = Field(
        default_factory=dict, description="Names of models, or patterns; all callers together."
    )
    users: Mapping[str, Limits] = Field(default_factory=dict)
    quota: QuotaPolicy = QuotaPolicy()
    ledger: LedgerPolicy = LedgerPolicy()
    cache: CachePolicy = CachePolicy()
    ai: AiPolicy = AiPolicy()
    probes: ProbesPolicy = ProbesPolicy()
    slo: SloPolicy = SloPolicy()
    metrics: MetricsPolicy = MetricsPolicy()


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """
    Where a Redis is: a URL, or its parts.

    Beside `redis://`, `rediss://` and `unix://` a URL may name several nodes of one service:
    `redis+sentinel://user:password@host:26379,host:26379/service/0` and
    `redis+cluster://user:password@host:6379,host:6379` (`rediss+…` with TLS).
    """

    url: str | None = field(default=None, repr=False)  # may hold the password
    host: str | None = None
    port: int | None = None
    password: str | None = field(default=None, repr=False)
    db: int | None = None
    ssl: bool = False
    cluster: tuple[tuple[str, int], ...] = ()  # hosts and ports, where there is no URL
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str | None = None  # of the sentinels
