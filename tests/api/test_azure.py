from __future__ import annotations

import pytest

from proxy.api.azure import deployed


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/openai/deployments/m/chat/completions", "m"),
        ("/openai/deployments/a/b/c/chat/completions", "a/b/c"),
        ("/openai/deployments/chat/completions", "chat"),  # a model of this name, and its texts
        ("/openai/deployments/m/audio/speech", "m"),
        ("/openai/deployments/completions/completions", "completions"),
        ("/openai/deployments//embeddings", None),
        ("/openai/deployments/embeddings", None),
        ("/openai/deployments/m/rerank", None),
        ("/v1/deployments/m/embeddings", None),
    ],
)
def test_a_deployment_is_all_that_stands_before_the_surface(path: str, model: str | None) -> None:
    found = deployed(path)
    assert (None if found is None else found[1]) == model


def test_a_chat_is_no_older_completion() -> None:
    chat, text = (
        deployed("/openai/deployments/m/chat/completions"),
        deployed("/openai/deployments/m/completions"),
    )
    assert chat is not None
    assert text is not None
    assert chat[0] is not text[0]
