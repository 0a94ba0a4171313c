"""`/metrics` on a port of its own: there alone, for as long as the server is there, taken once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from tests.harness import Mobius, total, wait_until
from tests.harness.metrics import Samples, parse
from tests.providers import FakeOpenAI
from tests.providers.ports import bound, port_of

pytestmark = pytest.mark.e2e

KEY = {"authorization": "Bearer sk-master-0123456789"}
BODY = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
WAITS = "waits_for_restart"


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


def config(provider: FakeOpenAI, access: Any, **mobius: Any) -> dict[str, Any]:
    params = {"model": "openai/gpt", "api_base": provider.base_url, "api_key": "sk-x"}
    return {
        "model_list": [{"model_name": "chat", "litellm_params": params}],
        "general_settings": {"master_key": "sk-master-0123456789"},
        "mobius": {"metrics": {"access": access}, **mobius},
    }


@contextmanager
def free_port() -> Iterator[int]:
    """A port that only we, and a server that reuses addresses, can take."""
    with bound() as held:
        yield port_of(held)


def get(
    port: int, path: str = "/metrics", host: str = "127.0.0.1", **headers: str
) -> httpx.Response:
    return httpx.get(f"http://{host}:{port}{path}", headers=headers, trust_env=False)


def scrape(port: int, host: str = "127.0.0.1") -> Samples:
    response = get(port, host=host)
    response.raise_for_status()
    return parse(response.text)


def is_closed(port: int, host: str = "127.0.0.1") -> bool:
    try:
        get(port, host=host)
    except httpx.TransportError:
        return True
    return False


def asked(mobius: Mobius) -> int:
    return mobius.http.post("/v1/chat/completions", json=BODY, headers=KEY).status_code


def test_they_are_there_alone_in_one_process_and_for_as_long_as_that(provider: FakeOpenAI) -> None:
    with free_port() as port, Mobius(config(provider, {"port": port})) as mobius:
        assert asked(mobius) == 200
        samples = scrape(port)
        assert total(samples, "mobius_request_seconds_count", outcome="ok") == 1
        assert total(samples, "mobius_slo_requests_total", met="true") == 2
        refused = mobius.http.get("/metrics", headers=KEY)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_url")
        for path in ("/v1/models", "/health/readiness", "/", "/metrics/", "/admin/usage"):
            answer = get(port, path, **KEY)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
        posted = httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions", json=BODY, headers=KEY, trust_env=False
        )
        assert posted.status_code == 404
        assert f'"event":"listening_for_metrics","url":"http://127.0.0.1:{port}"' in mobius.log
        assert "not act on it" not in mobius.log
        with Mobius(config(provider, {"port": port}), ready_s=None) as second:
            assert second.wait_exit(20) == 1
            said = f"cannot listen on 127.0.0.1:{port}: the port is in use; "
            assert said + "mobius.metrics.access.port takes another one" in second.log
            assert "Traceback" not in second.log
        assert mobius.stop() == 0
        assert is_closed(port)


def test_an_edit_is_in_force_or_is_told_to_wait(provider: FakeOpenAI) -> None:
    with ExitStack() as ports:
        one, other = (ports.enter_context(free_port()) for _ in range(2))
        mobius = ports.enter_context(Mobius(config(provider, {"port": one})))

        def edit(access: Any, generation: int, **more: Any) -> None:
            mobius.edit(config(provider, access, **more))
            wait_until(lambda: get(one, **KEY).text.count(f"generation {generation}.0"), 10.0)

        edit({"port": other}, 2)
        mobius.wait_until(lambda: WAITS in mobius.log)
        assert mobius.log.count('"setting":"mobius.metrics.access"') == 1
        assert is_closed(other)
        assert mobius.http.get("/metrics", headers=KEY).status_code == 404
        edit("key", 3)
        assert (get(one).status_code, get(one, **KEY).status_code) == (401, 200)
        assert mobius.http.get("/metrics").status_code == 401
        assert mobius.http.get("/metrics", headers=KEY).status_code == 200
        edit("open", 4)
        assert get(one).status_code == mobius.http.get("/metrics").status_code == 200
        edit({"port": one}, 5, slo={"first_token_s": 0.00001})
        assert mobius.http.get("/metrics").status_code == 404
        assert asked(mobius) == 200
        samples = scrape(one)
        missed = {"objective": "first_token", "model": "chat", "met": "false"}
        assert total(samples, "mobius_slo_requests_total", **missed) == 1
        assert total(samples, "mobius_slo_first_token_seconds") == 0.00001


def test_a_port_that_an_edit_names_is_not_taken_and_nothing_is_opened_instead(
    provider: FakeOpenAI,
) -> None:
    with free_port() as port, Mobius(config(provider, "open")) as mobius:
        mobius.edit(config(provider, {"port": port}))
        mobius.wait_until(lambda: mobius.http.get("/metrics").status_code == 401)
        assert mobius.http.get("/metrics", headers=KEY).status_code == 200
        assert is_closed(port)
        mobius.wait_until(lambda: '"setting":"mobius.metrics.access"' in mobius.log)


def test_several_workers_have_one_port_where_each_answers_for_all(provider: FakeOpenAI) -> None:
    with ExitStack() as held:
        port = held.enter_context(free_port())
        settings = config(provider, {"port": port, "host": "127.0.0.2"})
        mobius = held.enter_context(Mobius(settings, args=("--workers", "2")))
        assert is_closed(port)
        mobius.wait_until(lambda: mobius.log.count('"event":"listening"') >= 2, 60)
        for _ in range(8):
            with httpx.Client(base_url=mobius.url, trust_env=False, timeout=30) as client:
                answer = client.post("/v1/chat/completions", json=BODY, headers=KEY)
                assert answer.status_code == 200
        for _ in range(4):
            samples = scrape(port, "127.0.0.2")
            assert total(samples, "mobius_request_seconds_count", outcome="ok") == 8
            assert total(samples, "mobius_slo_requests_total", objective="availability") == 8
            assert total(samples, "mobius_slo_first_token_seconds") == 3.0
        assert mobius.http.get("/metrics").status_code == 404
        assert mobius.stop() == 0
        assert is_closed(port, "127.0.0.2")
