"""Every foreign status, error and exception as a Kind."""

from __future__ import annotations

import inspect
import string
from datetime import UTC, datetime
from email.utils import format_datetime
from types import ModuleType
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import UpstreamFailure
from proxy.redaction import MESSAGE_LIMIT, redact
from proxy.retry import Kind
from proxy.upstream.failures import (
    EXCEPTION_KINDS,
    STATUS_KINDS,
    kind_of,
    of_event,
    of_exception,
    of_response,
)
from proxy.upstream.limits import retry_after_s
from proxy.upstream.said import ProviderError, read_error
from tests.quiet import imported

NOW_S = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
NOTHING = ProviderError()

# docs: "What happens when things break".
FAULTS = {
    **dict.fromkeys((400, 413, 422), Kind.CALLER),
    **dict.fromkeys((401, 402, 403), Kind.CREDENTIAL),
    **dict.fromkeys((404, 405, 410, 501), Kind.MISSING),
    **dict.fromkeys((408, 409, 500, 502, 503, 504), Kind.TRANSIENT),
    529: Kind.OVERLOADED,
    429: Kind.RATE_LIMITED,
}


def expected(status: int) -> Kind:
    if status < 400:
        return Kind.MISSING
    return FAULTS.get(status, Kind.CALLER if status < 500 else Kind.TRANSIENT)


def response(
    status: int, body: object = None, *, secrets: tuple[str, ...] = (), **headers: str
) -> UpstreamFailure:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return of_response(status, named, raw, now_s=NOW_S, secrets=secrets)


def error(message: str = "no", code: object = None, type_: object = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}


# Statuses


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_has_a_meaning(status: int) -> None:
    for body in (None, b"", b"<html>sorry</html>", error("something"), {}):
        failure = response(status, body)
        assert failure.kind is expected(status)
        assert failure.provider_status == status


def test_the_table_holds_no_status_that_the_ranges_would_decide_alike() -> None:
    assert {status for status in range(300, 600) if status in STATUS_KINDS} <= FAULTS.keys()


@pytest.mark.parametrize("status", [0, 100, 204, 600, 999])
def test_a_status_from_nowhere_is_no_success(status: int) -> None:
    assert response(status).kind in (Kind.MISSING, Kind.TRANSIENT)


# What a provider says about it


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "context_length_exceeded", Kind.OVERSIZED),
        (400, "string_above_max_length", Kind.OVERSIZED),
        (400, "content_policy_violation", Kind.CONTENT),
        (400, "content_filter", Kind.CONTENT),
        (429, "insufficient_quota", Kind.EXHAUSTED),
        (429, "billing_hard_limit_reached", Kind.EXHAUSTED),
        (403, "billing_not_active", Kind.EXHAUSTED),
        (400, "invalid_api_key", Kind.CREDENTIAL),
        (403, "model_not_found", Kind.MISSING),
        (404, "DeploymentNotFound", Kind.MISSING),
        (404, "thread_not_found", Kind.FORGOTTEN),
        (500, "overloaded_error", Kind.OVERLOADED),
        (503, "server_is_overloaded", Kind.OVERLOADED),
    ],
)
def test_a_providers_code_says_more_than_its_status(status: int, code: str, kind: Kind) -> None:
    assert response(status, error(code=code)).kind is kind
    assert response(status, error(type_=code)).kind is kind
    assert response(status, error(code=code.upper())).kind is kind


@pytest.mark.parametrize("word", ["api_error", "server_error", "timeout_error", "overloaded_error"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429])
def test_a_4xx_is_not_made_the_targets_fault_by_a_vague_word(status: int, word: str) -> None:
    # A 429 never opens a breaker, a bad request is never asked again, a refused key is one.
    assert response(status, error(type_=word)).kind is expected(status)


@pytest.mark.parametrize("code", ["context_length_exceeded", "content_filter", "invalid_api_key"])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_5xx_is_the_providers_whatever_it_writes_into_it(status: int, code: str) -> None:
    assert response(status, error(code=code)).kind is Kind.TRANSIENT


@pytest.mark.parametrize("code", ["invalid_api_key", "rate_limit_exceeded", "content_filter"])
@pytest.mark.parametrize("status", [301, 404, 405, 410])
def test_what_is_not_there_stays_so_whatever_is_written_into_it(status: int, code: str) -> None:
    assert response(status, error(code=code)).kind is Kind.MISSING


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "Your credit balance is too low to access the Anthropic API.", Kind.EXHAUSTED),
        (400, "Please go to Plans & Billing to upgrade", Kind.EXHAUSTED),
        (429, "You exceeded your current quota, please check your plan", Kind.EXHAUSTED),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", Kind.OVERSIZED),
        (400, "This model's maximum context length is 8192 tokens", Kind.OVERSIZED),
        (400, "The input token count (9) exceeds the maximum", Kind.OVERSIZED),
        (413, "Input is too long for requested model.", Kind.OVERSIZED),
        (400, "blocked by Azure OpenAI's content management policy", Kind.CONTENT),
        (400, "API key not valid. Please pass a valid API key.", Kind.CREDENTIAL),
        (422, "prompt is too long", Kind.CALLER),
        (500, "maximum context length", Kind.TRANSIENT),
    ],
)
def test_a_provider_without_a_code_says_it_in_prose(status: int, message: str, kind: Kind) -> None:
    assert response(status, error(message)).kind is kind


@pytest.mark.parametrize("type_", [None, "invalid_request_error", "not_found_error"])
@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "Previous response with id 'resp_1' not found.", "previous_response_not_found"),
        (400, "The encrypted content could not be verified.", "invalid_encrypted_content"),
        (404, "Response with id 'resp_1' not found.", None),  # vLLM
        (404, "Conversation with id 'conv_1' not found.", None),
        (404, "Item with id 'rs_1' not found. Items are not persisted when `store` is", None),
    ],
)
def test_what_a_provider_does_not_keep_another_may_and_it_rests_for_nobody(
    status: int, message: str, code: str | None, type_: str | None
) -> None:
    assert response(status, error(message, code=code, type_=type_)).kind is Kind.DIALECT
    assert response(500, error(message, code=code)).kind is Kind.TRANSIENT


CLAIMS = [
    "your credit balance is too low",
    "you exceeded your current quota",
    "payment",
    "Billing",
    "api key not valid",
    "maximum context length",
]


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("place", ["'{}'", '"{}"', "`{}`", "'x' and '{}'"])
def test_words_that_a_provider_quotes_are_the_callers(claim: str, place: str) -> None:
    # One bad request would else rest the account of everybody for five minutes.
    quoted = place.replace("{}", claim)
    for message in (f"Invalid value: {quoted}. Supported values are: 'a'.", quoted):
        for type_ in (None, "invalid_request_error"):
            assert response(400, error(message, None, type_)).kind is Kind.CALLER


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("code", ["invalid_value", "unknown_parameter", "invalid_type"])
def test_prose_is_not_read_where_a_code_says_something_of_its_own(claim: str, code: str) -> None:
    assert response(400, error(claim, code, "invalid_request_error")).kind is Kind.CALLER


@pytest.mark.parametrize("claim", CLAIMS[:-1])
def test_a_fields_name_that_a_provider_repeats_rests_no_key(claim: str) -> None:
    message = f"messages.0.{claim}: Extra inputs are not permitted"
    assert response(400, error(message, None, "invalid_request_error")).kind is Kind.CALLER


def test_an_apostrophe_quotes_nothing() -> None:
    message = "This model's maximum context length is 8192 tokens, your messages' is 9000."
    assert response(400, error(message, None, "invalid_request_error")).kind is Kind.OVERSIZED


def test_googles_per_minute_limit_is_a_rate_limit_though_it_speaks_of_billing() -> None:
    # Its free tier says this of a limit per model and minute; an empty account would rest the key.
    message = (
        "You exceeded your current quota, please check your plan and billing details. "
        "Quota exceeded for metric: generate_content_free_tier_requests, limit: 15"
    )
    body = {"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED"}}
    assert response(429, body).kind is Kind.RATE_LIMITED


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (
            {"error": {"message": "m", "type": "t", "param": "p", "code": "c"}},
            ProviderError("m", "c", "t", "p"),
        ),
        (
            {"error": {"message": "m", "code": "x", "innererror": {"code": "ResponsibleAI"}}},
            ProviderError("m", "ResponsibleAI"),
        ),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
            ProviderError("m", None, "overloaded_error"),
        ),
        (
            {"error": {"type": "not_found_error", "details": {"error_code": "thread_not_found"}}},
            ProviderError(None, "thread_not_found", "not_found_error"),
        ),
        (
            [{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}],
            ProviderError("m", "INVALID_ARGUMENT"),
        ),
        ({"error": "m"}, ProviderError("m")),
        ({"message": "m", "code": 1042}, ProviderError("m")),
        ({"detail": "m"}, ProviderError("m")),
        ({"error": {"code": "400"}}, NOTHING),
        ({"error": {"message": ["m"], "code": {}, "type": 7, "param": True}}, NOTHING),
        ({"error": None}, NOTHING),
        ({"error": 7}, NOTHING),
        ([], NOTHING),
        (["x"], NOTHING),
        ("x", NOTHING),
        (b"\xff\xfe", NOTHING),
        (b"", NOTHING),
    ],
)
def test_an_error_is_read_in_every_dialect(body: object, read: ProviderError) -> None:
    assert read_error(body if isinstance(body, bytes) else orjson.dumps(body)) == read


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "type", "param", "status", "innererror"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(st.integers(300, 599), JSON)
def test_no_body_whatever_makes_the_reader_stumble(status: int, body: object) -> None:
    failure = (
        of_response(
            status, {}, orjson.dumps(body, option=orjson.OPT_PASSTHROUGH_SUBCLASS), now_s=NOW_S
        )
        if _fits(body)
        else response(status)
    )
    assert failure.kind in Kind
    assert failure.provider_message is None or isinstance(failure.provider_message, str)


def _fits(body: object) -> bool:
    try:
        orjson.dumps(body)
    except (TypeError, ValueError):  # integers beyond 64 bits, lone surrogates
        return False
    return True


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"error": {"message": "x", "type": "server_error"}}, Kind.TRANSIENT),
        ({"error": {"type": "overloaded_error"}}, Kind.OVERLOADED),
        ({"error": {"code": "context_length_exceeded"}}, Kind.OVERSIZED),
        ({"error": {"code": "rate_limit_exceeded"}}, Kind.RATE_LIMITED),
        ({"error": "prompt is too long"}, Kind.OVERSIZED),
        ({"error": "who knows"}, Kind.TRANSIENT),
        ({"error": True}, Kind.TRANSIENT),
    ],
)
def test_an_error_inside_an_answer_is_transient_unless_it_says_more(
    event: dict[str, Any], kind: Kind
) -> None:
    failure = of_event(event)
    assert failure.kind is kind
    assert failure.provider_status is None


# Retry-After


def http_date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW_S + seconds, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 3 "}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "1e9"}, 1e9),
        ({"retry-after": http_date(30)}, 30.0),
        ({"retry-after": http_date(0)}, 0.0),
        ({"retry-after": http_date(-30)}, None),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 13:00:30 +0100"}, 30.0),
        ({"retry-after": "Sunday, 22-Nov-26 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun Nov 22 12:00:30 2026"}, 30.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "3 seconds"}, None),
        ({"retry-after": "Sun, 99 Nov 2026 12:00:30 GMT"}, None),
        ({"retry-after": "Sun, 22 Nov 0000 12:00:30 GMT"}, None),
        ({"retry-after": "\x00\xff"}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250.5", "retry-after": "9"}, 0.2505),
        ({"retry-after-ms": "-1", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "nan", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "soon"}, None),
    ],
)
def test_retry_after_is_understood_in_every_form(
    headers: dict[str, str], seconds: float | None
) -> None:
    found = retry_after_s(headers, now_s=NOW_S)
    assert found == (None if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=40) | st.floats().map(str) | st.integers().map(str))
@example("Sun, 22 Nov 2026 12:00:30 +9999")
@example("1 Jan 0001 00:00:00 +2359")
@example("٣")
def test_a_retry_after_is_never_negative_nor_endless_nor_an_error(value: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        found = retry_after_s({name: value}, now_s=NOW_S)
        assert found is None or 0 <= found < float("inf")


def test_a_refusal_of_any_status_carries_its_retry_after() -> None:
    assert response(429, retry_after="7").retry_after_s == 7.0
    assert response(503, retry_after_ms="1500").retry_after_s == 1.5
    assert response(400).retry_after_s is None


# Secrets


KEYS = [
    "sk-proj-abcdefghijklmnop",
    "sk-ant-api03-abcdefghijk",
    "sk-****************wxyz",
    "AIzaSyA1234567890abcdefghij",
    "AKIAABCDEFGHIJKLMNOP",
    "gsk_abcdefghijklmnop",
    "xai-abcdefghijklmnop",
    "hf_abcdefghijklmnop",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
]
PLACES = [
    "Incorrect API key provided: {}. You can find it at",
    "{}",
    'key "{}" is not valid',
    "x_{}",
    "({})",
    "Authorization: Bearer {}",
    "at https://x.test/v1?key={}&y=1",
    "code=7{}",
    "{}, {}\n{}",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", KEYS)
def test_what_looks_like_a_key_goes_out_nowhere(key: str, place: str) -> None:
    told = redact(place.replace("{}", key))
    assert key not in told
    assert "[redacted]" in told


@pytest.mark.parametrize(
    "text",
    [
        "http://10.0.0.7:8080/v1/chat?api-version=3",
        "HTTPS://EXAMPLE.TEST/path",
        "see<https://example.test/a>",
        "xhttps://example.test/a",
        "bearer abc",
        "BEARER\tabc.def",
        "api_key=abc123",
        "API-Key: 'abc123'",
        '"token": "abc123"',
        "password=hunter2;",
        "?signature=abc123&x=1",
        "organization org-abcdefghij",
        "project `proj_abcdefghij`",
    ],
)
def test_addresses_and_credentials_go_out_nowhere(text: str) -> None:
    told = redact(text).lower()
    for word in ("example.test", "10.0.0.7", "abc", "hunter2"):
        assert word not in told


@pytest.mark.parametrize(
    "text",
    [
        "This model's maximum context length is 8192 tokens, you asked for 9000.",
        "the risk-averse, task-specific and disk-bound monkey-patching of a turkey-sandwich",
        "Invalid value: 'max_tokens'. Supported values are: 1, 2 and 3.",
        "'messages[0].content' must be a string",
    ],
)
def test_ordinary_words_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


WORDS = st.text(string.ascii_letters + string.digits + "-_.*+/=", min_size=8, max_size=40)
TEXTS = st.text(max_size=60)


@given(st.lists(st.tuples(TEXTS, WORDS), min_size=1, max_size=4), TEXTS)
@example([("", "abcdefgh"), ("", "abcdefghijkl")], "")
@example([("https://", "a" * 9), ("", "a" * 8)], "")
def test_no_secret_of_the_target_survives(pairs: list[tuple[str, str]], tail: str) -> None:
    secrets = tuple(secret for _, secret in pairs)
    message = "".join(text + secret for text, secret in pairs) + tail
    told = redact(message, secrets=secrets)
    # What the marker itself spells is no secret's remainder.
    rest = told.replace("[redacted]", "\x00")
    assert not any(secret in rest for secret in secrets)
    assert len(told) <= MESSAGE_LIMIT + 1


@given(st.sampled_from(KEYS), TEXTS, TEXTS)
def test_no_key_survives_between_other_words(key: str, before: str, after: str) -> None:
    told = redact(f"{before} {key} {after}")
    assert key not in told


@given(
    st.sampled_from(["http", "https", "HTTP", "Https"]),
    st.text(string.ascii_lowercase + ".:/?=&@-0123456789", min_size=1, max_size=30),
    TEXTS,
)
def test_no_address_survives(scheme: str, rest: str, before: str) -> None:
    assert f"{scheme}://" not in redact(f"{before} {scheme}://{rest} after")


def test_a_key_that_is_part_of_another_takes_nothing_from_its_redaction() -> None:
    assert redact("abcdefgh-tail!", secrets=("abcdefgh", "abcdefgh-tail")) == "[redacted]!"


def test_an_empty_secret_changes_nothing() -> None:
    assert redact("as it was", secrets=("",)) == "as it was"


def test_a_long_message_is_cut_after_it_was_redacted() -> None:
    told = redact("x" * (MESSAGE_LIMIT - 4) + " sk-abcdefghijklmnop")
    assert len(told) == MESSAGE_LIMIT + 1
    assert "sk-" not in told


def test_every_word_of_a_provider_that_is_passed_on_is_redacted() -> None:
    key = "0123456789abcdef"
    said = {
        "message": f"wrong key {key}",
        "code": f"code {key}",
        "type": f"type {key}",
        "param": f"{key} at https://x.test",
    }
    for failure in (
        response(400, {"error": said}, secrets=(key,)),
        of_event({"error": said}, secrets=(key,)),
    ):
        told = (
            failure.provider_message,
            failure.provider_code,
            failure.provider_type,
            failure.param,
            failure.message,
        )
        assert None not in told
        assert not any(key in str(word) or "x.test" in str(word) for word in told)


def test_a_word_of_a_provider_is_of_bounded_length() -> None:
    said = dict.fromkeys(("message", "code", "type", "param"), "x" * 100_000)
    failure = response(400, {"error": said})
    for word in (failure.provider_message, failure.provider_code, failure.provider_type):
        assert word is not None
        assert len(word) <= MESSAGE_LIMIT + 1


# LiteLLM


@pytest.fixture(scope="module")
def exceptions() -> ModuleType:
    return imported("litellm.exceptions")


def classes_of(module: ModuleType) -> dict[str, type[BaseException]]:
    return {
        name: cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls)
        and issubclass(cls, BaseException)
        and cls.__module__ == module.__name__
    }


def made(cls: type[BaseException]) -> BaseException:
    """An instance, with something for every argument that it insists on."""
    request = httpx.Request("POST", "https://x.test")
    known: dict[str, Any] = {
        "message": "litellm.BadRequestError: OpenAIException - the message",
        "status_code": 400,
        "request": request,
        "response": httpx.Response(400, request=request),
        "failures": [],
        "request_data": {},
        "current_cost": 1.0,
        "max_budget": 1.0,
    }
    wanted = [
        parameter
        for parameter in inspect.signature(cls.__init__).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name != "self"
    ]
    return cls(**{each.name: known.get(each.name, "x") for each in wanted})


def test_every_exception_that_litellm_defines_stands_in_the_table(exceptions: ModuleType) -> None:
    defined = classes_of(exceptions)
    assert len(defined) > 20
    assert defined.keys() - EXCEPTION_KINDS.keys() == set(), "a new version has new ones"


def test_every_exception_of_litellms_becomes_its_kind(exceptions: ModuleType) -> None:
    for name, cls in classes_of(exceptions).items():
        failure = of_exception(made(cls))
        assert failure.kind is EXCEPTION_KINDS[name], name
        assert failure.provider_status is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("PaymentRequiredError", Kind.EXHAUSTED),
        ("ContextWindowExceededError", Kind.OVERSIZED),
        ("ContentPolicyViolationError", Kind.CONTENT),
        ("UnsupportedParamsError", Kind.DIALECT),
        ("BadRequestError", Kind.CALLER),
        ("Timeout", Kind.SILENT),
        ("APIConnectionError", Kind.UNREACHABLE),
        ("BudgetExceededError", Kind.EXHAUSTED),
    ],
)
def test_a_subclass_wins_over_its_base(exceptions: ModuleType, name: str, kind: Kind) -> None:
    assert of_exception(made(classes_of(exceptions)[name])).kind is kind


def test_a_class_that_is_in_no_table_is_what_its_nearest_base_is(exceptions: ModuleType) -> None:
    base = classes_of(exceptions)["PaymentRequiredError"]
    cls = type("BrandNewError", (base,), {})
    assert of_exception(made(cls)).kind is Kind.EXHAUSTED
    assert of_exception(RuntimeError("who knows")).kind is Kind.TRANSIENT


def test_a_break_inside_a_stream_is_what_caused_it(exceptions: ModuleType) -> None:
    classes = classes_of(exceptions)
    cause = made(classes["ContextWindowExceededError"])
    broken = classes["MidStreamFallbackError"](
        message="x", model="x", llm_provider="x", original_exception=cause
    )  # type: ignore[call-arg]
    assert of_exception(broken).kind is Kind.OVERSIZED


def test_the_text_of_an_exception_is_told_only_where_it_is_about_the_request(
    exceptions: ModuleType,
) -> None:
    for name, cls in classes_of(exceptions).items():
        told = of_exception(made(cls))
        assert "the message" not in told.message
        about_request = told.kind in (Kind.CALLER, Kind.DIALECT, Kind.CONTENT, Kind.OVERSIZED)
        assert about_request or told.provider_message is None, name
    bad = of_exception(made(classes_of(exceptions)["BadRequestError"]))
    assert bad.provider_message == "the message"


def test_the_secrets_of_a_target_are_not_told_by_an_exception(exceptions: ModuleType) -> None:
    cls = classes_of(exceptions)["BadRequestError"]
    exc = cls(message="bad: hunter2hunter2", model="x", llm_provider="x")  # type: ignore[call-arg]
    assert of_exception(exc, secrets=("hunter2hunter2",)).provider_message == "bad: [redacted]"


def test_a_kind_is_decided_by_status_and_error_alone() -> None:
    assert kind_of(400, NOTHING) is Kind.CALLER
    assert kind_of(400, ProviderError(code="insufficient_quota")) is Kind.EXHAUSTED
