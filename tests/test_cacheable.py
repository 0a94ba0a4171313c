"""Which surfaces' answers are kept, and which requests are more than a question."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from proxy.cacheable import CALL_TYPES, NEVER, TABLE, is_stateful, may_be_kept, surfaces_of
from proxy.caching import Caching
from proxy.types import Surface
from tests.fakes import ask

ON = Caching(enabled=True)
SOUND = {Surface.SPEECH, Surface.TRANSCRIPTIONS, Surface.TRANSLATIONS}
NOT_KEPT = {Surface.IMAGES, Surface.COUNT_TOKENS, Surface.AI, *SOUND}


def test_every_surface_is_decided() -> None:
    assert TABLE.keys() | NOT_KEPT == set(Surface)
    assert not TABLE.keys() & NOT_KEPT


@pytest.mark.parametrize("surface", list(Surface))
def test_what_is_in_the_table_is_kept(surface: Surface) -> None:
    assert may_be_kept(ask(surface=surface), ON) is (surface not in NOT_KEPT)


def test_litellms_words_speak_of_one_surface_each() -> None:
    named = [surfaces_of(frozenset({name})) for name in sorted(CALL_TYPES)]
    assert all(len(found) == 1 for found in named)
    assert surfaces_of(NEVER) == surfaces_of(frozenset()) == frozenset()


def test_all_of_litellms_words_are_known() -> None:
    found = find_spec("litellm")
    assert found is not None
    assert found.origin is not None
    source = (Path(found.origin).parent / "types/caching.py").read_text()
    (named,) = re.findall(r"CachingSupportedCallTypes = Literal\[(.*?)\]", source, re.DOTALL)
    words = set(re.findall(r'"(\w+)"', named))
    assert len(words) > 10
    assert words <= CALL_TYPES | NEVER


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, False),
        ({"store": False}, False),
        ({"store": None, "background": False, "previous_response_id": None}, False),
        ({"store": True}, True),
        ({"background": True}, True),
        ({"previous_response_id": "resp_1"}, True),
        ({"conversation": "conv_1"}, True),
        ({"conversation": {"id": "conv_1"}}, True),
        ({"container": "container_1"}, True),
        ({"mcp_servers": [{"type": "url"}]}, True),
        ({"prompt": "a text"}, False),
        ({"prompt": {"id": "pmpt_1"}}, True),
        ({"prompt": {"id": "pmpt_1", "version": "2"}}, False),
        ({"tools": [{"type": "function"}, {"type": "web_search"}, {"name": "x"}, 3]}, False),
        ({"tools": [{"type": "function"}, {"type": "mcp"}]}, True),
        ({"tools": [{"type": "code_execution_20250825"}]}, True),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, True),
        ({"tools": "junk"}, False),
    ],
)
def test_a_request_that_is_more_than_a_question_is_asked_each_time(
    body: dict[str, Any], expected: bool
) -> None:
    assert is_stateful(body) is expected
    assert may_be_kept(ask(body=body), ON) is not expected
