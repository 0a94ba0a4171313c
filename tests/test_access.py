"""Keys to callers, and callers to models."""

from __future__ import annotations

import hashlib

import pytest

from proxy.access import ANONYMOUS, check_model, find_caller, model_unknown
from proxy.errors import KeyRejected, ModelForbidden
from proxy.types import Caller

WEB = Caller("web", models=("gpt-*", "claude"))
OLD = Caller("old", expires_at=100.0)
CALLERS = {
    hashlib.sha256(key).hexdigest(): who for key, who in ((b"sk-web", WEB), (b"sk-old", OLD))
}


def test_a_key_is_found_by_its_sha256_which_is_litellm_s_own_hash() -> None:
    assert find_caller(CALLERS, b"sk-web", wall_s=0.0) is WEB


def test_without_any_key_configured_everybody_is_anonymous() -> None:
    assert find_caller({}, b"", wall_s=0.0) is ANONYMOUS
    assert find_caller({}, b"whatever", wall_s=0.0) is ANONYMOUS
    assert not ANONYMOUS.admin


def test_a_key_opens_until_it_expires() -> None:
    assert find_caller(CALLERS, b"sk-old", wall_s=99.9) is OLD
    with pytest.raises(KeyRejected):
        find_caller(CALLERS, b"sk-old", wall_s=100.0)


@pytest.mark.parametrize(
    "key", [b"", b"sk-webb", b"\xff\x00", b"x" * 30_000, *map(str.encode, CALLERS)]
)
def test_every_key_that_opens_nothing_gets_the_same_answer(key: bytes) -> None:
    with pytest.raises(KeyRejected) as refused:
        find_caller(CALLERS, key, wall_s=100.0)
    assert refused.value.message == "no valid API key: it is missing, unknown or expired"


def test_a_model_outside_the_patterns_is_forbidden_by_name() -> None:
    check_model(WEB, "gpt-4o")
    with pytest.raises(ModelForbidden) as refused:
        check_model(WEB, "gemini")
    assert "`gemini`" in refused.value.message
    assert refused.value.param == "model"


@pytest.mark.parametrize("name", ["claude-1", "claude-m", "gpt-4"])
def test_a_key_for_a_name_with_brackets_is_for_no_other(name: str) -> None:
    caller = Caller("x", models=("claude-[1m]", "gpt-?"))
    check_model(caller, "claude-[1m]")
    with pytest.raises(ModelForbidden):
        check_model(caller, name)


def test_a_caller_without_patterns_may_ask_every_model() -> None:
    check_model(ANONYMOUS, "anything")


def test_an_unknown_model_is_told_the_nearest_names_that_the_caller_may_ask() -> None:
    names = ["gpt-4o", "gpt-4.1", "claude", "claud"]
    assert "did you mean `gpt-4o`" in model_unknown(WEB, "gpt-4oo", names).message
    assert "`claud`" not in model_unknown(WEB, "claudd", names).message
    assert model_unknown(WEB, "zzz", names).message == "the model `zzz` does not exist"


def test_a_long_invented_name_is_not_repeated_in_full() -> None:
    assert len(model_unknown(ANONYMOUS, "x" * 100_000, ["gpt"]).message) < 300
