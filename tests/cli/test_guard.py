"""Which files several workers may serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.cli.guard import guarded
from proxy.config import ConfigError

MODEL = "model_list: [{model_name: m, litellm_params: {model: openai/x, mock_response: hi%s}}]\n"
PLAIN = MODEL % ""
REDIS = "router_settings: {redis_url: redis://127.0.0.1:1/0}\n"
LIMITS = {
    "the limits of keys": PLAIN + "mobius: {users: {default: {rpm: 20}}}\n",
    "the rpm, tpm and max_parallel": MODEL % ", max_parallel_requests: 2",
    "the cache": PLAIN + "litellm_settings: {cache: true, cache_params: {type: redis}}\n",
}
CACHES = {
    "": PLAIN + "litellm_settings: {cache: true}\n",
    "local": PLAIN + "litellm_settings: {cache: true, cache_params: {type: local}}\n",
    "disk": PLAIN + "litellm_settings: {cache: true, cache_params: {type: disk}}\n",
}


def load(folder: Path, text: str, *, several: bool = True, redis: bool = True) -> None:
    file = folder / "litellm_config.yaml"
    file.write_text(text)
    guarded(loopback=True, several=several, redis=redis)(file, {})


@pytest.mark.parametrize("what", LIMITS)
def test_what_workers_cannot_share_is_refused_with_its_reason(tmp_path: Path, what: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, LIMITS[what])
    (line,) = str(refused.value).splitlines()
    assert f"with --workers above 1, {what}" in line
    assert "router_settings.redis_url" in line


@pytest.mark.parametrize("what", LIMITS)
def test_one_worker_may_serve_it_and_so_may_several_with_a_redis(tmp_path: Path, what: str) -> None:
    load(tmp_path, LIMITS[what], several=False)
    load(tmp_path, LIMITS[what] + REDIS)


def test_a_redis_that_was_not_there_at_start_does_not_help_an_edit(tmp_path: Path) -> None:
    text = LIMITS["the limits of keys"] + REDIS
    with pytest.raises(ConfigError):
        load(tmp_path, text, redis=False)
    load(tmp_path, PLAIN, redis=False)


@pytest.mark.parametrize("place", CACHES)
def test_answers_that_each_worker_keeps_for_itself_are_refused_whatever_else_is_shared(
    tmp_path: Path, place: str
) -> None:
    for text in (CACHES[place], CACHES[place] + REDIS):
        with pytest.raises(ConfigError, match=r"the cache .*set cache_params\.type to redis"):
            load(tmp_path, text)
        load(tmp_path, text, several=False)


def test_a_cache_with_a_redis_of_its_own_needs_no_other(tmp_path: Path) -> None:
    own = "{type: redis, host: 127.0.0.1}"
    load(tmp_path, f"{PLAIN}litellm_settings: {{cache: true, cache_params: {own}}}\n", redis=False)


def test_a_file_without_limits_needs_no_redis(tmp_path: Path) -> None:
    load(tmp_path, PLAIN)


def test_to_the_world_several_serve_only_with_a_key_as_one_does(tmp_path: Path) -> None:
    file = tmp_path / "litellm_config.yaml"
    file.write_text(PLAIN)
    with pytest.raises(ConfigError, match="MOBIUS_MASTER_KEY"):
        guarded(loopback=False, several=True, redis=True)(file, {})
