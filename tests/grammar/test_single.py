from __future__ import annotations

from typing import Any

import pytest

from proxy.grammar import GRAMMARS
from proxy.types import Surface, Usage

LISTS = {
    Surface.EMBEDDINGS: "data",
    Surface.MODERATIONS: "results",
    Surface.IMAGES: "data",
    Surface.RERANK: "results",
}


@pytest.mark.parametrize("surface", LISTS)
def test_an_answer_has_the_list_that_was_asked_for(surface: Surface) -> None:
    grammar, name = GRAMMARS[surface], LISTS[surface]
    assert grammar.answers({name: [{}]})
    others: list[Any] = [None, [], {}, {name: {}}, {name: None}, {"error": {}}]
    for other in others:
        assert not grammar.answers(other)


def test_no_vector_is_no_answer() -> None:
    assert not GRAMMARS[Surface.EMBEDDINGS].answers({"data": []})
    assert GRAMMARS[Surface.MODERATIONS].answers({"results": []})


def test_all_tokens_of_a_vector_are_the_prompt_s() -> None:
    body = {"data": [{}], "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    assert GRAMMARS[Surface.EMBEDDINGS].usage(body, None) == Usage(prompt_tokens=7)


@pytest.mark.parametrize("surface", LISTS)
def test_there_is_no_stream_to_read(surface: Surface) -> None:
    grammar = GRAMMARS[surface]
    assert not grammar.begins({"data": [{}]})
    assert list(grammar.endings({"data": [{}]})) == []
    assert grammar.events({"data": [{}]}, usage=True) == []
    with pytest.raises(ValueError, match="no stream"):
        grammar.whole([])


@pytest.mark.parametrize("surface", LISTS)
def test_an_error_within_a_body_is_a_failure(surface: Surface) -> None:
    body = {"error": {"message": "no"}}
    assert GRAMMARS[surface].failure(body) == body
    assert GRAMMARS[surface].failure({"data": []}) is None


def test_the_tokens_of_an_image_are_read_under_either_name() -> None:
    images, said = GRAMMARS[Surface.IMAGES], Usage(7, 100)
    for usage in (
        {"input_tokens": 7, "output_tokens": 100, "total_tokens": 107},
        {"prompt_tokens": 7, "completion_tokens": 100},
    ):
        assert images.usage({"data": [{}], "usage": usage}, None) == said
    assert images.usage({"data": [{}]}, None) is None
