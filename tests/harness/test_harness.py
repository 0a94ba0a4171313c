"""The harness, tested with a stand-in for Mobius."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness import Mobius, mobius_command, redis_server, total
from tests.harness.config_file import EditKind

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))


def stand_in(config: str | dict[str, Any] = "model_list: []\n", **more: Any) -> Mobius:
    return Mobius(config, command=STAND_IN, **more)


def test_it_is_ready_inside_the_with_and_gone_after_it() -> None:
    with stand_in() as mobius:
        assert mobius.http.get("/health/readiness").status_code == 200
        url, folder = mobius.url, mobius.folder
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health/readiness", trust_env=False)
    assert not folder.exists()


def test_a_server_that_does_not_start_is_reported_at_once_with_its_log() -> None:
    with pytest.raises(AssertionError, match=r"(?s)exit code 1.*litellm_config.yaml:1: it is bad"):
        stand_in("bad: true\n").__enter__()


def test_it_stops_with_its_exit_code_and_starts_again_on_the_same_port() -> None:
    with stand_in() as mobius:
        first = mobius.pid
        assert mobius.stop() == 3
        assert mobius.exit_code == 3
        mobius.start()
        assert mobius.pid != first
        assert mobius.http.get("/health/readiness").status_code == 200


def test_a_killed_process_says_by_which_signal_it_ended() -> None:
    with stand_in() as mobius:
        assert mobius.kill() == -signal.SIGKILL
        mobius.start()
        mobius.signal(signal.SIGINT)
        assert mobius.wait_exit() != 0


@pytest.mark.parametrize("how", ["save", "rename", "configmap"])
def test_an_edit_replaces_the_whole_file(how: EditKind) -> None:
    with stand_in({"a": 1}, layout=how) as mobius:
        assert mobius.http.get("/config").text == "a: 1\n"
        mobius.edit("b: 2\n", how=how)
        assert mobius.http.get("/config").text == "b: 2\n"
        mobius.edit({"c": 3}, how=how)
        assert mobius.http.get("/config").text == "c: 3\n"
        assert mobius.config.is_symlink() == (how == "configmap")


def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-developer")
    with stand_in(env={"MY_KEY": "x"}) as mobius:
        names = mobius.http.get("/env").text.split()
    assert "MY_KEY" in names
    assert not {"HTTP_PROXY", "OPENAI_API_KEY"} & set(names)


def test_a_secret_in_the_log_fails_the_test_that_gave_it() -> None:
    told = "sk-very-secret"
    with pytest.raises(AssertionError, match="sk-v…"), stand_in(env={"TELL": told}, secrets=[told]):
        pass


def test_metrics_are_read_by_name_and_labels() -> None:
    with stand_in() as mobius:
        samples = mobius.metrics()
    assert samples["things_total", frozenset({("kind", "a"), ("model", "m")})] == 2
    assert total(samples, "things_total", model="m") == 5
    assert total(samples, "things_total", kind="b") == 3


def test_the_official_clients_reach_it() -> None:
    with stand_in() as mobius:
        answer = mobius.openai().chat.completions.create(model="m", messages=[])
        assert answer.choices[0].message.content == "hello"
        assert str(mobius.anthropic().base_url) == mobius.url


def test_a_command_runs_to_its_end() -> None:
    done = mobius_command("check", config="a: 1\n", env={"TELL": "fine"}, command=STAND_IN)
    assert (done.returncode, done.stdout) == (0, "fine\n")
    failed = mobius_command("check", config="bad: 1\n", command=STAND_IN)
    assert failed.returncode == 1
    assert "it is bad" in failed.stderr


@pytest.mark.redis
def test_redis_is_real_and_comes_back_empty() -> None:
    with redis_server() as redis:
        assert redis.command("SET", "a", "1") == b"+OK\r\n"
        assert redis.command("GET", "a") == b"$1\r\n1\r\n"
        redis.stop()
        with pytest.raises(ConnectionRefusedError):
            redis.command("PING")
        redis.start()
        assert redis.command("GET", "a") == b"$-1\r\n"


@pytest.mark.redis
def test_a_hung_redis_accepts_and_says_nothing_until_it_resumes() -> None:
    with redis_server() as redis:
        redis.hang()
        with pytest.raises(TimeoutError):
            redis.command("PING", timeout_s=0.2)
        redis.resume()
        assert redis.command("PING") == b"+PONG\r\n"
