"""
Several processes at one address are one service: its numbers, its limits, its edits and its end.

The journal of the provider is the judge of what was served.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stream_checks import Visitor
from tests.harness import Mobius, Samples, mobius_command, redis_server, total
from tests.harness.metrics import parse
from tests.providers import Answer, FakeOpenAI, Gate

pytestmark = pytest.mark.e2e

WORKERS = ("--workers", "2")
MASTER = "sk-master-0123456789"
ADMIN = {"authorization": f"Bearer {MASTER}"}
AT_ONCE = 8


def config(provider: FakeOpenAI, *names: str, **sections: Any) -> dict[str, Any]:
    params = {"model": "openai/gpt", "api_base": provider.base_url, "api_key": "sk-x"}
    return {
        "model_list": [{"model_name": name, "litellm_params": params} for name in ("chat", *names)],
        **sections,
    }


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
def served(provider: FakeOpenAI) -> FakeOpenAI:
    """The provider, with nothing in its journal."""
    provider.reset_script()
    provider.journal.clear()
    return provider


@pytest.fixture(scope="module")
def shared(provider: FakeOpenAI) -> Iterator[Mobius]:
    """Two workers, for all that does not end them."""
    with Mobius(config(provider), args=WORKERS) as mobius:
        ready(mobius)
        yield mobius


def workers(mobius: Mobius) -> list[int]:
    """The processes under the supervisor."""
    children = Path(f"/proc/{mobius.pid}/task/{mobius.pid}/children").read_text()
    return [int(each) for each in children.split()]


def ready(mobius: Mobius, count: int = 2) -> None:
    """Wait until that many workers listen, those that have died not counted."""

    def all_listen() -> bool:
        died = mobius.log.count('"event":"worker_ended"')
        return mobius.log.count('"event":"listening"') >= count + died

    mobius.wait_until(all_listen, 60, "all workers")


def ask(mobius: Mobius, key: str = MASTER) -> int:
    """The status of one request on a connection of its own; 0 when the connection broke."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=mobius.url, trust_env=False, timeout=30) as client:
        try:
            return client.post("/v1/chat/completions", json=body, headers=headers).status_code
        except httpx.TransportError:
            return 0


def ask_all(mobius: Mobius, times: int, key: str = MASTER) -> Counter[int]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return Counter(pool.map(lambda _: ask(mobius, key), range(times)))


def count(mobius: Mobius) -> float:
    """How many requests the metrics know of, whichever worker answers."""
    return total(scrape(mobius), "mobius_request_seconds_count")


def every_line_is_whole(mobius: Mobius) -> bool:
    lines = [line for line in mobius.log.splitlines() if line]
    return len([json.loads(line) for line in lines]) == len(lines)


def test_the_shipped_file_is_served_by_several(tmp_path: Path) -> None:
    shipped = (Path(__file__).parents[2] / "litellm_config.yaml").read_text()
    with Mobius(shipped, args=WORKERS) as mobius:
        ready(mobius)
        answer = mobius.openai().chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "hello"}]
        )
        assert answer.choices[0].message.content
        assert mobius.stop() == 0
        assert every_line_is_whole(mobius)


def test_the_metrics_are_those_of_all_whoever_is_asked(shared: Mobius, served: FakeOpenAI) -> None:
    before = shared.metrics()
    assert ask_all(shared, 60) == {200: 60}
    entries = served.journal.requests()
    assert len(entries) == 60
    for _ in range(6):  # each on a connection of its own, that may be another worker's
        after = scrape(shared)
        for name, labels, expected in (
            ("mobius_attempt_seconds_count", {"outcome": "ok"}, 60),
            ("mobius_request_seconds_count", {"model": "chat"}, 60),
            (
                "mobius_tokens_total",
                {"kind": "completion"},
                sum(len(entry.tokens_sent) for entry in entries),
            ),
        ):
            assert total(after, name, **labels) - total(before, name, **labels) == expected
        assert total(after, "mobius_in_flight_requests") == 0
        assert total(after, "mobius_target_healthy", target="chat/openai/gpt") == 1


def test_a_request_in_flight_at_each_worker_is_seen_by_either(
    shared: Mobius, served: FakeOpenAI
) -> None:
    gate = Gate()
    served.always(Answer(gate=gate, gate_after_tokens=3))
    with ExitStack() as stack:
        stack.callback(gate.open)
        for number in range(1, 7):
            stack.enter_context(visitor(shared))
            served.journal.wait_received(number)
        for _ in range(4):
            assert total(scrape(shared), "mobius_in_flight_requests") == 6
    served.journal.wait_over(6)
    shared.wait_until(lambda: total(scrape(shared), "mobius_in_flight_requests") == 0)


def scrape(mobius: Mobius) -> Samples:
    with httpx.Client(base_url=mobius.url, trust_env=False) as client:
        return parse(client.get("/metrics").raise_for_status().text)


def visitor(mobius: Mobius, *, stream: bool = True) -> Visitor:
    return Visitor(mobius.port, "chat", stream=stream)


def test_when_a_worker_is_killed_its_requests_fail_alone_and_no_sum_goes_down(
    shared: Mobius, served: FakeOpenAI
) -> None:
    assert ask_all(shared, 40) == {200: 40}
    before = count(shared)
    deaths = shared.log.count('"code":-9')
    first, second = workers(shared)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked: list[Future[int]] = [pool.submit(ask, shared) for _ in range(100)]
        served.journal.wait_received(60)
        os.kill(first, signal.SIGKILL)
        results = Counter(future.result(timeout=60) for future in asked)
    # No more of them than were open at once, and nobody waits for ever.
    assert results[0] <= AT_ONCE
    assert results[200] == 100 - results[0]
    assert count(shared) >= before
    ready(shared)
    assert shared.log.count('"code":-9') == deaths + 1
    assert second in workers(shared)
    assert first not in workers(shared)
    between = count(shared)
    assert ask_all(shared, 20) == {200: 20}
    assert count(shared) == between + 20


def test_both_finish_what_they_have_and_the_port_is_free_afterwards(served: FakeOpenAI) -> None:
    gate = Gate()
    served.always(Answer(gate=gate, gate_after_tokens=3))
    with Mobius(config(served), args=WORKERS) as mobius, ExitStack() as stack:
        stack.callback(gate.open)
        ready(mobius)
        visitors = [stack.enter_context(visitor(mobius, stream=n % 2 > 0)) for n in range(8)]
        served.journal.wait_received(8)
        mobius.signal(signal.SIGTERM)
        mobius.wait_until(lambda: mobius.log.count('"event":"draining"') == 2)
        assert mobius.exit_code is None
        gate.open()
        for number, each in enumerate(visitors):
            rest = each.read_to_end()
            assert rest.startswith(b"HTTP/1.1 200")
            assert (b"[DONE]" in rest) == (number % 2 > 0)
        assert mobius.wait_exit() == 0
        assert mobius.log.count('"event":"stopped"') == 2
        with socket.create_server(("127.0.0.1", mobius.port)):
            pass
        assert every_line_is_whole(mobius)


def test_a_killed_supervisor_leaves_no_worker_behind(served: FakeOpenAI) -> None:
    with Mobius(config(served), args=WORKERS) as mobius:
        ready(mobius)
        pids = workers(mobius)
        os.kill(mobius.pid, signal.SIGKILL)
        mobius.wait_exit()
        mobius.wait_until(lambda: mobius.log.count('"event":"stopped"') == 2)
        mobius.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def models(mobius: Mobius) -> list[str]:
    with httpx.Client(base_url=mobius.url, trust_env=False, headers=ADMIN) as client:
        return [each["id"] for each in client.get("/v1/models").json()["data"]]


def reload(mobius: Mobius) -> dict[str, Any]:
    answer: dict[str, Any] = mobius.http.post("/admin/reload", headers=ADMIN).json()
    return answer


def generation(mobius: Mobius) -> float:
    return total(scrape(mobius), "mobius_config_generation")


def test_a_saved_file_is_in_force_at_each_worker_and_a_wrong_one_at_none(
    shared: Mobius, served: FakeOpenAI
) -> None:
    ready(shared)
    shared.edit(config(served, "spare"))
    shared.wait_until(lambda: reload(shared)["error"] is None)
    shared.wait_until(lambda: {tuple(models(shared)) for _ in range(8)} == {("chat", "spare")})
    assert reload(shared)["result"] == "unchanged"
    for wrong, why in (
        ("model_list: 7\n", "litellm_config.yaml:1"),
        (config(served, mobius={"users": {"default": {"rpm": 5}}}), "with --workers above 1"),
    ):
        shared.edit(wrong)
        answer = reload(shared)
        assert answer["result"] == "error"
        assert why in answer["error"]
        assert {tuple(models(shared)) for _ in range(8)} == {("chat", "spare")}
    before = generation(shared)
    shared.edit(config(served))
    shared.signal(signal.SIGHUP)
    shared.wait_until(lambda: generation(shared) > before)
    assert {tuple(models(shared)) for _ in range(8)} == {("chat",)}
    assert shared.exit_code is None


def test_limits_without_a_redis_are_refused_in_one_sentence(served: FakeOpenAI) -> None:
    limited = config(served, mobius={"users": {"default": {"rpm": 5}}})
    done = mobius_command("serve", *WORKERS, "--port", "0", config=limited)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "with --workers above 1, the limits of keys, teams, users and models would be" in line


def test_a_port_that_is_taken_is_one_sentence(served: FakeOpenAI) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = mobius_command("serve", *WORKERS, "--port", port, config=config(served))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"cannot listen on 127.0.0.1:{port}: the port is in use; --port takes another one"
    ]


def test_a_ledger_that_cannot_be_used_is_one_sentence(served: FakeOpenAI, tmp_path: Path) -> None:
    made = config(served, mobius={"ledger": {"path": str(tmp_path)}})
    done = mobius_command("serve", *WORKERS, "--port", "0", config=made)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "set mobius.ledger.path" in line


def rows(mobius: Mobius) -> Sequence[dict[str, Any]]:
    answer = mobius.http.get("/admin/usage?group_by=key", headers=ADMIN).json()
    assert answer["replicas"] == 1  # one ledger, however many write it
    found: Sequence[dict[str, Any]] = answer["rows"]
    return found


@pytest.mark.redis
def test_limits_and_usage_are_of_all_workers_together(served: FakeOpenAI) -> None:
    keys = [{"name": "web", "key": "sk-web-0123456789", "limits": {"rpd": 20}}]
    with redis_server() as redis:
        made = config(
            served,
            router_settings={"redis_url": redis.url},
            mobius={"keys": keys},
            general_settings={"master_key": MASTER},
        )
        with Mobius(made, args=WORKERS) as mobius:
            ready(mobius)
            assert ask_all(mobius, 50, "sk-web-0123456789") == {200: 20, 429: 30}
            entries = served.journal.requests()
            assert len(entries) == 20
            (row,) = rows(mobius)
            assert (row["requests"], row["attempts"]) == (20, 20)
            assert row["completion_tokens"] == sum(len(entry.tokens_sent) for entry in entries)
            samples = mobius.metrics()
            assert total(samples, "mobius_quota_remaining", scope="key", limit="rpd") == 0
            assert total(samples, "mobius_quota_refused_total", limit="rpd") == 30
