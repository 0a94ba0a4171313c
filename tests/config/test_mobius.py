"""The section `mobius:`, and who may ask."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.config.loading import lines, load_text, mock_model, refusal

MODELS = "model_list:\n" + mock_model("a")
HASH = hashlib.sha256(b"sk-web").hexdigest()


@pytest.mark.parametrize(
    ("section", "line", "text"),
    [
        ("  deadlne: 3\n", 4, "mobius.deadlne is not known; the nearest name is deadline"),
        (
            "  timeouts:\n    idel: 3\n",
            5,
            "mobius.timeouts.idel is not known; the nearest name is idle",
        ),
        ("  colour: 3\n", 4, "mobius.colour is not known; it takes"),
        ("  deadline: soon\n", 4, "mobius.deadline: must be a number"),
        ("  deadline: -1\n", 4, "mobius.deadline: must be greater than 0"),
        ("  deadline: yes\n", 4, "mobius.deadline takes a value, not yes or true"),
        ("  laps: 1.5\n", 4, "mobius.laps: must be a whole number"),
        ("  breaker: 5\n", 4, "mobius.breaker: must be a mapping"),
        ("  keys: {a: b}\n", 4, "mobius.keys: must be a list"),
        ("  keys:\n    - key: x\n", 5, "mobius.keys has no name"),
        (
            "  users:\n    default: {rmp: 3}\n",
            5,
            "mobius.users.default.rmp is not known; the nearest",
        ),
        ("  metrics: {access: {port: 0}}\n", 4, "mobius.metrics.access"),
        ("  deadline: os.environ/LIMIT\n", 4, "mobius.deadline: the variable LIMIT is not set"),
    ],
)
def test_an_error_of_the_section_has_its_line(
    tmp_path: Path, section: str, line: int, text: str
) -> None:
    error = refusal(tmp_path, MODELS + "mobius:\n" + section)
    assert {remark.line for remark in error.remarks} == {line}
    assert error.remarks[0].text.startswith(text)


def test_keys_become_callers_under_the_hash_of_the_key(tmp_path: Path) -> None:
    config = load_text(
        tmp_path,
        MODELS
        + "general_settings: {master_key: os.environ/MASTER}\n"
        + "mobius:\n  keys:\n"
        + "    - {name: web, key: os.environ/WEB, team: product, models: [a, 'claude-*']}\n"
        + f"    - {{name: batch, key_sha256: '{hashlib.sha256(b'x').hexdigest().upper()}',"
        + " expires: 2030-01-01}\n"
        + "    - {name: ops, key_sha256: "
        + f"{hashlib.sha256(b'y').hexdigest()}, expires: '2030-01-01T12:00:00+02:00'}}\n",
        {"MASTER": "sk-master", "WEB": "sk-web"},
    )
    assert config.warnings == ()
    callers = config.snapshot.callers
    assert callers[hashlib.sha256(b"sk-master").hexdigest()].admin
    web = callers[HASH]
    assert (web.name, web.team, web.models, web.admin) == (
        "web",
        "product",
        ("a", "claude-*"),
        False,
    )
    assert web.expires_at is None
    assert callers[hashlib.sha256(b"x").hexdigest()].expires_at == 1_893_456_000.0
    assert callers[hashlib.sha256(b"y").hexdigest()].expires_at == 1_893_456_000.0 + 10 * 3600
    assert "sk-web" not in repr(config)
    assert config.snapshot.policy.keys[0].key is None, "no key is kept"


@pytest.mark.parametrize(
    ("keys", "lines_", "text"),
    [
        (["{name: web}"], [3], "web takes either key or key_sha256"),
        (["{name: web, key: ''}"], [3], "web takes either key or key_sha256"),
        ([f"{{name: web, key: none, key_sha256: {HASH}}}"], [3], "web takes either key or"),
        (["{name: web, key: none}", "{name: web, key: dummy}"], [4], "line 3 has the same name"),
        (
            ["{name: web, key: os.environ/WEB}", f"{{name: app, key_sha256: {HASH}}}"],
            [4],
            "this is also the key of web",
        ),
        (["{name: master, key: none}"], [3], "has the same name"),
        (["{name: 'web\\n', key: none}"], [3], "String should match pattern"),
        (["{name: web, key: none, expires: tomorrow}"], [3], "takes an ISO 8601 date or time"),
        (["{name: web, key: os.environ/NOPE}"], [3], "the variable NOPE is not set"),
        (["{name: web, key_sha256: abc}"], [3], "String should match pattern"),
    ],
)
def test_a_key_that_cannot_be_used_is_an_error(
    tmp_path: Path, keys: list[str], lines_: list[int], text: str
) -> None:
    rows = "".join(f"    - {key}\n" for key in keys)
    error = refusal(
        tmp_path,
        "mobius:\n  keys:\n"
        + rows
        + MODELS
        + "general_settings: {master_key: os.environ/MASTER}\n",
        {"MASTER": "sk-master", "WEB": "sk-web"},
    )
    assert [remark.line for remark in error.remarks] == lines_
    assert text in str(error)


def test_a_literal_key_is_accepted_with_a_warning_that_does_not_repeat_it(tmp_path: Path) -> None:
    config = load_text(
        tmp_path,
        MODELS + "general_settings:\n  master_key: sk-1234\n"
        "mobius:\n  keys:\n    - {name: web, key: sk-web}\n",
    )
    hint = "stands here as it is; os.environ/NAME keeps it out of the file"
    assert lines(config.warnings) == [
        (4, f"general_settings.master_key {hint}"),
        (7, f"mobius.keys.key {hint}"),
    ]
    assert HASH in config.snapshot.callers


def test_an_empty_master_key_is_none(tmp_path: Path) -> None:
    for value in ("''", "~"):
        config = load_text(tmp_path, MODELS + f"general_settings: {{master_key: {value}}}\n")
        assert config.snapshot.callers == {}


def test_settings_that_say_the_default_need_no_warning(tmp_path: Path) -> None:
    config = load_text(
        tmp_path, MODELS + "mobius: {ai: {model: chat}, ledger: {keep_days: 400}, slo: {}}\n"
    )
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("section", "errors"),
    [
        ("timeouts: {first_token: soon}", ["mobius.timeouts.first_token: must be a number"]),
        ("timeouts: {first_token: 0}", ["mobius.timeouts.first_token: must be greater than 0"]),
        ("timeouts: {first_token: }", ["mobius.timeouts.first_token: must be a number or auto"]),
        ("timeouts: {answer: auto}", ["mobius.timeouts.answer: must be a number"]),
        ("hedge: {budget: 2}", ["mobius.hedge.budget: must be at most 1"]),
        ("hedge: {after: soon}", ["mobius.hedge.after: must be a number"]),
        ("hedge: {after: 0}", ["mobius.hedge.after: must be greater than 0"]),
    ],
)
def test_when_another_is_asked_is_a_number_or_a_word_that_is_known(
    tmp_path: Path, section: str, errors: list[str]
) -> None:
    error = refusal(tmp_path, MODELS + f"mobius: {{{section}}}\n")
    assert [remark.text for remark in error.remarks] == errors


def test_the_words_for_it_are_taken_without_a_warning(tmp_path: Path) -> None:
    for after, expected in (("off", None), ("'off'", None), ("p90", "p90"), ("1.5", 1.5)):
        section = f"mobius: {{hedge: {{after: {after}, budget: 0.1}}}}\n"
        config = load_text(tmp_path, MODELS + section)
        assert config.warnings == ()
        assert config.snapshot.policy.hedge.after == expected


def test_everything_in_our_own_section_is_acted_on(tmp_path: Path) -> None:
    section = (
        "mobius:\n"
        "  ai: {model: a}\n  cache: {scope: team}\n  hedge: {after: 1}\n"
        "  lanes: {openai: unified}\n"
        "  ledger: {keep_days: 1}\n  quota: {default_max_tokens: 1}\n  slo: {first_token_s: 1}\n"
        "  users: {default: {rpm: 1}}\n  metrics: {access: {port: 9090}}\n"
        f"  keys: [{{name: web, key_sha256: {HASH}, limits: {{rpm: 1}}, cache_scope: team}}]\n"
        "  teams: [{name: product, limits: {rpm: 1}}]\n"
    )
    assert load_text(tmp_path, MODELS + section).warnings == ()


def test_the_model_behind_the_small_api_is_one_of_the_file(tmp_path: Path) -> None:
    models = "model_list:\n" + mock_model("chats")
    error = refusal(tmp_path, models + "mobius:\n  ai:\n    model: chast\n")
    (remark,) = error.remarks
    assert (remark.line, remark.text) == (
        5,
        "mobius.ai.model: there is no model chast; the nearest name is chats",
    )
    wildcard = "model_list:\n" + mock_model("any-*")
    config = load_text(tmp_path, wildcard + "mobius: {ai: {model: any-thing}}\n")
    assert config.snapshot.policy.ai.model == "any-thing"
    assert config.warnings == ()
