"""Settings and parameters: types, bounds, precedence."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.settings import STRATEGIES, STRATEGIES_ELSEWHERE
from proxy.types import Strategy
from tests.config.loading import lines, load_text, mock_model, refusal, ring, targets

MODELS = "model_list:\n" + mock_model("a")


def one(params: str) -> str:
    return f"model_list:\n  - {{model_name: a, litellm_params: {{{params}}}}}\n"


def with_settings(router: str = "", litellm: str = "", mobius: str = "") -> str:
    return (
        MODELS
        + f"router_settings: {{{router}}}\nlitellm_settings: {{{litellm}}}\nmobius: {{{mobius}}}\n"
    )


@pytest.mark.parametrize(
    ("params", "first_token_s", "answer_s"),
    [
        ("", 30, 600),
        ("timeout: 7", 7, 7),
        ("request_timeout: 7", 7, 7),
        ("stream_timeout: 2", 2, 600),
        ("timeout: '7.5', stream_timeout: os.environ/WAIT", 2.5, 7.5),
    ],
)
def test_timeouts_of_a_deployment(
    tmp_path: Path, params: str, first_token_s: float, answer_s: float
) -> None:
    row = f"{{model: openai/a, mock_response: hi{', ' if params else ''}{params}}}"
    text = f"model_list:\n  - {{model_name: a, litellm_params: {row}}}\n"
    target = targets(load_text(tmp_path, text, {"WAIT": "2.5"}).snapshot, "a")[0]
    assert (target.timeouts.first_token_s, target.timeouts.answer_s) == (first_token_s, answer_s)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("timeout: 5", "request_timeout: 9", ""), (5, 5)),
        (("", "request_timeout: 9", ""), (9, 9)),
        (("stream_timeout: 3", "timeout: 9", ""), (3, 9)),
        (("timeout: 5", "stream_timeout: 2", ""), (2, 5)),
        (("", "", "timeouts: {first_token: 4, answer: 40, idle: 6}"), (4, 40)),
        (("timeout: 5", "", "timeouts: {first_token: 4, answer: 40}"), (5, 5)),
    ],
)
def test_timeouts_above_a_deployment(
    tmp_path: Path, settings: tuple[str, str, str], expected: tuple[float, float]
) -> None:
    config = load_text(tmp_path, with_settings(*settings))
    timeouts = targets(config.snapshot, "a")[0].timeouts
    assert (timeouts.first_token_s, timeouts.answer_s) == expected


def test_a_first_token_may_be_waited_for_as_the_last_ones_say(tmp_path: Path) -> None:
    auto = "timeouts: {first_token: auto}"
    timeouts = targets(load_text(tmp_path, with_settings(mobius=auto)).snapshot, "a")[0].timeouts
    assert (timeouts.auto, timeouts.first_token_s) == (True, 30)
    for nearer in (("stream_timeout: 3", "", auto), ("", "timeout: 3", auto)):
        config = load_text(tmp_path, with_settings(*nearer))
        timeouts = targets(config.snapshot, "a")[0].timeouts
        assert (timeouts.auto, timeouts.first_token_s) == (False, 3)
    of_its_own = one("model: openai/a, mock_response: hi, stream_timeout: 4")
    config = load_text(tmp_path, of_its_own + f"mobius: {{{auto}}}\n")
    timeouts = targets(config.snapshot, "a")[0].timeouts
    assert (timeouts.auto, timeouts.first_token_s) == (False, 4)


def test_router_settings_win_over_litellm_settings_over_mobius(tmp_path: Path) -> None:
    config = load_text(
        tmp_path,
        with_settings(
            "num_retries: 4, allowed_fails: 0",
            "num_retries: 3, allowed_fails: 9, cooldown_time: 90, drop_params: 'True'",
            "num_retries: 2, cooldown_time: 2, laps: 3, breaker: {failures: 7, rest: 4}",
        ),
    )
    policy = config.snapshot.policy
    assert (policy.num_retries, policy.cooldown_time, policy.cooldown_cap) == (4, 90.0, 90.0)
    assert (policy.breaker.failures, policy.breaker.rest, policy.laps) == (1, 4.0, 3)
    assert targets(config.snapshot, "a")[0].drop_params is True


def test_retry_after_is_the_base_of_the_backoff(tmp_path: Path) -> None:
    policy = load_text(tmp_path, with_settings("retry_after: 6")).snapshot.policy
    assert (policy.backoff_base, policy.backoff_cap) == (6.0, 6.0)
    policy = load_text(tmp_path, with_settings("retry_after: 0")).snapshot.policy
    assert (policy.backoff_base, policy.backoff_cap) == (0.25, 4.0)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_the_names_of_strategies(tmp_path: Path, name: str) -> None:
    for spelling in (name, name.replace("-", "_"), name.upper()):
        config = load_text(tmp_path, with_settings(f"routing_strategy: {spelling}"))
        assert config.warnings == ()
        assert ring(config.snapshot, "a").groups[0].strategy is STRATEGIES[name]


@pytest.mark.parametrize("name", sorted(STRATEGIES_ELSEWHERE))
def test_a_strategy_that_only_litellm_has_is_replaced_with_a_warning(
    tmp_path: Path, name: str
) -> None:
    config = load_text(tmp_path, with_settings(f"routing_strategy: {name}"))
    assert len(config.warnings) == 1
    instead = ring(config.snapshot, "a").groups[0].strategy
    assert instead is STRATEGIES_ELSEWHERE[name]
    assert f"; {instead} is used" in config.warnings[0].text


def test_no_strategy_of_litellms_router_is_an_error() -> None:
    # litellm.types.router.RoutingStrategy, and the default.
    names = """
        least-busy latency-based-routing cost-based-routing usage-based-routing-v2
        usage-based-routing provider-budget-routing simple-shuffle
    """
    assert set(names.split()) <= STRATEGIES.keys() | STRATEGIES_ELSEWHERE.keys()


def test_without_a_strategy_the_load_is_spread_as_in_litellm(tmp_path: Path) -> None:
    snapshot = load_text(tmp_path, MODELS).snapshot
    assert ring(snapshot, "a").groups[0].strategy is Strategy.SIMPLE_SHUFFLE


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ("rpm: abc", "rpm takes a number of at least 0"),
        ("rpm: 1.5", "rpm takes a whole number"),
        ("rpm: -1", "rpm takes a number of at least 0"),
        ("rpm: true", "rpm takes a number of at least 0"),
        ("rpm: [1]", "rpm takes a single value"),
        ("tpm: nan", "tpm takes a number of at least 0"),
        ("weight: -0.1", "weight takes a number of at least 0"),
        ("weight: inf", "weight takes a number of at least 0"),
        ("max_parallel_requests: 0", "max_parallel_requests takes a number of at least 1"),
        ("timeout: 0", "timeout takes a number above 0 and at most 86400"),
        ("timeout: 1e9", "timeout takes a number above 0 and at most 86400"),
        ("stream_timeout: soon", "stream_timeout takes a number above 0 and at most 86400"),
        ("num_retries: 11", "num_retries takes a number of at least 0 and at most 10"),
        ("drop_params: perhaps", "drop_params takes true or false"),
        ("extra_headers: [x]", "extra_headers takes a mapping of names to values"),
        ("extra_body: x", "extra_body takes a mapping of names to values"),
        ("additional_drop_params: x", "additional_drop_params takes a list"),
        ("input_cost_per_token: free", "input_cost_per_token takes a number of at least 0"),
        ("input_cost_per_token: -1", "input_cost_per_token takes a number of at least 0"),
        ('api_base: "x\\ny"', "api_base holds a line break or a control character"),
        ("custom_llm_provider: on", "custom_llm_provider takes a text"),
        ("custom_llm_provider: opneai", "LiteLLM's list of providers has no opneai; the nearest"),
        ("litellm_credential_name: corp", "credential_list has no corp"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error_with_its_line(
    tmp_path: Path, params: str, text: str
) -> None:
    row = f"litellm_params:\n      model: openai/a\n      mock_response: hi\n      {params}\n"
    error = refusal(tmp_path, f"model_list:\n  - model_name: a\n    {row}")
    assert [remark.line for remark in error.remarks] == [6]
    assert error.remarks[0].text.startswith(text)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("model_list: {a: b}\n", 1, "model_list takes a list"),
        ("model_list: [a]\n", 1, "an entry of model_list takes a mapping"),
        ("model_list: [~]\n", 1, "an entry of model_list is empty"),
        (
            "model_list: [{litellm_params: {model: x}}]\n",
            1,
            "an entry of model_list has no model_name",
        ),
        ("model_list: [{model_name: x}]\n", 1, "an entry of model_list has no litellm_params"),
        ("model_list: [{model_name: x, litellm_params: {}}]\n", 1, "litellm_params has no model"),
        ("model_list:\n - model_name: on\n", 2, "model_name takes a text; put yes, no"),
        (
            'model_list:\n - {model_name: "a\\tb", litellm_params: {model: x}}\n',
            2,
            "model_name holds",
        ),
        ("router_settings: []\n", 1, "router_settings takes a mapping"),
        ("litellm_settings: 4\n", 1, "litellm_settings takes a mapping"),
        ("general_settings: x\n", 1, "general_settings takes a mapping"),
        ("mobius: [x]\n", 1, "mobius takes a mapping"),
        ("environment_variables: [x]\n", 1, "environment_variables takes a mapping"),
        ("environment_variables: {X: [x]}\n", 1, "environment_variables.X takes a single value"),
        ("credential_list: {}\n", 1, "credential_list takes a list"),
        ("credential_list: [{credential_name: x}]\n", 1, "an entry of credential_list has no"),
        ("router_settings: {redis_port: 70000}\n", 1, "router_settings.redis_port takes a number"),
        (
            "litellm_settings: {cache_params: 1}\n",
            1,
            "litellm_settings.cache_params takes a mapping",
        ),
        (
            "router_settings: {routing_strategy: fastest}\n",
            1,
            'router_settings.routing_strategy: "fastest" is not a strategy',
        ),
    ],
)
def test_a_section_of_the_wrong_shape_is_an_error(
    tmp_path: Path, text: str, line: int, problem: str
) -> None:
    error = refusal(tmp_path, text)
    assert [remark.line for remark in error.remarks] == [line]
    assert error.remarks[0].text.startswith(problem)


def test_all_errors_of_a_file_are_shown_at_once_but_no_more_than_a_hundred(tmp_path: Path) -> None:
    rows = "".join(f"  - {{model_name: m{i}, litellm_params: {{rpm: x}}}}\n" for i in range(500))
    error = refusal(tmp_path, "model_list:\n" + rows)
    assert len(error.remarks) == 101
    assert error.remarks[-1].text == "too many errors: stopped here"


def test_an_unset_variable_anywhere_in_a_deployment_leaves_it_unconfigured(tmp_path: Path) -> None:
    text = (
        "model_list:\n"
        "  - model_name: a\n"
        "    litellm_params: {model: openai/a, api_key: k, rpm: os.environ/LIMIT}\n"
        "  - model_name: b\n"
        "    litellm_params: {model: os.environ/MODEL, api_key: os.environ/KEY}\n"
        "  - model_name: c\n"
        "    litellm_params: {model: openai/c, extra_body: {x: [os.environ/DEEP]}, api_key: none}\n"
    )
    snapshot = load_text(tmp_path, text).snapshot
    missing = [targets(snapshot, name)[0].missing for name in snapshot.models()]
    assert missing == ["LIMIT", "MODEL", "DEEP"]


def test_a_secret_file_that_cannot_be_read_is_named_by_its_variable(tmp_path: Path) -> None:
    environ = {"KEY_FILE": str(tmp_path / "nowhere")}
    text = one("model: openai/a, api_key: os.environ/KEY")
    config = load_text(tmp_path, text, environ)
    assert lines(config.warnings) == [(2, "api_key: the file that KEY_FILE names cannot be read")]
    assert targets(config.snapshot, "a")[0].missing == "KEY"
    assert tmp_path / "nowhere" in config.files

    (tmp_path / "nowhere").write_text("\n")
    assert "KEY_FILE names is empty" in str(load_text(tmp_path, text, environ).warnings[0])
    (tmp_path / "nowhere").write_bytes(b"\xff" * 70_000)
    assert "cannot be read" in str(load_text(tmp_path, text, environ).warnings[0])
    error = refusal(tmp_path, "general_settings: {master_key: os.environ/KEY}\n", environ)
    assert "the file that KEY_FILE names cannot be read" in str(error)


def test_an_empty_key_is_no_key(tmp_path: Path) -> None:
    for key in ("''", "~"):
        text = one(f"model: openai/a, api_key: {key}")
        target = targets(load_text(tmp_path, text, {"OPENAI_API_KEY": "sk"}).snapshot, "a")[0]
        assert target.params["api_key"] == "sk"
        assert targets(load_text(tmp_path, text).snapshot, "a")[0].missing == "OPENAI_API_KEY"


def test_a_named_key_that_is_unset_is_not_replaced_by_another(tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": "sk"}
    for params in (
        "model: openai/a, api_key: os.environ/OTHER",
        "model: openai/a, api_base: os.environ/OTHER",
    ):
        target = targets(load_text(tmp_path, one(params), environ).snapshot, "a")[0]
        assert target.missing == "OTHER"
        assert "api_key" not in target.params


def test_a_mocked_model_needs_no_key(tmp_path: Path) -> None:
    text = one("model: openai/a, api_key: os.environ/OTHER, mock_response: hi")
    target = targets(load_text(tmp_path, text).snapshot, "a")[0]
    assert (target.missing, dict(target.params)) == (None, {"mock_response": "hi"})


def test_an_address_from_the_environment_is_taken_and_named(tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": "sk", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    config = load_text(
        tmp_path, "model_list:\n  - {model_name: a, litellm_params: {model: gpt-4o}}\n", environ
    )
    assert targets(config.snapshot, "a")[0].params["api_base"] == "http://127.0.0.1:9/v1"
    assert "OPENAI_BASE_URL" in config.warnings[0].text


@pytest.mark.parametrize(
    ("base", "key"),
    [
        ("https://api.openai.com/v1", "sk"),
        ("https://API.OPENAI.COM/v1", "sk"),
        ("http://api.openai.com/v1", "none"),
        ("https://api.openai.com.evil.example/v1", "none"),
        ("https://evil.example/api.openai.com", "none"),
        ("https://user@evil.example", "none"),
        ("https://[broken", "none"),
    ],
)
def test_only_its_own_home_gets_a_key_from_the_environment(
    tmp_path: Path, base: str, key: str
) -> None:
    text = one(f"model: openai/a, api_base: '{base}'")
    target = targets(load_text(tmp_path, text, {"OPENAI_API_KEY": "sk"}).snapshot, "a")[0]
    assert target.params["api_key"] == key


def test_identity_is_of_place_model_and_key_and_of_nothing_else(tmp_path: Path) -> None:
    def identity(params: str) -> tuple[str, str]:
        text = one(params)
        target = targets(load_text(tmp_path, text).snapshot, "a")[0]
        return target.identity, target.credential

    base = identity("model: openai/x, api_key: none")
    for same in ("rpm: 3", "timeout: 4", "temperature: 1", "weight: 2", "input_cost_per_token: 1"):
        assert identity(f"model: openai/x, api_key: none, {same}") == base
    for other in ("api_base: http://h", "organization: o", "extra_headers: {a: b}"):
        assert identity(f"model: openai/x, api_key: none, {other}") != base
    other_model = identity("model: openai/y, api_key: none")
    assert (other_model[0] != base[0], other_model[1] == base[1]) == (True, True)
    assert identity("model: openai/x, api_key: dummy")[1] != base[1]


def test_a_note_of_ones_own_in_model_info_is_kept(tmp_path: Path) -> None:
    text = MODELS.replace("}}\n", "}, model_info: {owner: us, mode: chat, mod: 1}}\n")
    config = load_text(tmp_path, text)
    assert dict(targets(config.snapshot, "a")[0].info) == {"owner": "us", "mode": "chat", "mod": 1}
    assert [warning.text for warning in config.warnings] == [
        "model_info: mod is not mode; is it meant?"
    ]


def test_a_star_for_everything_takes_the_provider_from_the_name(tmp_path: Path) -> None:
    text = "model_list:\n  - {model_name: '*', litellm_params: {model: '*'}}\n"
    environ = {"OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a"}
    snapshot = load_text(tmp_path, text, environ).snapshot

    def asked(name: str) -> tuple[str, str, object]:
        target = targets(snapshot, name)[0]
        return target.provider, target.model, target.params["api_key"]

    assert asked("anthropic/claude-x") == ("anthropic", "claude-x", "a")
    assert asked("claude-x") == ("anthropic", "claude-x", "a")
    assert asked("openai/o3") == ("openai", "o3", "o")
    assert asked("gpt-4o") == ("openai", "gpt-4o", "o")


def test_a_prefix_that_is_no_provider_is_named_and_belongs_to_the_model(tmp_path: Path) -> None:
    config = load_text(tmp_path, one("model: opneai/x, api_key: none"))
    assert lines(config.warnings) == [
        (2, "opneai is no provider that LiteLLM knows (the nearest is openai); openai is assumed")
    ]
    target = targets(config.snapshot, "a")[0]
    assert (target.provider, target.model) == ("openai", "opneai/x")
    served = load_text(tmp_path, one("model: org/x, api_base: http://127.0.0.1:1/v1"))
    assert served.warnings == ()


def test_a_variable_of_a_setting_for_later_is_warned_of_and_not_fatal(tmp_path: Path) -> None:
    config = load_text(
        tmp_path,
        f"""model_list:
{mock_model("a")}router_settings:
  redis_host: os.environ/REDIS_HOST
  redis_port: os.environ/REDIS_PORT
  redis_password: os.environ/REDIS_PASSWORD
litellm_settings:
  cache_params:
    host: os.environ/REDIS_HOST
    ttl: os.environ/TTL
""",
    )
    left_out = [each for each in lines(config.warnings) if "is left out" in each[1]]
    assert sorted(left_out) == [
        (4, "router_settings.redis_host is left out: REDIS_HOST is not set"),
        (5, "router_settings.redis_port is left out: REDIS_PORT is not set"),
        (6, "router_settings.redis_password is left out: REDIS_PASSWORD is not set"),
        (9, "cache_params.host is left out: REDIS_HOST is not set"),
        (10, "cache_params.ttl is left out: TTL is not set"),
    ]


def test_an_unknown_strategy_is_quoted_with_the_nearest(tmp_path: Path) -> None:
    error = refusal(tmp_path, "router_settings: {routing_strategy: least-bussy}\n")
    (remark,) = error.remarks
    assert remark.text.endswith('"least-bussy" is not a strategy; the nearest name is least-busy')
