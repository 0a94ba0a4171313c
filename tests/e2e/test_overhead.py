"""Our own time is told apart from that of a provider who is slow, in the header and the metric."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.stream_checks import target
from tests.harness import Mobius, total
from tests.providers import Answer, FakeAnthropic, FakeOpenAI

pytestmark = pytest.mark.e2e

SLOW_S = 2.0  # far more than anything of ours takes, on a busy machine too
FASTER_S = 1.0  # than the provider, and much slower than we are


@pytest.fixture(scope="module")
def mobius() -> Iterator[Mobius]:
    """Its providers are slow from the second request on; the first may find LiteLLM cold."""
    with FakeOpenAI() as openai, FakeAnthropic() as anthropic:
        config = {
            "model_list": [
                target("openai/gpt", openai.base_url),
                target("anthropic/claude", anthropic.base_url),
            ]
        }
        with Mobius(config) as mobius:
            for model, fake in (("openai-gpt", openai), ("anthropic-claude", anthropic)):
                ask(mobius, model, stream=False)
                ask(mobius, model, stream=True)
                fake.always(Answer(delay_s=SLOW_S))
            yield mobius


def ask(mobius: Mobius, model: str, *, stream: bool) -> float:
    """Our own time in seconds, as the header of the answer has it."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    response = mobius.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    return float(response.headers["x-mobius-overhead-ms"]) / 1000


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", ["openai-gpt", "anthropic-claude"])
def test_the_time_of_a_slow_provider_is_not_ours(mobius: Mobius, model: str, stream: bool) -> None:
    before = mobius.metrics()
    own_s = ask(mobius, model, stream=stream)
    after = mobius.metrics()

    def grown(name: str) -> float:
        return total(after, name, model=model) - total(before, name, model=model)

    assert grown("mobius_request_seconds_sum") > SLOW_S
    # LiteLLM's share is some milliseconds, and it is ours.
    assert 0.0001 < own_s < FASTER_S
    assert 0.0001 < grown("mobius_overhead_seconds_sum") < FASTER_S
