"""Fallbacks and aliases that are not as they should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.loading import lines, load_text, mock_model, names, refusal, ring

MODELS = "model_list:\n" + mock_model("gpt-4o") + mock_model("claude") + mock_model('"team/*"')


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ("fallbacks: [{gpt-4o: [claud]}]", "there is no model claud; the nearest name is claude"),
        ("fallbacks: [{gpt-4o: [somebody-else]}]", "there is no model somebody-else"),
        ("fallbacks: [{gtp-4o: [claude]}]", "there is no model gtp-4o; the nearest name is gpt-4o"),
        ("fallbacks: {gpt-4o: [claude]}", "router_settings.fallbacks takes a list"),
        ("fallbacks: [{gpt-4o: claude}]", "router_settings.fallbacks of gpt-4o takes a list"),
        ("fallbacks: [gpt-4o]", "an entry of router_settings.fallbacks takes a mapping"),
        ("fallbacks: [{gpt-4o: [[claude]]}]", "router_settings.fallbacks of gpt-4o takes a single"),
        ("fallbacks: [{gpt-4o: [{modell: claude}]}]", "takes names of models"),
        ("fallbacks: [{gpt-4o: ['team/*']}]", "team/* has more * than the name it stands for"),
        (
            "default_fallbacks: [claud]",
            "router_settings.default_fallbacks: there is no model claud",
        ),
        ("default_fallbacks: ['team/*']", "has more * than the name it stands for"),
        (
            "context_window_fallbacks: [{gpt-4o: [x]}]",
            "context_window_fallbacks of gpt-4o: there is",
        ),
        (
            "content_policy_fallbacks: [{x: [claude]}]",
            "content_policy_fallbacks: there is no model x",
        ),
        ("model_group_alias: {best: gpt-5}", "model_group_alias of best: there is no model gpt-5"),
        ("model_group_alias: {best: }", "model_group_alias.best takes the name of a model"),
        ("model_group_alias: {a: gpt-4o, b: a}", "model_group_alias of b: there is no model a"),
        ("model_group_alias: [x]", "router_settings.model_group_alias takes a mapping"),
    ],
)
def test_a_name_that_leads_nowhere_is_an_error(tmp_path: Path, settings: str, text: str) -> None:
    error = refusal(tmp_path, f"{MODELS}router_settings:\n  {settings}\n")
    assert {remark.line for remark in error.remarks} == {6}
    assert text in str(error)


def test_a_name_that_a_wildcard_answers_is_there(tmp_path: Path) -> None:
    settings = "router_settings: {fallbacks: [{gpt-4o: [team/x, claude]}, {team/y: [gpt-4o]}]}\n"
    snapshot = load_text(tmp_path, MODELS + settings).snapshot
    assert names(snapshot, "gpt-4o") == ["gpt-4o", "team/x", "claude"]
    assert names(snapshot, "team/y") == ["team/y", "gpt-4o"]
    assert names(snapshot, "team/z") == ["team/z"]


def test_an_alias_may_stand_for_a_name_under_a_wildcard(tmp_path: Path) -> None:
    settings = (
        "router_settings: {model_group_alias: {best: team/x}, fallbacks: [{gpt-4o: [best]}]}\n"
    )
    snapshot = load_text(tmp_path, MODELS + settings).snapshot
    assert names(snapshot, "best") == ["team/x"]
    assert names(snapshot, "gpt-4o") == ["gpt-4o", "team/x"]


def test_a_fallback_to_ones_own_alias_is_oneself(tmp_path: Path) -> None:
    alias = "model_group_alias: {best: gpt-4o}"
    settings = f"router_settings: {{{alias}, fallbacks: [{{gpt-4o: [best, claude]}}]}}\n"
    snapshot = load_text(tmp_path, MODELS + settings).snapshot
    assert names(snapshot, "gpt-4o") == ["gpt-4o", "claude"]
    assert names(snapshot, "best") == ["gpt-4o", "claude"], (
        "an alias has the fallbacks of its model"
    )


def test_an_error_in_a_model_does_not_make_its_name_unknown(tmp_path: Path) -> None:
    text = MODELS.replace("mock_response: hi", "rpm: x", 1)
    error = refusal(tmp_path, text + "router_settings: {fallbacks: [{claude: [gpt-4o]}]}\n")
    assert lines(error.remarks) == [(2, "rpm takes a number of at least 0")]


def test_messages_of_a_fallback_are_not_acted_on(tmp_path: Path) -> None:
    settings = "router_settings: {fallbacks: [{gpt-4o: [{model: claude, messages: []}]}]}\n"
    config = load_text(tmp_path, MODELS + settings)
    assert names(config.snapshot, "gpt-4o") == ["gpt-4o", "claude"]
    assert [warning.text for warning in config.warnings] == [
        "router_settings.fallbacks of gpt-4o: Mobius does not act on messages"
    ]


def test_a_ring_has_the_retries_of_its_first_deployment_that_says_so(tmp_path: Path) -> None:
    text = "model_list:\n" + mock_model("a") + mock_model("a", num_retries=0) + mock_model("b")
    snapshot = load_text(tmp_path, text).snapshot
    assert [ring(snapshot, name).num_retries for name in ("a", "b")] == [0, None]
