"""Each lane checks a certificate as `ssl_verify` says; the journal is the judge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.harness import Mobius, mobius_command
from tests.harness.tls_front import Front, tls_front
from tests.providers import FakeAnthropic, FakeOpenAI

pytestmark = pytest.mark.e2e

LANES = ("direct", "translated", "unified")
HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authorities")


@pytest.fixture(scope="module")
def providers() -> Iterator[dict[str, FakeOpenAI | FakeAnthropic]]:
    with FakeOpenAI() as direct, FakeAnthropic() as translated, FakeOpenAI() as unified:
        yield {"direct": direct, "translated": translated, "unified": unified}


@pytest.fixture(scope="module")
def fronts(
    folder: Path, providers: dict[str, FakeOpenAI | FakeAnthropic]
) -> Iterator[dict[str, Front]]:
    direct, translated, unified = (providers[lane].port for lane in LANES)
    with (
        tls_front(folder, direct) as one,
        tls_front(folder, translated) as two,
        tls_front(folder, unified) as three,
    ):
        yield {"direct": one, "translated": two, "unified": three}


def deployment(lane: str, front: Front, name: str, **more: Any) -> dict[str, Any]:
    model = "anthropic/claude" if lane == "translated" else "openai/gpt"
    base = front.url if lane == "translated" else f"{front.url}/v1"
    params = {"model": model, "api_base": base, "api_key": "sk-x", "num_retries": 0, **more}
    return {"model_name": f"{lane}-{name}", "litellm_params": params}


def config(fronts: dict[str, Front], **sections: Any) -> dict[str, Any]:
    entries = []
    for lane, front in fronts.items():
        entries.append(deployment(lane, front, "usual"))
        entries.append(deployment(lane, front, "false", ssl_verify=False))
        entries.append(deployment(lane, front, "file", ssl_verify=str(front.authority)))
    lanes = {f"unified-{name}": "unified" for name in ("usual", "false", "file")}
    breaker = {"failures": 1000, "min_calls": 1000}
    return {"model_list": entries, "mobius": {"lanes": lanes, "breaker": breaker}, **sections}


@pytest.fixture(scope="module")
def mobius(fronts: dict[str, Front]) -> Iterator[Mobius]:
    with Mobius(config(fronts)) as running:
        yield running


@pytest.mark.parametrize("lane", LANES)
def test_each_lane_trusts_as_the_file_says(
    mobius: Mobius, providers: dict[str, FakeOpenAI | FakeAnthropic], lane: str
) -> None:
    journal, client = providers[lane].journal, mobius.openai()
    journal.clear()
    # First the one that is not checked, so that there is a connection which nobody else may use.
    for name in ("false", "file", "false"):
        said = client.chat.completions.create(model=f"{lane}-{name}", messages=HELLO)
        assert said.choices[0].message.content
        chunks = client.chat.completions.create(model=f"{lane}-{name}", messages=HELLO, stream=True)
        assert [chunk for chunk in chunks if chunk.choices]
    assert len(journal.requests()) == 6
    assert len({entry.connection for entry in journal.requests()}) == 2
    with pytest.raises(openai.InternalServerError) as refused:
        client.chat.completions.create(model=f"{lane}-usual", messages=HELLO)
    assert refused.value.status_code == 503
    assert len(journal.requests()) == 6


def test_what_is_not_checked_is_said_at_the_start_and_by_check(
    mobius: Mobius, fronts: dict[str, Front]
) -> None:
    assert mobius.log.count("ssl_verify is false: certificates are not checked") == len(LANES)
    done = mobius_command("check", config=config(fronts))
    assert done.returncode == 0
    assert done.stderr.count("ssl_verify is false: certificates are not checked") == len(LANES)


def test_an_authority_without_a_file_keeps_it_from_starting(fronts: dict[str, Front]) -> None:
    gone = deployment("direct", fronts["direct"], "gone", ssl_verify="/nowhere/authority.pem")
    done = mobius_command("check", config={"model_list": [gone]})
    assert done.returncode == 1
    assert "litellm_config.yaml:8: ssl_verify: /nowhere/authority.pem cannot be used" in done.stderr


def test_for_all_targets_the_environment_may_name_an_authority(
    fronts: dict[str, Front], providers: dict[str, FakeOpenAI | FakeAnthropic]
) -> None:
    both = fronts["direct"].authority.with_name("both.pem")
    both.write_text("".join(front.authority.read_text() for front in fronts.values()))
    own = {lane: fronts[lane] for lane in ("direct", "translated")}  # the third takes as long again
    with Mobius(config(own), env={"SSL_CERT_FILE": str(both)}) as running:
        for lane in own:
            said = running.openai().chat.completions.create(model=f"{lane}-usual", messages=HELLO)
            assert said.choices[0].message.content
