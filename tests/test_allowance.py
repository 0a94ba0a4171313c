"""Which limits of the file a request stands under."""

from __future__ import annotations

from proxy.allowance import Allowances, limits_of
from proxy.limits import Limit, Scope, ScopeKind, Unit, Window
from proxy.policy import BudgetUsd, Limits
from proxy.types import Caller

WEB = Caller("web", team="product")
KEY, TEAM = Scope(ScopeKind.KEY, "web"), Scope(ScopeKind.TEAM, "product")


def words(limits: tuple[Limit, ...]) -> list[str]:
    return [f"{each.scope.kind}:{each.scope.name}:{each.word}={each.most}" for each in limits]


def test_a_section_says_what_is_counted_and_over_which_time() -> None:
    written = Limits(
        rpm=1,
        tpm=2,
        rpd=3,
        tpd=4,
        max_parallel=5,
        max_tokens_per_request=6,
        budget_usd=BudgetUsd(day=0.1, month=2.5, total=0),
    )
    assert {(x.word, x.unit, x.window, x.most) for x in limits_of(KEY, written)} == {
        ("rpm", Unit.REQUESTS, Window.MINUTE, 1),
        ("tpm", Unit.TOKENS, Window.MINUTE, 2),
        ("rpd", Unit.REQUESTS, Window.DAY, 3),
        ("tpd", Unit.TOKENS, Window.DAY, 4),
        ("max_parallel", Unit.PARALLEL, Window.NOW, 5),
        ("budget_usd.day", Unit.NANO_USD, Window.DAY, 100_000_000),
        ("budget_usd.month", Unit.NANO_USD, Window.MONTH, 2_500_000_000),
        ("budget_usd.total", Unit.NANO_USD, Window.TOTAL, 0),
    }
    assert limits_of(KEY, Limits()) == ()


def test_a_request_counts_for_all_whose_it_is_whether_limited_or_not() -> None:
    allowance = Allowances().of(WEB, user="ann", model="m")
    assert [(scope.kind, scope.name) for scope in allowance.scopes] == [
        ("key", "web"),
        ("team", "product"),
        ("user", "ann"),
        ("model", "m"),
    ]
    assert (allowance.admission, allowance.spending, allowance.most_tokens) == ((), (), None)
    nobody = Allowances().of(Caller("web"), user=None, model="m")
    assert [scope.kind for scope in nobody.scopes] == ["key", "model"]


def test_all_limits_hold_together_and_each_at_its_stage() -> None:
    file = Allowances(
        keys={"web": Limits(rpm=1, tpm=2), "other": Limits(rpm=9)},
        teams={"product": Limits(max_parallel=3)},
        users={"ann": Limits(rpd=4)},
        models={"m": Limits(budget_usd=BudgetUsd(day=5))},
    )
    allowance = file.of(WEB, user="ann", model="m")
    assert words(allowance.admission) == [
        "key:web:rpm=1",
        "team:product:max_parallel=3",
        "user:ann:rpd=4",
    ]
    assert words(allowance.spending) == ["key:web:tpm=2", "model:m:budget_usd.day=5000000000"]
    assert allowance.has_budget
    assert not file.of(WEB, user="ann", model="n").has_budget


def test_a_user_without_an_entry_has_the_default_one_for_itself() -> None:
    file = Allowances(users={"default": Limits(rpm=2), "ann": Limits(rpm=5)})
    assert words(file.of(WEB, user="bob", model="m").admission) == ["user:bob:rpm=2"]
    assert words(file.of(WEB, user="ann", model="m").admission) == ["user:ann:rpm=5"]
    assert file.of(WEB, user=None, model="m").admission == ()


def test_a_pattern_limits_all_that_match_it_together_beside_the_names_own() -> None:
    file = Allowances(
        models={"claude-*": Limits(rpm=2), "claude-x": Limits(rpm=1), "gpt": Limits(rpm=7)}
    )
    assert words(file.of(WEB, user=None, model="claude-x").admission) == [
        "model:claude-x:rpm=1",
        "model:claude-*:rpm=2",
    ]
    assert words(file.of(WEB, user=None, model="claude-y").admission) == ["model:claude-*:rpm=2"]


def test_brackets_and_question_marks_of_a_pattern_are_letters_of_a_name() -> None:
    file = Allowances(models={"a[1m]*": Limits(rpm=2), "b?": Limits(rpm=3)})
    assert words(file.of(WEB, user=None, model="a[1m]-x").admission) == ["model:a[1m]*:rpm=2"]
    for model in ("a1", "am-x", "bc"):
        assert file.of(WEB, user=None, model=model).admission == ()


def test_a_name_with_a_star_that_is_asked_for_as_it_stands_counts_once() -> None:
    file = Allowances(models={"claude-*": Limits(rpm=2)})
    assert words(file.of(WEB, user=None, model="claude-*").admission) == ["model:claude-*:rpm=2"]


def test_of_several_limits_for_one_request_the_least_holds() -> None:
    file = Allowances(
        keys={"web": Limits(max_tokens_per_request=100)},
        teams={"product": Limits(max_tokens_per_request=50)},
        models={"m": Limits(max_tokens_per_request=70)},
    )
    assert file.of(WEB, user=None, model="m").most_tokens == (TEAM, 50)


def test_what_is_watched_are_the_limits_whose_scope_the_file_names() -> None:
    file = Allowances(
        keys={"web": Limits(rpm=1)},
        teams={"product": Limits(tpm=2)},
        users={"default": Limits(rpm=3), "ann": Limits(rpm=3)},
        models={"claude-*": Limits(rpd=4)},
    )
    assert words(file.configured()) == [
        "key:web:rpm=1",
        "team:product:tpm=2",
        "model:claude-*:rpd=4",
    ]


def test_a_file_without_limits_limits_nobody() -> None:
    assert not Allowances().any
    assert Allowances(users={"default": Limits(rpm=3)}).any
