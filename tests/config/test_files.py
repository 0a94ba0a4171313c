"""Whole files of different shapes, as people have them: `files/*.yaml`."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import CacheSettings, ConfigError, RedisSettings, load_config
from proxy.types import Strategy, Target
from tests.config.loading import FILES, lines, load_file, load_text, names, ring, targets

SHIPPED = Path(__file__).parents[2] / "litellm_config.yaml"


def test_the_shipped_file_loads_without_a_key_and_without_a_warning() -> None:
    config = load_config(SHIPPED, {})
    assert config.warnings == ()
    snapshot = config.snapshot
    assert snapshot.models() == ("demo", "gpt-4o", "claude-sonnet", "chat")
    assert names(snapshot, "gpt-4o") == ["gpt-4o", "claude-sonnet"]
    assert [target.missing for target in targets(snapshot, "demo")] == [None]
    assert [target.missing for target in targets(snapshot, "chat")] == [
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
    ]
    assert ring(snapshot, "chat").groups[0].strategy is Strategy.HEALTH_BASED
    assert targets(snapshot, "gpt-4o")[0].timeouts.first_token_s == 3.0
    assert snapshot.callers == {}


def test_a_group_of_deployments_keeps_their_order_weight_and_limits() -> None:
    config = load_file("groups.yaml", AZURE_EU_KEY="k1", AZURE_US_KEY="k2", OPENAI_API_KEY="k3")
    assert config.warnings == ()
    eu, us, openai = targets(config.snapshot, "gpt-4o")
    assert [eu.label, us.label, openai.label] == [
        "gpt-4o/azure/gpt-4o-eu",
        "gpt-4o/azure/gpt-4o-us",
        "gpt-4o/openai/gpt-4o",
    ]
    assert (eu.order, eu.weight, eu.rpm, eu.tpm) == (1, 3.0, 600, 90_000)
    assert (us.order, us.weight, us.max_parallel) == (1, 1.0, 20)
    assert openai.order == 2, "where some have an order, one without is asked after them"
    assert dict(eu.params) == {
        "api_key": "k1",
        "api_base": "https://eu.openai.azure.com/",
        "api_version": "2024-10-21",  # YAML would make a date of it
    }
    assert dict(openai.params) == {"api_key": "k3", "organization": "org-1"}
    assert dict(openai.defaults) == {"temperature": 0.2, "max_tokens": 800}
    assert eu.info["supports_vision"] is True
    assert eu.info["input_cost_per_token"] == 2.5e-6
    assert eu.info["base_model"] == "azure/gpt-4o-2024-08-06"


def test_settings_reach_targets_and_policy_the_nearest_first() -> None:
    snapshot = load_file("groups.yaml").snapshot
    eu, _, openai = targets(snapshot, "gpt-4o")
    assert (eu.timeouts.answer_s, eu.timeouts.first_token_s) == (90.0, 8.0)
    assert (openai.timeouts.answer_s, openai.timeouts.first_token_s) == (45.0, 8.0)
    policy = snapshot.policy
    assert (policy.num_retries, policy.cooldown_time, policy.breaker.failures) == (3, 30.0, 3)
    assert ring(snapshot, "gpt-4o").num_retries == 2


def test_router_settings_win_model_by_model() -> None:
    config = load_file("fallbacks_both.yaml")
    assert config.warnings == ()
    snapshot = config.snapshot
    assert names(snapshot, "big") == ["big", "small", "safe"]
    assert names(snapshot, "small") == ["small", "big"], "itself and duplicates drop out"
    assert names(snapshot, "long") == ["long", "small", "safe"]
    assert names(snapshot, "safe") == ["safe", "small"]
    assert [group.name for group in ring(snapshot, "small").oversized] == ["long"]
    assert [group.name for group in ring(snapshot, "big").content] == ["safe"]
    assert ring(snapshot, "safe").content == ()
    assert snapshot.policy.num_retries == 0


def test_a_star_is_the_default_and_an_empty_list_means_none() -> None:
    snapshot = load_file("default_fallbacks.yaml").snapshot
    assert [names(snapshot, name) for name in ("a", "b", "alone")] == [["a", "b"], ["b"], ["alone"]]


def test_fallbacks_may_be_mutual_and_are_not_followed() -> None:
    config = load_file("mutual.yaml")
    assert config.warnings == ()
    snapshot = config.snapshot
    assert names(snapshot, "gpt-4o") == ["gpt-4o", "claude"]
    assert names(snapshot, "claude") == ["claude", "gpt-4o"]
    assert names(snapshot, "gemini") == ["gemini", "gpt-4o"]
    providers = [targets(snapshot, name)[0].provider for name in snapshot.models()]
    assert providers == ["openai", "anthropic", "gemini"], "without a prefix, the price table says"


def test_wildcards_answer_the_most_specific_first() -> None:
    snapshot = load_file(
        "wildcards.yaml", OPENAI_API_KEY="o", OPENROUTER_API_KEY="r", AZURE_API_KEY="a"
    ).snapshot

    def asked(name: str) -> list[tuple[str, str, str]]:
        groups = ring(snapshot, name).groups
        return [(g.name, t.provider, t.model) for g in groups for t in g.targets]

    assert asked("openai/o3") == [("openai/o3", "openai", "o3")]
    assert asked("openai/gpt-4o-mini") == [("openai/gpt-4o-mini", "azure", "gpt-4o-mini")]
    assert asked("openai/o1") == [
        ("openai/o1", "openai", "o1"),
        ("mirror/o1", "openai", "o1"),
        ("openai/o3", "openai", "o3"),
    ]
    assert asked("openai/gpt-4.1")[1:] == [("openai/o3", "openai", "o3")]
    assert asked("team/a/fast/b") == [("team/a/fast/b", "openai", "ft:a:acme:b")]
    assert asked("mistral-large") == [("mistral-large", "openrouter", "mistral-large")]
    assert snapshot.models() == ("openai/o3",)


def test_azure_takes_a_key_or_entra_and_names_what_is_missing() -> None:
    snapshot = load_file("azure.yaml").snapshot
    missing = [targets(snapshot, name)[0].missing for name in snapshot.models()]
    assert missing == ["AZURE_API_KEY", "AZURE_TENANT_ID", "AZURE_API_KEY"]

    snapshot = load_file(
        "azure.yaml",
        AZURE_API_KEY="k",
        AZURE_API_BASE="https://a.openai.azure.com",
        AZURE_TENANT_ID="t",
        AZURE_CLIENT_ID="c",
        AZURE_CLIENT_SECRET="s",
    ).snapshot
    key, entra, nothing = (targets(snapshot, name)[0] for name in snapshot.models())
    assert {key.missing, entra.missing, nothing.missing} == {None}
    assert "api_key" not in entra.params
    assert (nothing.params["api_key"], nothing.params["api_base"]) == (
        "k",
        "https://a.openai.azure.com",
    )

    nothing = targets(load_file("azure.yaml", AZURE_API_KEY="k").snapshot, "with-nothing")[0]
    assert nothing.missing == "AZURE_API_BASE"


def test_clouds_get_their_own_credentials_and_no_key() -> None:
    config = load_file("anthropic.yaml", ANTHROPIC_API_KEY="k", VERTEX_PRIVATE_KEY="p")
    assert config.warnings == ()
    direct, bedrock, vertex = targets(config.snapshot, "claude")
    assert direct.defaults["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert direct.params["extra_headers"] == {"anthropic-beta": "context-1m-2025-08-07"}
    assert bedrock.missing == "AWS_ACCESS_KEY_ID"
    assert vertex.missing is None
    assert vertex.params["vertex_credentials"]["private_key"] == "p"
    assert "api_key" not in vertex.params
    assert [target.order for target in (direct, bedrock, vertex)] == [1, 2, 3]
    assert [target.drop_params for target in (direct, bedrock, vertex)] == [True] * 3


def test_an_environment_key_stays_with_its_provider() -> None:
    config = load_file("compatible.yaml", OPENAI_API_KEY="sk-of-openai")
    assert lines(config.warnings) == [
        (23, "api_key stands here as it is; os.environ/NAME keeps it out of the file")
    ]
    snapshot = config.snapshot
    llama, hugging = targets(snapshot, "local")
    assert llama.params["api_key"] == "none"
    assert (hugging.provider, hugging.model) == ("hosted_vllm", "meta-llama/Llama-3.1-8B-Instruct")
    assert hugging.params["api_key"] == "none"
    assert hugging.params["extra_body"] == {"min_p": 0.05, "guided": {"depth": 2}}
    assert dict(hugging.defaults) == {"top_k": 40}
    assert targets(snapshot, "home")[0].params["api_key"] == "sk-of-openai"
    literal = targets(snapshot, "literal")[0]
    assert literal.params["additional_drop_params"] == ["response_format", "tools[*].strict"]
    assert literal.drop_params is False


def test_credentials_variables_and_aliases() -> None:
    config = load_file("credentials.yaml", REAL_GROQ_KEY="gsk", CORP_KEY="corp")
    assert config.warnings == ()
    assert dict(config.environment) == {
        "LANGUAGE_TEAM": "product",
        "GROQ_API_KEY": "gsk",
        "WORKERS": "4",
    }
    snapshot = config.snapshot
    azure = targets(snapshot, "gpt-4o")[0]
    assert dict(azure.params) == {
        "api_key": "corp",
        "api_base": "https://corp.openai.azure.com",
        "api_version": "2025-01-01",  # what stands nearer wins over the credential
    }
    assert targets(snapshot, "fast")[0].params["api_key"] == "gsk"
    assert names(snapshot, "gpt-4o") == ["gpt-4o", "fast"], "an exact name wins over an alias"
    assert names(snapshot, "gpt-4") == ["gpt-4o", "fast"]
    assert ring(snapshot, "gpt-4").model == "gpt-4"
    assert names(snapshot, "secret-fast") == ["fast"]
    assert snapshot.models() == ("gpt-4o", "fast", "gpt-4")


def test_mounted_secrets_are_read_and_watched(tmp_path: Path) -> None:
    environ = {}
    for name, value in {
        "OPENAI_API_KEY": "sk-1\n",
        "MASTER_KEY": "m\r\n",
        "REDIS_PORT": "6380\n",
    }.items():
        (tmp_path / name).write_text(value)
        environ[f"{name}_FILE"] = str(tmp_path / name)
    config = load_config(FILES / "mounted.yaml", {**environ, "REDIS_PASSWORD": "pw"})
    assert targets(config.snapshot, "gpt-4o")[0].params["api_key"] == "sk-1"
    assert targets(config.snapshot, "mistral")[0].missing == "MISTRAL_API_KEY"
    assert [(c.name, c.admin) for c in config.snapshot.callers.values()] == [("master", True)]
    assert config.redis == RedisSettings(host="redis.internal", port=6380, password="pw")
    assert {tmp_path / "OPENAI_API_KEY", tmp_path / "MASTER_KEY"} <= set(config.files)


def test_a_variable_that_other_places_need_is_an_error_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        load_file("mounted.yaml")
    assert lines(caught.value.remarks) == [
        (8, "general_settings.master_key: the variable MASTER_KEY is not set"),
    ]


def test_included_files_are_put_together_and_the_including_one_wins() -> None:
    config = load_file("main.yaml")
    parts = FILES / "parts"
    assert config.files == (
        FILES / "main.yaml",
        parts / "models.yaml",
        parts / "more.yaml",
        parts / "settings.yaml",
    )
    (warning,) = config.warnings
    assert (warning.file, warning.line) == (str(parts / "settings.yaml"), 2)
    assert warning.text == f"this is not used: {FILES / 'main.yaml'}:8 says it already"
    snapshot = config.snapshot
    assert snapshot.models() == ("here", "there", "further")
    assert names(snapshot, "here") == ["here", "there"]
    assert names(snapshot, "there") == ["there", "here"]
    assert (snapshot.policy.num_retries, snapshot.policy.cooldown_time) == (2, 12.0)


def test_every_name_that_is_not_acted_on_is_named_with_its_line() -> None:
    config = load_file("unknown.yaml")
    not_acted = "is known to LiteLLM; Mobius does not act on it"
    strategy = "router_settings.routing_strategy: lar1 is not among Mobius' own"
    assert lines(config.warnings) == [
        (7, f"litellm_params: tags {not_acted}"),
        (8, f"litellm_params: max_budget {not_acted}"),
        (9, "litellm_params: quantum_flux is not known; it is handed to LiteLLM"),
        (10, "model_list: Mobius does not act on blocked"),
        (12, f"{strategy}; health-based is used"),
        (13, f"router_settings.enable_pre_call_checks {not_acted}"),
        (16, f"litellm_settings.callbacks {not_acted}"),
        (19, f"litellm_settings.json_logs {not_acted}"),
        (20, "litellm_settings.team_colours is not known; it is ignored"),
        (22, f"general_settings.database_url {not_acted}"),
        (23, "general_settings.colour_of_the_day is not known; it is ignored"),
        (24, "guardrails: LiteLLM's section; Mobius does not act on it"),
        (25, "colophon: this section is not known; it is ignored"),
    ]
    target = targets(config.snapshot, "gpt-4o")[0]
    assert target.params["quantum_flux"] == 3
    assert "tags" not in target.params
    assert ring(config.snapshot, "gpt-4o").groups[0].strategy is Strategy.HEALTH_BASED
    assert config.cache == CacheSettings(
        enabled=True,
        type="redis",
        ttl_s=600.0,
        redis=RedisSettings(host="cache.internal", port=6380),
    )


def test_every_misspelt_name_is_an_error_with_the_known_one() -> None:
    with pytest.raises(ConfigError) as caught:
        load_file("misspelt.yaml")
    error = caught.value
    nearest = {
        remark.line: remark.text.rpartition("nearest name is ")[2] for remark in error.remarks
    }
    assert nearest == {
        2: "model_list",
        5: "litellm_params",
        8: "api_key",
        9: "temperature",
        10: "weight",
        13: "num_retries",
        14: "simple-shuffle",
        16: "gpt-4o",
        17: "gpt-4o",
        19: "drop_params",
        21: "master_key",
        23: "deadline",
        24: "first_token",
        26: "limits",
    }
    assert "sk-never-shown" not in str(error)
    assert str(error).splitlines()[0] == (
        f"{FILES / 'misspelt.yaml'}:2: the file has no model_lst; the nearest name is model_list"
    )


def test_the_traps_of_yaml_are_harmless() -> None:
    config = load_file("traps.yaml")
    assert config.warnings == ()
    snapshot = config.snapshot
    assert snapshot.models() == ("4", "1.10", "merged", "null-and-empty")
    assert names(snapshot, "4") == ["4", "1.10", "merged"]
    assert targets(snapshot, "4")[0].params["mock_response"] == "1.10"
    base, merged = targets(snapshot, "1.10")[0], targets(snapshot, "merged")[0]
    assert base.params["input_cost_per_token"] == 3e-6
    assert base.defaults["metadata"] == {"on": "off", "2": "two"}
    assert (merged.model, merged.timeouts.answer_s) == ("y", 10.0)
    assert merged.params["mock_response"] == "yes it is"
    assert dict(targets(snapshot, "null-and-empty")[0].defaults) == {"stop": ""}
    assert snapshot.policy.breaker.slow is None


def test_an_empty_file_is_valid_and_says_so() -> None:
    config = load_file("empty.yaml")
    assert lines(config.warnings) == [(1, "there is no model in this file")]
    assert config.snapshot.models() == ()


def test_a_section_that_stands_twice_is_an_error_with_both_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        load_file("duplicate.yaml")
    assert lines(caught.value.remarks) == [(4, "model_list stands here again, after line 1")]


def test_two_thousand_models_load_in_a_moment(tmp_path: Path) -> None:
    rows = "".join(
        f"  - model_name: m{i}\n    litellm_params:\n      model: openai/gpt-{i}\n"
        f"      api_key: os.environ/KEY{i % 7}\n      rpm: {i}\n      temperature: 0.{i}\n"
        for i in range(2000)
    )
    fallbacks = "".join(
        f"    - m{i}: [m{(i + 1) % 2000}, m{(i + 2) % 2000}]\n" for i in range(2000)
    )
    text = f"model_list:\n{rows}router_settings:\n  fallbacks:\n{fallbacks}"
    snapshot = load_text(tmp_path, text, {"KEY0": "k"}).snapshot
    assert len(snapshot.models()) == 2000
    assert names(snapshot, "m1999") == ["m1999", "m0", "m1"]
    identities = {target.identity for target in snapshot.targets()}
    assert len(identities) == 2000


def test_loading_does_not_touch_the_environment_and_does_not_repeat_a_secret() -> None:
    environ = {"REAL_GROQ_KEY": "gsk-secret-1", "CORP_KEY": "corp-secret-2"}
    config = load_config(FILES / "credentials.yaml", environ)
    assert environ == {"REAL_GROQ_KEY": "gsk-secret-1", "CORP_KEY": "corp-secret-2"}
    everything = repr(config) + "".join(str(target) for target in config.snapshot.targets())
    assert "secret" not in everything.replace("secret-fast", "")


def test_equal_files_give_equal_snapshots() -> None:
    first, second = load_file("groups.yaml"), load_file("groups.yaml")
    assert first.snapshot == second.snapshot
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != load_file("groups.yaml", AZURE_EU_KEY="k").fingerprint


def test_labels_tell_the_second_of_the_same_apart(tmp_path: Path) -> None:
    row = "  - {model_name: a, litellm_params: {model: openai/x, api_key: os.environ/K%d}}\n"
    text = "model_list:\n" + row % 1 + row % 2 + row % 1
    config = load_text(tmp_path, text, {"K1": "one", "K2": "two"})
    found: list[Target] = targets(config.snapshot, "a")
    assert [target.label for target in found] == ["a/openai/x", "a/openai/x#2", "a/openai/x#3"]
    assert found[0].identity == found[2].identity != found[1].identity
    assert all(len(target.identity) >= 16 for target in found)
