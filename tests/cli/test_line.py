"""Two ends of a line, with real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.cli.line import Line
from proxy.everyone import Silent

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def shout(word: str) -> Any:
    if word == "nobody":
        raise Silent("nobody is here")
    if word == "never":
        await asyncio.Event().wait()
    return {"said": word.upper()}


@asynccontextmanager
async def a_line() -> AsyncIterator[tuple[Line, Line]]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    one, other = [await Line(shout).open(end) for end in ends]
    try:
        yield one, other
    finally:
        await one.aclose()
        await other.aclose()


async def test_either_end_is_answered_however_many_ask_at_once() -> None:
    async with a_line() as (one, other):
        asked = [each.ask(word) for word in ("a", "b") for each in (one, other)]
        assert [each["said"] for each in await asyncio.gather(*asked)] == ["A", "A", "B", "B"]


async def test_an_answer_may_be_large() -> None:
    async with a_line() as (one, _):
        word = "x" * 1_000_000
        assert (await one.ask(word))["said"] == word.upper()


async def test_who_does_not_answer_is_silent_and_the_line_goes_on() -> None:
    async with a_line() as (one, _):
        with pytest.raises(Silent, match=r"no answer within 0.01 s"):
            await one.ask("never", timeout_s=0.01)
        assert (await one.ask("a"))["said"] == "A"


async def test_silence_further_on_is_told_as_such() -> None:
    async with a_line() as (one, _):
        with pytest.raises(Silent, match="nobody is here"):
            await one.ask("nobody")


async def test_the_end_of_the_other_side_is_told_at_once() -> None:
    async with a_line() as (one, other):
        ended = asyncio.Event()
        one.on_end = ended.set
        asked = asyncio.create_task(one.ask("never"))
        await asyncio.sleep(0)
        await other.aclose()
        with pytest.raises(Silent, match="the other side is gone"):
            await asked
        await ended.wait()
        with pytest.raises(Silent, match="the other side is gone"):
            await one.ask("a")
