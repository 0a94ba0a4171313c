"""The same answer in every spelling and cut at every place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers import Answer, FakeOpenAI, SseStyle
from tests.providers.dialect import pieces
from tests.providers.raw import PLAIN, stream
from tests.providers.steps import ToolCall
from tests.providers.transcript import Part, split, zipped

TEXT = "Grüße 世界 👋"


@pytest.fixture
def provider() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as provider:
        yield provider


def raw_pieces(provider: FakeOpenAI) -> list[bytes]:
    """The body as the HTTP chunks in which it came."""
    url = f"{provider.base_url}/chat/completions"
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("POST", url, json=PLAIN | {"stream": True}) as response,
    ):
        return list(response.iter_raw())


def test_each_write_is_a_chunk_of_its_own(provider: FakeOpenAI) -> None:
    provider.script(Answer(text=TEXT), *[Answer(text=TEXT, write_split=n) for n in (1, 7, ())])
    plain, bytewise, sevens, at_once = (raw_pieces(provider) for _ in range(4))
    assert len(plain) == 6
    assert {len(piece) for piece in bytewise} == {1}
    assert max(map(len, sevens)) == 7
    assert len(at_once) == 1
    sizes = {len(b"".join(some)) for some in (plain, bytewise, sevens, at_once)}
    assert len(sizes) == 1


def test_cuts_are_positions_in_the_body(provider: FakeOpenAI) -> None:
    provider.script(Answer(write_split=(10, 300)))
    first, second, _ = raw_pieces(provider)
    assert (len(first), len(second)) == (10, 290)
    assert provider.journal.wait_over()[0].tokens_sent == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("gzip", [True, False])
def test_every_spelling_says_the_same(provider: FakeOpenAI, newline: str, gzip: bool) -> None:
    for comments, bom, multiline, space, extras in product([True, False], repeat=5):
        style = SseStyle(
            newline=newline,  # type: ignore[arg-type]  # parametrised from its three values
            comments=comments,
            bom=bom,
            multiline=multiline,
            space=space,
            extras=extras,
        )
        provider.script(Answer(text=TEXT, sse_style=style, gzip=gzip))
        seen = stream(provider)
        assert seen.body.startswith(b"\xef\xbb\xbf") == bom
        assert (b"\n: a comment" in seen.body.replace(b"\r", b"\n")) == comments
        if not multiline:
            assert seen.text == TEXT
        assert seen.events[-1] == "[DONE]"


PARTS = st.lists(
    st.builds(
        Part, st.binary(min_size=1, max_size=20), st.lists(st.integers(0, 9), max_size=2).map(tuple)
    ),
    min_size=1,
)
CUTS = st.none() | st.integers(1, 30) | st.lists(st.integers(0, 400), max_size=8)


@given(PARTS, CUTS)
def test_cutting_changes_neither_bytes_nor_tokens(
    parts: list[Part], cuts: int | Sequence[int] | None
) -> None:
    cut = list(split(parts, cuts))
    assert b"".join(part.data for part in cut) == b"".join(part.data for part in parts)
    assert sum((part.tokens for part in cut), ()) == sum((part.tokens for part in parts), ())
    assert all(part.data for part in cut)


@given(PARTS)
def test_each_zipped_part_can_be_read_when_it_arrives(parts: list[Part]) -> None:
    reader = httpx._decoders.GZipDecoder()
    for part, squeezed in zip(parts, zipped(parts), strict=False):
        assert reader.decode(squeezed.data) == part.data


@given(st.text(), st.text(min_size=1), st.integers(1, 9))
def test_pieces_are_numbered_without_holes_and_lose_nothing(
    text: str, arguments: str, fragments: int
) -> None:
    call = ToolCall("f", arguments, fragments=fragments)
    said = pieces(Answer(text=text, reasoning=text, tool_calls=(call,)))
    assert sorted(piece.number for piece in said) == list(range(len(said)))
    for kind, whole in (("text", text), ("reasoning", text), ("tool", arguments)):
        assert "".join(piece.text for piece in said if piece.kind == kind) == whole
