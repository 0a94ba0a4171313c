"""Probes through a real process: what they send, what they find, and when there are none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.stream_checks import target
from tests.harness import Mobius, total, wait_until
from tests.providers import Entry, Fails, FakeAnthropic, FakeOpenAI, FakeProvider

pytestmark = pytest.mark.e2e

EVERY_S = 0.4
HI = [{"role": "user", "content": "hi"}]
MODEL = "some-gpt"
LABEL = f"m/openai/{MODEL}"


def config(*models: dict[str, Any], every: float | str = EVERY_S, **mobius: Any) -> dict[str, Any]:
    probes = {"every": every, **mobius.pop("probes", {})}
    return {
        "model_list": list(models),
        "router_settings": {"num_retries": 0},
        "mobius": {"laps": 1, "probes": probes, **mobius},
    }


@pytest.fixture
def openai() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


def m(fake: FakeProvider, provider: str = "openai", **params: Any) -> dict[str, Any]:
    return target(f"{provider}/{MODEL}", fake.base_url, name="m", **params)


def lists(fake: FakeProvider) -> list[Entry]:
    return [entry for entry in fake.journal.requests() if entry.path == "/v1/models"]


def chats(fake: FakeProvider) -> list[Entry]:
    return [entry for entry in fake.journal.requests() if entry.path != "/v1/models"]


def probed(mobius: Mobius, **labels: str) -> float:
    return total(mobius.metrics(), "mobius_probes_total", **labels)


def health(mobius: Mobius) -> dict[str, Any]:
    found: dict[str, Any] = mobius.http.get("/ai/providers/health").json()
    return found


def test_who_is_idle_is_asked_for_a_list_and_stays_well(openai: FakeOpenAI) -> None:
    with FakeAnthropic() as anthropic:
        models = (m(openai), m(anthropic, "anthropic"))
        with Mobius(config(*models), secrets=["sk-of-a-fake"]) as mobius:
            for fake, provider in ((openai, "openai"), (anthropic, "anthropic")):
                fake.journal.wait(lambda journal, f=fake: len(lists(f)) >= 2)  # type: ignore[misc]
                assert chats(fake) == []
                wait_until(lambda p=provider: health(mobius)["providers"][p]["latency"])  # type: ignore[misc]
            found = health(mobius)["targets"][LABEL]
            assert (found["healthy"], found["probe"]["by"], found["probe"]["outcome"]) == (
                *(True, "models", "ok"),
            )
            assert probed(mobius, target=LABEL, by="models", outcome="ok") >= 2
            assert probed(mobius, by="token") == 0
            assert openai.journal.requests()[0].headers["authorization"] == "Bearer sk-of-a-fake"
            assert mobius.http.get("/admin/usage").json()["rows"] == []
        at_the_end = len(openai.journal)
    assert len(openai.journal) == at_the_end


def test_nobody_is_asked_before_the_file_says_so_and_tokens_are_charged_to_a_caller_of_its_own(
    openai: FakeOpenAI,
) -> None:
    with Mobius(config(m(openai), every="off")) as mobius:
        assert mobius.http.post("/ai/generate", json={"messages": HI, "model": "m"}).is_success
        assert health(mobius)["targets"][LABEL]["probe"] is None
        assert len(openai.journal) == 1
        mobius.edit(config(m(openai), probes={"by": "token"}))
        (_, entry, *_) = openai.journal.wait_received(2)
        assert (entry.path, entry.json["max_tokens"]) == ("/v1/chat/completions", 1)
        wait_until(lambda: probed(mobius, target=LABEL, by="token", outcome="ok"))
        rows = mobius.http.get("/admin/usage?group_by=key,model").json()["rows"]
        (row,) = (each for each in rows if each["key"] == "_probe")
        assert row["model"] == "m"
        assert row["completion_tokens"] > 0
        assert total(mobius.metrics(), "mobius_request_seconds_count") == 1
        assert lists(openai) == []


def test_a_provider_that_goes_away_is_noticed_and_one_that_comes_back_too(
    openai: FakeOpenAI,
) -> None:
    breaker = {"failures": 2, "rest": 0.5}
    with Mobius(config(m(openai), breaker=breaker)) as mobius:
        wait_until(lambda: probed(mobius, outcome="ok"))
        assert health(mobius)["providers"]["openai"]["healthy"] is True
        openai.stop()
        wait_until(lambda: health(mobius)["providers"]["openai"]["healthy"] is False, 20)
        assert total(mobius.metrics(), "mobius_target_healthy", target=LABEL) == 0
        assert probed(mobius, target=LABEL, by="models", outcome="unreachable") >= 2
        before = len(chats(openai))
        openai.start()
        # Not by a list: it has failed, so that only an answer brings it back.
        wait_until(lambda: health(mobius)["providers"]["openai"]["healthy"] is True, 20)
        assert len(chats(openai)) == before + 1
        wait_until(lambda: probed(mobius, target=LABEL, by="token", outcome="ok") == 1)


def test_a_key_that_was_refused_is_left_alone_while_it_rests(openai: FakeOpenAI) -> None:
    openai.script(Fails(status=401), Fails(status=401), model="models")
    openai.always(Fails(status=401), model=MODEL)
    with Mobius(config(m(openai), m(openai, "custom_openai"))) as mobius:
        wait_until(lambda: probed(mobius, by="token", outcome="provider_auth_error") == 2)
        asked = len(openai.journal)
        found = health(mobius)["targets"][LABEL]
        assert found["healthy"] is False
        assert "refused our key (401)" in found["reason"]
        # Another target is probed on and on meanwhile, which is how long nothing is asked here.
        with FakeOpenAI() as other:
            mobius.edit(config(m(openai), m(other, "hosted_vllm")))
            other.journal.wait(lambda journal: len(lists(other)) >= 3)
        assert len(openai.journal) == asked
