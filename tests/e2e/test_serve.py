"""What `mobius serve` does beside answering: where it listens, what it logs, how it ends."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.e2e.stream_checks import target
from tests.harness import Mobius
from tests.providers import Answer, Fails, FakeOpenAI, closed_port

pytestmark = pytest.mark.e2e

MASTER = "sk-master-0123456789"
DEMO = {
    "model_list": [
        {
            "model_name": "demo",
            "litellm_params": {"model": "openai/demo", "mock_response": "Hello"},
        }
    ]
}


def lines(mobius: Mobius, event: str) -> list[dict[str, Any]]:
    """The lines of the log about that, without their time."""
    found = [json.loads(line) for line in mobius.log.splitlines() if line.startswith("{")]
    return [
        {name: value for name, value in line.items() if name not in ("time", "event")}
        for line in found
        if line["event"] == event
    ]


def alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/liveness", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_localhost_answers_at_both_loopback_addresses_without_any_key() -> None:
    if not has_ipv6():
        pytest.skip("this machine has no ::1")
    with Mobius(DEMO, args=["--host", "localhost"], ready_s=None) as mobius:
        for url in (mobius.url, f"http://[::1]:{mobius.port}"):
            mobius.wait_until(lambda url=url: alive(url), 20.0)  # type: ignore[misc]
            assert {"url": url} in lines(mobius, "listening")


def test_an_address_that_others_reach_is_refused_without_a_key() -> None:
    with Mobius(DEMO, args=["--host", "0.0.0.0"], ready_s=None) as mobius:  # noqa: S104
        assert mobius.wait_exit(20) == 1
        assert "loopback address only" in mobius.log


def test_a_target_that_needs_no_litellm_answers_while_litellm_is_imported() -> None:
    with FakeOpenAI() as fake:
        entries = [
            target("openai/gpt", fake.base_url, name="chat"),
            target("gemini/gemini-2.5-flash", fake.base_url),
        ]
        body = {"model": "chat", "messages": [{"role": "user", "content": "Hello"}]}
        with Mobius({"model_list": entries}, ready_s=None) as mobius:
            mobius.wait_until(lambda: alive(mobius.url), 20.0)
            answer = mobius.http.post("/v1/chat/completions", json=body)
            readiness = mobius.http.get("/health/readiness")
            assert answer.status_code == 200
            assert readiness.status_code == 503
            assert readiness.json()["lanes"] == {
                "direct": "ready",
                "translated": "idle",
                "unified": "loading",
            }
            mobius.wait_ready()
            assert mobius.http.get("/health/readiness").json()["lanes"]["unified"] == "ready"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_litellm_is_imported_ends_the_service(number: signal.Signals) -> None:
    with Mobius(DEMO, ready_s=None) as mobius:
        mobius.wait_until(lambda: alive(mobius.url), 20.0)
        mobius.signal(number)
        assert mobius.wait_exit(20) == (0 if number is signal.SIGTERM else 128 + number)
        assert "Traceback" not in mobius.log
        assert json.loads(mobius.log.splitlines()[-1])["event"] == "stopped"


@contextmanager
def before(fake: FakeOpenAI) -> Iterator[Mobius]:
    """A Mobius with one target, whose breaker opens with the first failure, for half a second."""
    config = {
        "model_list": [target("openai/gpt", fake.base_url, name="chat")],
        "router_settings": {"num_retries": 0},
        "mobius": {"laps": 1, "breaker": {"failures": 1, "rest": 0.5}},
    }
    with Mobius(config, secrets=["sk-of-a-fake"]) as mobius:
        yield mobius


def test_a_target_that_goes_to_rest_and_returns_is_two_lines_whatever_is_asked_meanwhile() -> None:
    body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
    with FakeOpenAI() as fake, before(fake) as mobius:

        def ask() -> int:
            return mobius.http.post("/v1/chat/completions", json=body).status_code

        fake.script(Fails(500, {"error": {"message": "sk-of-a-fake is not welcome"}}))
        fake.always(Answer())
        assert [ask() for _ in range(5)] == [503] * 5
        mobius.wait_until(lambda: ask() == 200)
        assert ask() == 200
        mobius.wait_until(lambda: lines(mobius, "target_returns"))
        (rests,), (returns,) = lines(mobius, "target_rests"), lines(mobius, "target_returns")
        assert rests == {
            "level": "warning",
            "target": "chat/openai/gpt",
            "kind": "transient",
            "rest_s": 0.5,
            "reason": "resting 0.5 s: 1 failure in a row, last an error of its own (500)",
        }
        assert (returns["level"], returns["target"]) == ("info", "chat/openai/gpt")
        assert returns["away_s"] >= 0.5


def test_who_reloads_and_who_may_not_is_in_the_log_and_polls_are_not() -> None:
    with closed_port() as port:
        config = {
            "model_list": [target("openai/gpt", f"http://127.0.0.1:{port}/v1")],
            "general_settings": {"master_key": "os.environ/MASTER"},
        }
        with Mobius(config, env={"MASTER": MASTER}, secrets=[MASTER]) as mobius:
            before_polls = mobius.log
            for path in ("/health/liveness", "/health/readiness", "/health", "/metrics"):
                mobius.http.get(path)
            assert mobius.log == before_polls
            for key, status in ((MASTER, 200), ("sk-guessed", 401)):
                headers = {"authorization": f"Bearer {key}", "x-forwarded-for": "203.0.113.9"}
                assert mobius.http.post("/admin/reload", headers=headers).status_code == status
            asked = mobius.wait_until(lambda: lines(mobius, "admin")[1:] and lines(mobius, "admin"))
            assert [(line["level"], line["asked"]) for line in asked] == [
                ("info", "POST /admin/reload"),
                ("warning", "POST /admin/reload"),
            ]
            assert (asked[0]["caller"], asked[1]["status"]) == ("master", 401)
            assert asked[1]["client"] == "203.0.113.9", "a proxy on this machine is believed"
