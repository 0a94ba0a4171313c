"""
Requests as they arrive, in pairs: one spelt in another way has the same key, one that differs in
anything that is passed on, or in who asks whom, has another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest

from proxy.api.surfaces import BY_SURFACE
from proxy.cache_key import key_of
from proxy.caching import Caching
from proxy.gateway import ring_of
from proxy.keys import key_parts
from proxy.policy import MobiusPolicy
from proxy.snapshot import Snapshot
from proxy.types import Caller, Group, Ring, Surface, Target
from tests.fakes import target

NAMES = ("temperature", "seed", "user", "tools", "stop", "metadata", "unknown", "logit_bias", "n")
TEXTS = ("", "a", "1", "true", "é", "\n", "日本", '"', "x" * 40, "\u2028", "null")
NUMBERS = (0, 1, -1, 2, 100, 2**53, 2**63 - 1, 2**64 - 1, 0.1, 1.5, 1e-7, 1e19, 1e300, -2.5)


class Maker:
    """Makes JSON, spells it in many ways and changes it, by chance that can be had again."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  # no secret

    def value(self, depth: int = 0) -> Any:
        kind = self.chance.randrange(6 if depth < 3 else 4)
        match kind:
            case 0:
                return self.chance.choice((None, True, False))
            case 1:
                return self.chance.choice(NUMBERS)
            case 2 | 3:
                return self.chance.choice(TEXTS)
            case 4:
                return [self.value(depth + 1) for _ in range(self.chance.randrange(4))]
            case _:
                names = self.chance.sample(TEXTS, self.chance.randrange(4))
                return {name: self.value(depth + 1) for name in names}

    def body(self) -> dict[str, Any]:
        names = self.chance.sample(NAMES, self.chance.randrange(6))
        messages = [
            {"role": "user", "content": self.value(1)} for _ in range(self.chance.randrange(1, 4))
        ]
        return {"model": "m", "messages": messages, **{name: self.value() for name in names}}

    def spelt(self, value: Any) -> str:
        """The JSON of a value in one of its many spellings."""
        gap = self.chance.choice(("", "", " ", "\n\t"))
        match value:
            case dict():
                items = list(value.items())
                self.chance.shuffle(items)
                pairs = (f"{gap}{self.spelt(k)}{gap}:{gap}{self.spelt(v)}" for k, v in items)
                return "{" + f"{gap},".join(pairs) + gap + "}"
            case list():
                return "[" + f"{gap},{gap}".join(map(self.spelt, value)) + gap + "]"
            case str():
                return self._text(value)
            case bool() | None:
                return orjson.dumps(value).decode()
            case _:
                return self._number(value)

    def _text(self, value: str) -> str:
        if self.chance.random() < 0.5:
            return orjson.dumps(value).decode()
        return '"' + "".join(f"\\u{ord(letter):04x}" for letter in value) + '"'

    def _number(self, value: float) -> str:
        plain = repr(value)
        if isinstance(value, int) and float(value) == value and abs(value) <= 2**53:
            return self.chance.choice((plain, f"{plain}.0", f"{plain}e0", f"{plain}.00E+0"))
        if isinstance(value, float) and value.is_integer() and value < 2**64:
            return self.chance.choice((plain, str(int(value))))
        return self.chance.choice((plain, plain.replace("e", "E")))

    def changed(self, body: dict[str, Any]) -> dict[str, Any]:
        """A body that differs in one place from this one."""
        changes: tuple[Callable[[Any], Any], ...] = (
            self._retyped,
            self._added,
            self._removed,
            self._turned,
        )
        while True:
            other = deepcopy(body)
            name = self.chance.choice([name for name in other if name != "model"])
            other[name] = self._within(other[name], self.chance.choice(changes))
            if self.chance.random() < 0.1:
                other[self.chance.choice(NAMES)] = self.value()
            elif self.chance.random() < 0.1 and name != "messages":
                del other[name]
            if _is_chat(other) and not same(body, other):
                return other

    def _within(self, value: Any, change: Callable[[Any], Any]) -> Any:
        if isinstance(value, dict | list) and value and self.chance.random() < 0.7:
            places = list(value) if isinstance(value, dict) else range(len(value))
            place = self.chance.choice(places)
            value[place] = self._within(value[place], change)
            return value
        return change(value)

    def _retyped(self, value: Any) -> Any:
        options: list[Any] = [str(value), [value], {"": value}, None, True, 1, "1", 1.5, 0, False]
        return self.chance.choice(options)

    def _added(self, value: Any) -> Any:
        match value:
            case list():
                return [*value, self.value(2)]
            case dict():
                return {**value, "added": self.value(2)}
            case str():
                return value + " "
            case _:
                return self.value()

    def _removed(self, value: Any) -> Any:
        match value:
            case list() | str():
                return value[1:]
            case dict():
                return dict(list(value.items())[1:])
            case _:
                return None

    def _turned(self, value: Any) -> Any:
        return value[::-1] if isinstance(value, list | str) else self.value()


def _is_chat(body: dict[str, Any]) -> bool:
    messages = body.get("messages")
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(isinstance(message, dict) for message in messages)
    )


def same(one: Any, other: Any) -> bool:
    """Equal as JSON, where true is not 1 and 1.0 is."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    if isinstance(one, bool) or isinstance(other, bool) or not numbers:
        return type(one) is type(other) and bool(one == other)
    return bool(one == other)


WEB = Caller("web", team="product")
TARGETS = (target("a"), target("b"))
ENABLED = Caching(enabled=True)


@dataclass(frozen=True)
class Asks:
    """Who asks, and under which file."""

    caller: Caller = WEB
    targets: tuple[Target, ...] = TARGETS
    caching: Caching = ENABLED
    surface: Surface = Surface.CHAT
    headers: Mapping[str, str] = field(default_factory=dict)

    def key(self, raw: str, model: str = "m") -> str:
        call = BY_SURFACE[self.surface].parse(raw.encode(), 64)
        call = replace(call, model=model, headers=self.headers)
        rings = {name: Ring(name, (Group(name, self.targets),)) for name in ("m", "m2")}
        snapshot = Snapshot(policy=MobiusPolicy(), rings=rings, caching=self.caching)
        parts = key_parts(call, self.caller, ring_of(call, self.caller, snapshot), snapshot)
        assert parts is not None
        return key_of(parts)


PLAIN = Asks()
OTHERS = (
    Asks(caller=Caller("batch", team="product")),
    Asks(caching=Caching(enabled=True, namespace="x")),
    Asks(caching=Caching(enabled=True, scope="team")),
    Asks(caching=Caching(enabled=True, scope="shared")),
    Asks(targets=(target("b"), target("a"))),
    Asks(targets=(target("a"),)),
    Asks(targets=(target("a", params={"extra_body": {"seed": 1}}), target("b"))),
    Asks(targets=(target("a", params={"extra_body": {"seed": True}}), target("b"))),
    Asks(targets=(target("a", params={"extra_body": {"seed": "1"}}), target("b"))),
    Asks(targets=(target("a", params={"extra_headers": {"x": "1"}}), target("b"))),
    Asks(targets=(target("a", defaults={"temperature": 1}), target("b"))),
    Asks(targets=(target("a", drop_params=True), target("b"))),
    Asks(surface=Surface.MESSAGES),
    Asks(surface=Surface.MESSAGES, headers={"anthropic-beta": "x"}),
    Asks(surface=Surface.MESSAGES, headers={"anthropic-version": "x"}),
)


def check_pairs(count: int, seed: int) -> int:
    """Return how many pairs of different requests share a key; equal ones must."""
    maker, shared = Maker(seed), 0
    for number in range(count):
        body = maker.body()
        key = PLAIN.key(maker.spelt(body))
        assert PLAIN.key(maker.spelt(body)) == key, body
        if number % 10:
            shared += PLAIN.key(maker.spelt(maker.changed(body))) == key
        elif number % 20:
            shared += maker.chance.choice(OTHERS).key(maker.spelt(body)) == key
        else:
            shared += PLAIN.key(maker.spelt(body), model="m2") == key
    return shared


def test_different_requests_share_no_key() -> None:
    assert check_pairs(2000, seed=1) == 0


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_hundred_thousand_pairs_share_no_key(seed: int) -> None:
    assert check_pairs(10_000, seed) == 0


def test_nobody_shares_with_anybody_else() -> None:
    raw = '{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
    keys = [each.key(raw) for each in (PLAIN, *OTHERS)]
    assert len(set(keys)) == len(keys)
