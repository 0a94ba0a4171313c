"""The frozen view: names to rings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.facts import FREE, NOTHING_STATED, UNKNOWN, ModelFacts, Stated
from proxy.snapshot import Fallbacks, Snapshot, Wildcard, compose, identity_of
from proxy.types import Group, Ring, Target


def target(group: str, model: str = "x", provider: str = "openai") -> Target:
    return Target(
        label=f"{group}/{provider}/{model}",
        group=group,
        provider=provider,
        model=model,
        identity=identity_of("credential", model),
        credential="credential",
    )


def group(name: str, model: str = "x") -> Group:
    return Group(name, (target(name, model),))


def snapshot(*wildcards: tuple[str, str], **rings: str) -> Snapshot:
    return Snapshot(
        rings={name: Ring(name, (group(name, model),)) for name, model in rings.items()},
        wildcards=tuple(Wildcard(pattern, group(pattern, model)) for pattern, model in wildcards),
    )


def test_an_exact_name_wins_over_a_wildcard() -> None:
    subject = snapshot(("*", "*"), a="exact")
    ring = subject.ring("a")
    assert ring is subject.rings["a"]


def test_a_name_that_nothing_answers_has_no_ring() -> None:
    assert snapshot(a="x").ring("b") is None
    assert snapshot(("a/*", "*")).ring("b/c") is None


def test_a_ring_under_a_wildcard_says_which() -> None:
    ring = snapshot(("openai/*", "*")).ring("openai/gpt-4o")
    assert ring is not None
    assert (ring.model, ring.pattern) == ("openai/gpt-4o", "openai/*")
    assert ring.groups[0].name == "openai/gpt-4o"


def test_targets_under_a_wildcard_have_the_identity_of_the_model_they_call() -> None:
    subject = snapshot(("openai/*", "*"), a="gpt-4o")
    under, exact, other = (subject.ring(name) for name in ("openai/gpt-4o", "a", "openai/o3"))
    assert under is not None
    assert exact is not None
    assert other is not None
    (first,), (second,), (third,) = (ring.groups[0].targets for ring in (under, exact, other))
    assert first.identity == second.identity != third.identity
    assert first.label == third.label, "labels become metric series, so they stay few"


class Asked:
    """A catalogue that tells what it was asked for, in the only number it knows."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, str, Stated]] = []

    def find(self, provider: str, model: str, stated: Stated = NOTHING_STATED) -> ModelFacts:
        self.questions.append((provider, model, stated))
        return ModelFacts(price=FREE, max_input_tokens=len(model))


def test_targets_under_a_wildcard_get_the_facts_of_the_model_they_call() -> None:
    catalogue, stated = Asked(), Stated(numbers=(("input_cost_per_token", 1e-6),))
    wild = replace(target("o/*", "*"), stated=stated)
    subject = Snapshot(
        wildcards=(Wildcard("o/*", Group("o/*", (wild, target("o/*", "fixed")))),),
        catalogue=catalogue,
    )
    ring = subject.ring("o/gpt-4o")
    assert ring is not None
    concrete, fixed = ring.groups[0].targets
    assert concrete.facts == ModelFacts(price=FREE, max_input_tokens=len("gpt-4o"))
    assert fixed.facts == UNKNOWN, "a model without a * is known when the file is read"
    assert catalogue.questions == [("openai", "gpt-4o", stated)]


def test_a_fallback_under_a_wildcard_has_its_facts_too() -> None:
    catalogue = Asked()
    ring = compose(
        "a",
        exact={"a": group("a")}.get,
        wildcards=(Wildcard("o/*", group("o/*", "*")),),
        fallbacks=Fallbacks(default=("o/x", "o/yz")),
        catalogue=catalogue,
    )
    assert ring is not None
    limits = [each.targets[0].facts.max_input_tokens for each in ring.groups]
    assert limits == [None, 1, 2]


@pytest.mark.parametrize("name", ["x" * 513, "a\nb", "a\x00b", "openai/"])
def test_a_strange_name_is_not_matched(name: str) -> None:
    assert snapshot(("openai/*", "*"), ("x*", "*"), ("a*", "*")).ring(name) is None


@pytest.mark.parametrize(
    "part",
    [
        "../../evil?x=1#", "..", "a/../b", "a..b", "./b", "a?x=1", "a#b", "a%2e%2e", "a\\b",
        "a b", "a\u00a0b", "/b", "b/", "a//b", "",
    ],
)  # fmt: skip
def test_a_name_cannot_steer_our_key_to_another_path_of_the_provider(part: str) -> None:
    subject = snapshot(("gemini/*", "*"), ("*", "models/*"))
    assert subject.ring(f"gemini/{part}") is None


@pytest.mark.parametrize("part", ["gemini-2.5-pro", "org/model:free", "model@001", "a-b_c.d"])
def test_a_name_as_providers_have_them_is_matched(part: str) -> None:
    assert snapshot(("gemini/*", "*")).ring(f"gemini/{part}") is not None


def test_a_star_may_stand_for_nothing_inside_a_name() -> None:
    assert snapshot(("gpt*", "gpt*")).ring("gpt") is not None


def test_more_stars_than_places_leave_the_name_as_it_was_asked_for() -> None:
    ring = snapshot(("*/x/*", "y-*")).ring("a/x/b")
    assert ring is not None
    assert ring.groups[0].targets[0].model == "a/x/b"


def test_the_names_to_list_are_without_wildcards_and_hidden_aliases() -> None:
    rings = {name: Ring(name, (group(name),)) for name in ("a", "b", "secret")}
    subject = Snapshot(
        rings=rings, wildcards=(Wildcard("*", group("*")),), hidden=frozenset({"secret"})
    )
    assert subject.models() == ("a", "b")


def test_every_target_is_listed_once() -> None:
    a, b = group("a"), group("b")
    subject = Snapshot(
        rings={"a": Ring("a", (a, b)), "alias": Ring("alias", (a,)), "b": Ring("b", (b,))},
        wildcards=(Wildcard("*", group("*", "*")),),
    )
    assert [target.label for target in subject.targets()] == [
        "a/openai/x",
        "b/openai/x",
        "*/openai/*",
    ]


def test_fallbacks_are_looked_up_by_alias_then_name_then_wildcard() -> None:
    groups = {name: group(name) for name in ("a", "b", "c", "d")}
    wildcards = (Wildcard("w/*", group("w/*", "*")),)

    def composed(fallbacks: Fallbacks, name: str, alias: str | None = None) -> list[str]:
        ring = compose(
            name, exact=groups.get, wildcards=wildcards, fallbacks=fallbacks, alias=alias
        )
        assert ring is not None
        return [group.name for group in ring.groups]

    table = {"a": ("b",), "alias": ("c",), "w/*": ("d", "w/z"), "w/x": ("a",)}
    fallbacks = Fallbacks(general=table, default=("d",))
    assert composed(fallbacks, "a") == ["a", "b"]
    assert composed(fallbacks, "a", alias="alias") == ["a", "c"]
    assert composed(fallbacks, "a", alias="other") == ["a", "b"]
    assert composed(fallbacks, "c") == ["c", "d"]
    assert composed(fallbacks, "w/x") == ["w/x", "a"]
    assert composed(fallbacks, "w/y") == ["w/y", "d", "w/z"]
    assert composed(fallbacks, "w/z") == ["w/z", "d"]
