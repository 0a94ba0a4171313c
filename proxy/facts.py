"""
What is known of a model: what its tokens cost, and how many of them it takes. Values only.

Prices are whole pico-dollars (1e-12 USD) for a token: in that unit every price of LiteLLM's table
is a whole number, and in nano-dollars it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

# Other words for a tier of service. Any word that is no tier of a price means the ordinary one.
SERVICE_TIER_ALIASES: Mapping[str, str] = {"fast": "priority"}


@dataclass(frozen=True, slots=True)
class Rates:
    """
    Pico-dollars for one token of each kind, in requests of a certain length.

    They hold for the whole request once its prompt has `least_prompt_tokens`.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0  # kept for five minutes
    cache_write_1h: int = 0
    reasoning: int = 0
    audio_prompt: int = 0
    audio_completion: int = 0
    least_prompt_tokens: int = 0
    # What a token costs at most, of whatever kind: every request with a limit asks.
    dearest_prompt: int = field(init=False, repr=False, compare=False)
    dearest_completion: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        prompt = (self.prompt, self.cached, self.cache_write, self.cache_write_1h)
        completion = (self.completion, self.reasoning)
        object.__setattr__(self, "dearest_prompt", max(*prompt, self.audio_prompt))
        object.__setattr__(self, "dearest_completion", max(*completion, self.audio_completion))


@dataclass(frozen=True, slots=True)
class Price:
    """What the tokens of a model cost. `rates` begin with those of the shortest prompts."""

    rates: tuple[Rates, ...]
    service_tiers: Mapping[str, tuple[Rates, ...]] = field(default_factory=dict, hash=False)

    def of(self, service_tier: str | None) -> tuple[Rates, ...]:
        """Return the rates in a tier of service; the ordinary ones where it has none of its own."""
        tier = service_tier.lower() if service_tier else ""
        return self.service_tiers.get(SERVICE_TIER_ALIASES.get(tier, tier), self.rates)


FREE = Price((Rates(),))


@dataclass(frozen=True, slots=True)
class Habits:
    """What LiteLLM's table says of a model under exactly its own name, at its own provider."""

    max_output_tokens: int | None  # None: the table does not have the name
    has: frozenset[str] = frozenset()  # LiteLLM's names of the habits that it is said to have
    lacks: frozenset[str] = frozenset()  # and of those that it is said not to have


@dataclass(frozen=True, slots=True)
class SoundPrice:
    """Pico-dollars for what is spoken and heard. None: it is charged by tokens, or not known."""

    character: int | None = None  # of a text to be spoken
    second: int | None = None  # of a recording


SILENT = SoundPrice()
FREE_SOUND = SoundPrice(0, 0)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of one model. None: nobody knows, which is not the same as free."""

    price: Price | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    sound: SoundPrice = SILENT
    cannot: frozenset[str] = frozenset()  # LiteLLM's names of capabilities that it surely lacks
    habits: Habits | None = None
    prefills: bool = False  # surely goes on with an answer whose beginning it is given
    # For whoever lists models, by LiteLLM's names; nothing is decided by it.
    listed: tuple[tuple[str, bool | float | str], ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Stated:
    """What the file says of a target's model itself; each number wins over that of the table."""

    base_model: str | None = None  # the name to look up, where the target's own says nothing
    numbers: tuple[tuple[str, float], ...] = ()  # by LiteLLM's names, as input_cost_per_token
    region: str | None = None  # where the model runs, if the provider's prices differ by that
    mocked: bool = False  # no provider is asked, so it costs nothing


UNKNOWN = ModelFacts()
NOTHING_STATED = Stated()


STRANGER = Habits(None)  # a model that the table does not name


class Catalogue(Protocol):
    """Where the facts of a model are looked up."""

    def find(self, provider: str, model: str, stated: Stated = NOTHING_STATED) -> ModelFacts: ...


class EmptyCatalogue:
    """A catalogue without a model: every fact is unknown."""

    def find(self, provider: str, model: str, stated: Stated = NOTHING_STATED) -> ModelFacts:
        return UNKNOWN
