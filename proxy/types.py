"""The values that travel inward: who asks, what for, where it may be sent, what it has cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import add
from typing import Any, NamedTuple, TypeAlias

from proxy.caching import NO_WISHES, CacheWishes
from proxy.facts import NOTHING_STATED, UNKNOWN, ModelFacts, Stated
from proxy.limits import OF_TARGET, REQUESTS, TOKENS, Standing
from proxy.upload import Upload
from proxy.wildcard import fits

Json: TypeAlias = Mapping[str, Any]

LONGEST_USER = 256  # characters of an end user's name that tell one from another


class Surface(StrEnum):
    """The kind of question a request asks; closed, so that it may be a metric label."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    MODERATIONS = "moderations"
    IMAGES = "images"
    RERANK = "rerank"
    MESSAGES = "messages"  # Anthropic's
    COUNT_TOKENS = "count_tokens"  # of such a request
    RESPONSES = "responses"
    SPEECH = "speech"
    TRANSCRIPTIONS = "transcriptions"
    TRANSLATIONS = "translations"  # of what is heard, into English
    AI = "ai"  # a chat, asked and answered in the small form of `/ai/*`


# Asked and answered in Anthropic's form, whoever answers.
ANTHROPIC = frozenset({Surface.MESSAGES, Surface.COUNT_TOKENS})


# Asked with a recording in a form, and answered with what is heard in it.
HEARD = frozenset({Surface.TRANSCRIPTIONS, Surface.TRANSLATIONS})


class Lane(StrEnum):
    """The way a target is called: through LiteLLM, or past it."""

    UNIFIED = "unified"
    DIRECT = "direct"
    TRANSLATED = "translated"  # a chat, in the provider's own format, written without LiteLLM
    AS_CHAT = "as_chat"  # asked as a chat, by the target's lane for those


class Strategy(StrEnum):
    """The order of the deployments of one group."""

    SIMPLE_SHUFFLE = "simple-shuffle"
    HEALTH_BASED = "health-based"
    ROUND_ROBIN = "round-robin"
    LATENCY_BASED = "latency-based"
    LEAST_BUSY = "least-busy"
    COST_BASED = "cost-based"
    USAGE_BASED = "usage-based"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking. `name` is safe in logs and metric labels; the key never gets this far."""

    name: str
    team: str | None = None
    models: tuple[str, ...] = ()  # patterns such as "claude-*"; none: every model
    admin: bool = False
    expires_at: float | None = None  # the key opens nothing from this moment on; seconds since 1970

    def may_ask(self, model: str) -> bool:
        return not self.models or any(fits(model, pattern) for pattern in self.models)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request says about its own handling. These fields never reach a provider."""

    fallbacks: tuple[str, ...] | None = None
    disable_fallbacks: bool = False
    num_retries: int | None = None
    timeout_s: float | None = None
    order: tuple[str, ...] | None = None  # the models to ask, the first first, and no others
    session: str | None = None  # requests of one are asked of the same target while it is healthy
    cache: CacheWishes = NO_WISHES


NONE_WISHED = Wishes()


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the caller sent it. `body` is forwarded untouched except for `model`."""

    model: str
    stream: bool
    body: Json = field(repr=False)
    surface: Surface = Surface.CHAT
    wants_usage: bool = False  # the caller asked for the usage chunk of a stream
    wishes: Wishes = NONE_WISHED
    size_bytes: int = 0  # of the body's JSON as it came; 0 where nobody has measured
    tags: tuple[str, ...] = ()  # `agent=planner`: for the ledger
    # Of the caller's own, those that a provider of the same surface is to get; in lower case.
    headers: Mapping[str, str] = field(default_factory=dict)
    upload: Upload | None = field(default=None, repr=False)  # the files beside the body of a form

    @property
    def user(self) -> str | None:
        """The end user that the request is made for, where it names one."""
        user = self.body.get("user")
        if self.surface in ANTHROPIC and isinstance(about := self.body.get("metadata"), Mapping):
            user = about.get("user_id")
        return user[:LONGEST_USER] if isinstance(user, str) and user else None

    @property
    def runs_on(self) -> bool:
        """Say whether the provider goes on with it after its answer: OpenAI's `background`."""
        return self.surface is Surface.RESPONSES and self.body.get("background") is True

    @property
    def service_tier(self) -> str | None:
        tier = self.body.get("service_tier")
        return tier if isinstance(tier, str) else None


@dataclass(frozen=True, slots=True)
class TargetTimeouts:
    """The phases of one attempt; `mobius.timeouts` with what stands nearer to the target."""

    connect_s: float = 5.0
    first_token_s: float = 30.0
    idle_s: float = 60.0
    answer_s: float = 600.0
    stream_s: float = 1800.0
    auto: bool = False  # a first token is waited for as the last ones say, and at most so long


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificates a target may show: those that `authorities` have signed, or anybody's."""

    digest: str  # of the authorities
    authorities: str = field(default="", compare=False, repr=False)  # PEM, as it stands in a file

    @property
    def anybody(self) -> bool:
        return not self.authorities


ANYBODY = Trust("")


@dataclass(frozen=True, slots=True)
class Target:
    """One deployment: a place where a public model name can be called."""

    label: str  # `model_name/provider/model`, `#2` for the second of the same
    group: str  # the `model_name` it stands under
    provider: str
    model: str  # the provider's name for it, without the provider's prefix
    identity: str  # hash of provider, base, model and key: what health is kept under
    credential: str  # hash of provider, base and key: what an empty account is kept under
    params: Json = field(default_factory=dict, repr=False)  # for LiteLLM; holds the provider key
    defaults: Json = field(default_factory=dict)  # completion parameters the body may leave out
    timeouts: TargetTimeouts = TargetTimeouts()
    lane: Lane = Lane.UNIFIED
    messages: Lane = Lane.AS_CHAT  # the lane of Anthropic's surfaces
    responses: Lane = Lane.AS_CHAT  # the lane of OpenAI's Responses
    weight: float | None = None
    order: int = 0  # lower is asked first within a group
    rpm: int | None = None
    tpm: int | None = None
    max_parallel: int | None = None
    drop_params: bool | None = None
    trust: Trust | None = None  # what `ssl_verify` says; None is the usual
    missing: str | None = None  # the unset variable that leaves this target unconfigured
    info: Json = field(default_factory=dict)  # its `model_info`
    facts: ModelFacts = UNKNOWN  # its price and limits; under a wildcard, once it has a name
    stated: Stated = NOTHING_STATED  # what the file itself says of them

    def lane_of(self, surface: Surface) -> Lane:
        if surface is Surface.RESPONSES:
            return self.responses
        if surface in ANTHROPIC:
            return self.messages
        translated = self.lane is Lane.TRANSLATED and surface is not Surface.CHAT
        return Lane.UNIFIED if translated else self.lane

    def __hash__(self) -> int:
        # Of what has one: a dictionary has none. Equal targets are equal in these too.
        return hash((self.label, self.identity))


@dataclass(frozen=True, slots=True)
class Group:
    """The deployments that share one `model_name`, and the order they are asked in."""

    name: str
    targets: tuple[Target, ...]
    strategy: Strategy = Strategy.SIMPLE_SHUFFLE


@dataclass(frozen=True, slots=True)
class Ring:
    """The groups that may answer a public model name: its own first, then its fallbacks."""

    model: str
    groups: tuple[Group, ...]
    oversized: tuple[Group, ...] = ()  # context_window_fallbacks
    content: tuple[Group, ...] = ()  # content_policy_fallbacks
    num_retries: int | None = None  # where the file sets it; else the policy's
    pattern: str | None = None  # the wildcard it came from: where names must be few, say this one


class Usage(NamedTuple):
    """Tokens as OpenAI reports them: the kinds overlap (cached tokens are prompt tokens too)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0  # those of them that are kept for an hour: Anthropic's price
    reasoning_tokens: int = 0
    audio_prompt_tokens: int = 0
    audio_completion_tokens: int = 0
    estimated: bool = False  # counted by us, because the provider's own count is missing or absurd

    def __add__(self, other: Usage) -> Usage:  # type: ignore[override]  # of tuples, not of counts
        counts = map(add, self[:-1], other[:-1])
        return Usage._make((*counts, self.estimated or other.estimated))

    @property
    def is_plain(self) -> bool:
        """Say whether there are no other kinds than the prompt's and the completion's."""
        return not (
            self.cached_tokens
            or self.cache_write_tokens
            or self.reasoning_tokens
            or self.audio_prompt_tokens
            or self.audio_completion_tokens
        )

    def kinds(self) -> tuple[tuple[str, int], ...]:
        """
        Return the tokens by kind; kinds do not overlap, and they sum to the total.

        Where the parts are more than the whole, the last of them are cut: what is cached is
        neither written nor audio.
        """
        prompt, completion = self.prompt_tokens, self.completion_tokens
        if self.is_plain:
            return (("prompt", prompt), ("completion", completion))
        cached = min(prompt, self.cached_tokens)
        written = min(prompt - cached, self.cache_write_tokens)
        heard = min(prompt - cached - written, self.audio_prompt_tokens)
        reasoning = min(completion, self.reasoning_tokens)
        spoken = min(completion - reasoning, self.audio_completion_tokens)
        return (
            ("prompt", prompt - cached - written - heard),
            ("prompt_cached", cached),
            ("prompt_cache_write", written),
            ("prompt_audio", heard),
            ("completion", completion - reasoning - spoken),
            ("reasoning", reasoning),
            ("completion_audio", spoken),
        )


COUNTS = Usage._fields[:-1]


@dataclass(slots=True)
class Tally:
    """
    What one request has been through so far: the one mutable value of the path.

    Filled by the stages, read by metrics, the log line and the response headers.
    """

    request_id: str
    surface: Surface
    model: str  # a configured name, or "unknown": it becomes a metric label
    stream: bool
    started_s: float  # on the service's monotonic clock
    caller: str = "none"
    target: str = "none"  # the label of the target that answered
    provider: str = "none"
    trail: list[str] = field(default_factory=list)  # `label:outcome`, an entry per physical call
    retries: int = 0
    fallbacks: int = 0
    hedged: str | None = None  # where two were asked: won (by the second), lost, failed, cancelled
    upstream_s: float = 0.0  # spent waiting at the sockets of providers
    waits_s: float = 0.0  # spent in backoff, and on a reader who is slower than the stream
    first_content_s: float | None = None  # moment, same clock
    last_content_s: float | None = None
    usage: Usage | None = None  # of all attempts
    nano_usd: int | None = None  # what they cost; None where nothing did or a price is not known
    requests_left: Standing | None = None  # the tightest of the caller's own limits
    tokens_left: Standing | None = None
    cache: str = "bypass"  # or hit, miss, stale, shared
    cache_age_s: float | None = None  # of an answer that was kept
    kept_of: str | None = None  # the provider that such an answer once came from
    outcome: str = "ok"  # a closed set: ok, cancelled, or an error's code
    status: int = 200

    def note(self, standings: Sequence[Standing]) -> None:
        """Take note of how the caller's own limits stand: the tightest of each unit is told."""
        requests = tokens = None
        for standing in standings:
            unit = standing.limit.unit
            if unit is REQUESTS and standing.limit.scope.kind is not OF_TARGET:
                requests = _tighter(requests, standing)
            elif unit is TOKENS and standing.limit.scope.kind is not OF_TARGET:
                tokens = _tighter(tokens, standing)
        self.requests_left = requests or self.requests_left
        self.tokens_left = tokens or self.tokens_left

    def spend(self, usage: Usage, nano_usd: int | None, *, reserved_tokens: int) -> None:
        """Add what an attempt took, for which `reserved_tokens` had been set aside."""
        if usage.prompt_tokens or usage.completion_tokens:
            self.usage = usage if self.usage is None else self.usage + usage
        if nano_usd:
            self.nano_usd = (self.nano_usd or 0) + nano_usd
        if self.tokens_left is not None:
            limit, used, reset_s = self.tokens_left
            used += usage.prompt_tokens + usage.completion_tokens - reserved_tokens
            self.tokens_left = Standing(limit, used, reset_s)


def _tighter(one: Standing | None, other: Standing) -> Standing:
    return other if one is None or other.remaining < one.remaining else one
