"""What the file says of the cache: LiteLLM's settings, and our own section."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.caching import Caching, Mode
from proxy.config import CacheSettings
from proxy.policy import RedisSettings
from proxy.types import Surface
from tests.config.loading import lines, load_text, mock_model, refusal

MODELS = f"model_list:\n{mock_model('a')}"


def load(folder: Path, text: str) -> tuple[CacheSettings, Caching]:
    config = load_text(folder, MODELS + text)
    assert lines(config.warnings) == []
    return config.cache, config.snapshot.caching


def test_it_is_off_until_the_file_says_so(tmp_path: Path) -> None:
    settings, rules = load(tmp_path, "")
    assert (settings.enabled, rules.enabled) == (False, False)
    assert rules.ttl_s == 600


def test_cache_alone_keeps_answers_in_the_process(tmp_path: Path) -> None:
    settings, rules = load(tmp_path, "litellm_settings: {cache: true}\n")
    assert (settings.type, rules.enabled, rules.mode) == ("local", True, Mode.DEFAULT_ON)


def test_every_setting_is_read(tmp_path: Path) -> None:
    settings, rules = load(
        tmp_path,
        """litellm_settings:
  cache: true
  cache_params:
    type: redis
    url: redis://cache:6379/1
    ttl: 30
    namespace: prod
    mode: default_off
    supported_call_types: [acompletion]
    ssl: true
    socket_timeout: 0.5
mobius:
  cache:
    {scope: team, max_entry_mb: 1, stale_if_error: 60, finish_reasons: [stop, length], pace: 0.02}
  keys:
    - {name: web, key_sha256: HASH, cache_scope: shared}
""".replace("HASH", "ab" * 32),
    )
    assert settings.redis == RedisSettings(url="redis://cache:6379/1", ssl=True)
    assert settings.timeout_s == 0.5
    assert rules == Caching(
        enabled=True,
        mode=Mode.DEFAULT_OFF,
        ttl_s=30.0,
        stale_if_error_s=60.0,
        scope="team",
        scopes={"web": "shared"},
        namespace="prod",
        surfaces=frozenset({Surface.CHAT}),
        finish_reasons=frozenset({"stop", "length"}),
        max_entry_bytes=1024 * 1024,
        pace_s=0.02,
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("redis_startup_nodes: [{host: a, port: 1}, {host: b, port: 2}]", {"cluster": 2}),
        ("{sentinel_nodes: [[a, 1]], service_name: mymaster}", {"sentinels": 1}),
    ],
)
def test_several_nodes_are_read_as_litellm_writes_them(
    tmp_path: Path, written: str, expected: dict[str, int]
) -> None:
    params = written if written.startswith("{") else f"{{{written}}}"
    text = f"litellm_settings:\n  cache: true\n  cache_params: {params}\n"
    settings, _ = load(tmp_path, text)
    assert settings.redis is not None
    found = {"cluster": len(settings.redis.cluster), "sentinels": len(settings.redis.sentinels)}
    assert {name: count for name, count in found.items() if count} == expected


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ("{type: s3}", "cache_params.type takes one of local, redis, disk"),
        ("{mode: on_demand}", "cache_params.mode takes one of default_on, default_off"),
        ("{ttl: 0}", "cache_params.ttl"),
        ("{socket_timeout: 0}", "cache_params.socket_timeout takes a number"),
        ("{socket_timeout: 100}", "cache_params.socket_timeout takes a number"),
        (
            "{supported_call_types: [acompletions]}",
            "takes some of aanthropic_messages, acompletion, ",
        ),
        ("{supported_call_types: [acompletions]}", ", not acompletions"),
        ("{namespce: x}", "the nearest name is namespace"),
        ("{redis_startup_nodes: [x]}", "takes hosts with their ports"),
    ],
)
def test_what_is_wrong_is_an_error(tmp_path: Path, params: str, expected: str) -> None:
    text = f"litellm_settings: {{cache: true, cache_params: {params}}}\n"
    error = refusal(tmp_path, MODELS + text)
    assert any(expected in remark.text for remark in error.remarks)


def test_what_is_not_acted_on_is_named(tmp_path: Path) -> None:
    text = "litellm_settings:\n  cache: true\n  cache_params: {similarity_threshold: 0.8}\n"
    config = load_text(tmp_path, MODELS + text)
    (warning,) = lines(config.warnings)
    assert warning[1] == "cache_params.similarity_threshold: Mobius does not act on it"


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ("[]", set()),
        ("[aembedding]", {"embeddings"}),
        ("[completion, acompletion, embedding]", {"chat", "embeddings"}),
        ("[text_completion, atext_completion]", {"completions"}),
        ("[responses, aresponses]", {"responses"}),
        ("[anthropic_messages, rerank]", {"messages", "rerank"}),
        ("[moderation]", {"moderations"}),
        ("null", None),
    ],
)
def test_only_the_kinds_of_calls_that_are_named_are_cached(
    tmp_path: Path, types: str, expected: set[str] | None
) -> None:
    params = f"{{type: local, supported_call_types: {types}}}"
    text = f"litellm_settings:\n  cache: true\n  cache_params: {params}\n"
    found = load(tmp_path, text)[1].surfaces
    assert (None if found is None else set(found)) == expected


def test_a_kind_of_calls_that_is_never_cached_is_named(tmp_path: Path) -> None:
    params = "{type: local, supported_call_types: [acompletion, atranscription]}"
    text = f"litellm_settings: {{cache: true, cache_params: {params}}}\n"
    config = load_text(tmp_path, MODELS + text)
    (warning,) = lines(config.warnings)
    assert warning[1] == "cache_params.supported_call_types: answers of atranscription are not kept"
    assert config.snapshot.caching.surfaces == frozenset({"chat"})
