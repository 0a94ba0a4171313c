"""Every limit on everybody it may stand for, as the official SDK meets it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from tests.e2e.quota_place import HI, TOOK, Place, key, priced, secret
from tests.e2e.stream_checks import check_envelope
from tests.harness import Mobius, wait_until
from tests.providers import Answer, FakeOpenAI, Gate

pytestmark = pytest.mark.e2e

CROWD = 50
DAY_S, MONTH_S = 86_400, 31 * 86_400
DURATION = re.compile(r"\d+ms|(\d+h)?(\d+m)?[\d.]+s")
KINDS = ("key", "team", "user", "model")


@dataclass(frozen=True)
class Case:
    """One limit: how many requests it lets in, and what is told after them."""

    word: str
    limits: Mapping[str, Any]
    most: str  # as the message says it
    type: str = "requests"
    code: str = "rate_limit_exceeded"
    lets_in: int = 1
    longest_s: float | None = 60  # until there is room; None: never
    unit: str | None = None  # of the headers

    @property
    def should_retry(self) -> str | None:
        return None if self.longest_s == 60 else "false"


def budget(window: str, longest_s: float | None) -> Case:
    # An answer costs $0.00008, and $0.0002 or more is set aside for it.
    return Case(
        f"budget_usd.{window}",
        {"budget_usd": {window: 0.00027}},
        "$0.00027",
        *("insufficient_quota", "insufficient_quota"),
        longest_s=longest_s,
    )


CASES = (
    Case("rpm", {"rpm": 2}, "2", lets_in=2, unit="requests"),
    Case("rpd", {"rpd": 2}, "2", lets_in=2, longest_s=DAY_S, unit="requests"),
    # An answer takes 70, and for a request some 50 to 70 are set aside.
    Case("tpm", {"tpm": 100}, "100", type="tokens", unit="tokens"),
    Case("tpd", {"tpd": 100}, "100", type="tokens", longest_s=DAY_S, unit="tokens"),
    budget("day", DAY_S),
    budget("month", MONTH_S),
    budget("total", None),
)
BY_WORD = {case.word: case for case in CASES}
LIMITS = {
    **{case.word: case.limits for case in CASES},
    "parallel": {"max_parallel": 1},
    "each": {"max_tokens_per_request": 30},
}


def names(word: str, kind: str) -> tuple[str, dict[str, Any]]:
    """Who asks for what, so that this limit on this kind of scope, and no other, holds."""
    word = word.replace(".", "-")
    match kind:
        case "key" | "team":
            return f"{kind}-{word}", {}
        case "user":
            return "free", {"user": f"u-{word}"}
        case _:
            return "free", {"model": f"m-{word}"}


def config(base: str) -> dict[str, Any]:
    """Every limit on a key, on a team, on a user and on a model of its own."""
    words = {word.replace(".", "-"): limits for word, limits in LIMITS.items()}
    teams = [{"name": f"t-{word}", "limits": limits} for word, limits in words.items()]
    crowd = {
        "crowd-rpm": {"rpm": 10},
        "crowd-tpd": {"tpd": 1000},
        "crowd-usd": {"budget_usd": {"day": 0.001}},
        "crowd-parallel": {"max_parallel": 5},
    }
    keys = [
        key("free"),
        key("both", limits={"rpm": 50, "tpm": 100_000}),
        *(key(f"key-{word}", limits=limits) for word, limits in words.items()),
        *(key(f"team-{word}", team=f"t-{word}") for word in words),
        *(key(name, limits=limits) for name, limits in crowd.items()),
    ]
    return {
        "model_list": [priced("m", base), *(priced(f"m-{word}", base) for word in words)],
        "router_settings": {"num_retries": 0},
        "mobius": {
            "laps": 1,
            "keys": keys,
            "teams": teams,
            "users": {f"u-{word}": limits for word, limits in words.items()},
            "models": {f"m-{word}": limits for word, limits in words.items()},
        },
    }


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with FakeOpenAI() as provider, Mobius(config(provider.base_url)) as mobius:
        yield Place(mobius, provider)


@pytest.fixture
def place(running: Place) -> Place:
    running.provider.reset_script()
    running.provider.journal.clear()
    running.provider.always(Answer(usage=TOOK))
    return running


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("word", BY_WORD)
def test_a_limit_holds_and_its_refusal_says_all_about_it(
    place: Place, word: str, kind: str
) -> None:
    case, (caller, more) = BY_WORD[word], names(word, kind)
    for number in range(case.lets_in):
        _, headers = place.ask(caller, **more)
        if case.unit == "requests":
            assert headers["x-ratelimit-limit-requests"] == case.most
            assert headers["x-ratelimit-remaining-requests"] == str(case.lets_in - number - 1)
        elif case.unit == "tokens":
            assert headers["x-ratelimit-limit-tokens"] == case.most
            assert headers["x-ratelimit-remaining-tokens"] == "30"
    before = place.mobius.metrics()
    error = place.refuse(caller, **more)
    assert (error.status_code, error.type, error.code) == (429, case.type, case.code)
    message = message_of(error)
    assert message.startswith(f"limit of {kind} `")
    for part in (f"{case.word} {case.most}, ", " left, ", " asked for; "):
        assert part in message
    check_wait(error, case)
    counted = ("mobius_quota_refused_total", frozenset({("scope", kind), ("limit", case.word)}))
    assert place.mobius.metrics()[counted] == before.get(counted, 0) + 1


def message_of(error: openai.APIStatusError) -> str:
    return str(check_envelope(error.response.json())["message"])


def check_wait(error: openai.APIStatusError, case: Case) -> None:
    """Retry-After, its milliseconds, the message and the reset agree with each other."""
    headers = error.response.headers
    assert headers.get("x-should-retry") == case.should_retry
    if case.longest_s is None:
        assert "retry-after" not in headers
        assert message_of(error).endswith("it does not come back by itself")
        return
    wait_s = int(headers["retry-after"])
    assert 0 < wait_s <= case.longest_s
    assert wait_s - 1 <= int(headers["retry-after-ms"]) / 1000 <= wait_s
    assert re.search(rf"there is room again in ({DURATION.pattern})$", message_of(error))
    if case.unit is not None:
        assert headers[f"x-ratelimit-limit-{case.unit}"] == case.most
        reset = headers[f"x-ratelimit-reset-{case.unit}"]
        assert DURATION.fullmatch(reset)
        assert reset != "0s"


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_than_so_many_are_under_way_at_once(place: Place, kind: str) -> None:
    caller, more = names("parallel", kind)
    gate = Gate()
    place.provider.script(Answer(usage=TOOK, gate=gate, gate_after_tokens=2))
    facts: dict[str, Any] = {"model": "m", "messages": HI, **more}
    with place.client(caller).chat.completions.create(stream=True, **facts) as stream:
        next(iter(stream))
        error = place.refuse(caller, **more)
        assert (error.type, error.code) == ("requests", "rate_limit_exceeded")
        assert f"limit of {kind} `" in message_of(error)
        assert "max_parallel 1, 1 used" in error.message
        assert error.response.headers["retry-after"] == "1"
        gate.open()
        assert len(list(stream)) > 2
    wait_until(lambda: asks(place, caller, **more), 5.0, "the place")
    place.ask(caller, **more)


def asks(place: Place, caller: str, **more: Any) -> bool:
    try:
        place.ask(caller, **more)
    except openai.RateLimitError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_one_request_asks_for_no_more_tokens_than_it_may(place: Place, kind: str) -> None:
    caller, more = names("each", kind)
    error = place.refuse(caller, kind=openai.BadRequestError, max_tokens=31, **more)
    assert (error.type, error.code) == ("invalid_request_error", "max_tokens_exceeded")
    assert error.param == "max_tokens"
    assert f"max_tokens_per_request of {kind} `" in error.message
    place.ask(caller, max_tokens=30, **more)
    assert place.provider.journal.last.json["max_tokens"] == 30
    place.ask(caller, max_tokens=None, **more)
    assert place.provider.journal.last.json["max_completion_tokens"] == 30


def test_what_is_left_is_told_with_every_answer_as_openai_does(place: Place) -> None:
    _, whole = place.ask("both")
    create = place.client("both").chat.completions.with_raw_response.create
    raw = create(model="m", messages=HI, stream=True, max_tokens=10)
    list(raw.parse())
    with pytest.raises(openai.NotFoundError) as unknown:
        place.ask("both", model="nobody")
    place.provider.script(Answer(status=400, raw_body=b'{"error": {"message": "no"}}'))
    with pytest.raises(openai.BadRequestError) as bad:
        place.ask("both")
    left = []
    for headers in (whole, raw.headers, bad.value.response.headers):
        assert headers["x-ratelimit-limit-requests"] == "50"
        assert headers["x-ratelimit-limit-tokens"] == "100000"
        for unit in ("requests", "tokens"):
            assert DURATION.fullmatch(headers[f"x-ratelimit-reset-{unit}"])
            assert headers[f"x-ratelimit-reset-{unit}"] != "0s"
        left.append(
            [int(headers[f"x-ratelimit-remaining-{unit}"]) for unit in ("requests", "tokens")]
        )
    assert [requests for requests, _ in left] == [49, 48, 47]
    # A stream has set something aside; a failure has given all of it back.
    assert left[0][1] == 100_000 - 70
    assert 100_000 - 400 < left[1][1] < left[0][1]
    assert left[2][1] == 100_000 - 140
    assert unknown.value.code == "model_not_found"


def test_who_has_no_limits_hears_the_providers(place: Place) -> None:
    _, headers = place.ask("free")
    assert headers["x-ratelimit-limit-requests"] == "10000"
    assert headers["x-ratelimit-remaining-tokens"] == "1999000"


# A crowd


async def crowd(place: Place, caller: str, gate: Gate | None = None) -> list[str]:
    """What became of so many requests at once; the gate is opened when the others are refused."""
    results: list[str] = []

    async def one(client: openai.AsyncOpenAI) -> None:
        try:
            await client.chat.completions.create(model="m", messages=HI, max_tokens=10)
            results.append("ok")
        except openai.RateLimitError as exc:
            results.append(str(exc.type))
            if gate is not None and len(results) == CROWD - 5:
                gate.open()

    async with place.mobius.async_openai(api_key=secret(caller)) as client:
        await asyncio.gather(*(one(client) for _ in range(CROWD)))
    return results


def test_a_crowd_makes_no_more_requests_than_the_limit_says(place: Place) -> None:
    assert sorted(asyncio.run(crowd(place, "crowd-rpm"))) == ["ok"] * 10 + ["requests"] * 40
    assert len(place.provider.journal) == 10


def test_a_crowd_is_under_way_no_more_than_the_limit_says(place: Place) -> None:
    gate = Gate()
    place.provider.always(Answer(usage=TOOK, gate=gate))
    results = asyncio.run(crowd(place, "crowd-parallel", gate))
    assert sorted(results) == ["ok"] * 5 + ["requests"] * 45
    assert len(place.provider.journal) == 5


@pytest.mark.parametrize(
    ("caller", "took", "most"), [("crowd-tpd", 70, 1000), ("crowd-usd", 80_000, 1_000_000)]
)
def test_a_crowd_takes_what_there_is_and_no_more(
    place: Place, caller: str, took: int, most: int
) -> None:
    place.provider.always(Answer(usage=TOOK, delay_s=0.05))
    results: list[str] = []
    while not results or "ok" in results[-CROWD:]:
        results += asyncio.run(crowd(place, caller))
    rows = place.rows(f"key = '{caller}'")
    assert len(rows) == results.count("ok") == len(place.provider.journal)
    used, left, wanted = amounts_of(place.refuse(caller))
    assert used == took * len(rows) <= most
    assert left == most - used < wanted


def amounts_of(error: openai.APIStatusError) -> tuple[int, int, int]:
    """What is used, left and asked for, in tokens or nano-dollars."""
    found = re.search(r", (\S+) used or set aside, (\S+) left, (\S+) asked for;", message_of(error))
    assert found is not None
    used, left, wanted = (
        round(float(each[1:]) * 1e9) if each.startswith("$") else int(each)
        for each in found.groups()
    )
    return used, left, wanted


# How long an answer may be


def test_without_a_number_the_models_own_limit_is_set_aside_and_nothing_is_sent(
    place: Place,
) -> None:
    place.ask("both", max_tokens=None)
    sent = place.provider.journal.last.json
    assert not {"max_tokens", "max_completion_tokens"} & sent.keys()
    place.ask("key-each", max_tokens=None)
    assert place.provider.journal.last.json["max_completion_tokens"] == 30
