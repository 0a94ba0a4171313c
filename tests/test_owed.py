"""What is owed is paid once, the last first, whatever goes wrong on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import pytest

from proxy.owed import Owed

pytestmark = pytest.mark.anyio
Stack = type[Owed] | type[AsyncExitStack]
STACKS: tuple[Stack, ...] = (Owed, AsyncExitStack)


class Journal:
    """Blocks that write down how they are left; some raise something else, or nothing any more."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def block(self, name: str, *, raises: Exception | None = None) -> Iterator[str]:
        try:
            yield name
        except BaseException as exc:
            self.lines.append(f"{name}: {exc}")
            if raises is not None:
                raise raises from exc
            raise
        else:
            self.lines.append(name)
            if raises is not None:
                raise raises

    @asynccontextmanager
    async def slow(self, name: str) -> AsyncIterator[str]:
        with self.block(name):
            yield name

    async def note(self, name: str) -> None:
        self.lines.append(name)


@pytest.fixture
def journal() -> Journal:
    return Journal()


async def test_blocks_are_left_in_the_order_opposite_to_that_in_which_they_were_entered(
    journal: Journal,
) -> None:
    async with Owed() as owed:
        assert owed.enter_context(journal.block("first")) == "first"
        assert await owed.enter_async_context(journal.slow("second")) == "second"
        owed.callback(lambda: journal.lines.append("third"))
        owed.push_async_callback(lambda: journal.note("fourth"))
    assert journal.lines == ["fourth", "third", "second", "first"]


@pytest.mark.parametrize("stack", STACKS)
async def test_an_error_that_a_block_raises_takes_the_place_of_the_one_it_was_told(
    stack: Stack, journal: Journal
) -> None:
    async def work() -> None:
        async with stack() as owed:
            owed.enter_context(journal.block("first"))
            owed.enter_context(journal.block("second", raises=KeyError("other")))
            await owed.enter_async_context(journal.slow("third"))
            raise ValueError("one")

    with pytest.raises(KeyError, match="other") as raised:
        await work()
    assert journal.lines == ["third: one", "second: one", "first: 'other'"]
    assert isinstance(raised.value.__cause__, ValueError)


@pytest.mark.parametrize("stack", STACKS)
async def test_an_error_at_the_end_of_a_good_block_is_told_to_the_rest_and_raised(
    stack: Stack, journal: Journal
) -> None:
    async def work() -> None:
        async with stack() as owed:
            owed.enter_context(journal.block("first"))
            owed.enter_context(journal.block("second", raises=KeyError("late")))

    with pytest.raises(KeyError, match="late"):
        await work()
    assert journal.lines == ["second", "first: 'late'"]


async def test_the_last_of_several_errors_says_what_came_before() -> None:
    class Fails:
        def __init__(self, error: Exception) -> None:
            self._error = error

        def __enter__(self) -> None: ...

        def __exit__(self, *how: object) -> None:
            raise self._error

    first, second = KeyError("first"), ValueError("second")

    async def work() -> None:
        async with Owed() as owed:
            owed.enter_context(Fails(second))
            owed.enter_context(Fails(first))

    with pytest.raises(ValueError, match="second") as raised:
        await work()
    assert raised.value is second
    assert second.__context__ is first


async def test_what_is_moved_is_paid_where_it_was_moved_to_and_once(journal: Journal) -> None:
    async with Owed() as owed:
        owed.enter_context(journal.block("first"))
        moved = owed.pop_all()
    assert journal.lines == []
    outer = Owed()
    outer.push_async_exit(moved.__aexit__)
    await outer.aclose()
    await outer.aclose()
    assert journal.lines == ["first"]


async def test_what_is_taken_over_is_paid_first_and_only_there(journal: Journal) -> None:
    inner, outer = Owed(), Owed()
    for owed, name in ((outer, "first"), (inner, "second"), (inner, "third")):
        owed.enter_context(journal.block(name))
    outer.take(inner)
    await inner.aclose()
    assert journal.lines == []
    await outer.aclose()
    assert journal.lines == ["third", "second", "first"]


async def test_a_block_that_cannot_be_entered_is_not_left(journal: Journal) -> None:
    @contextmanager
    def closed() -> Iterator[None]:
        raise ValueError("closed")
        yield

    async def work() -> None:
        async with Owed() as owed:
            owed.enter_context(journal.block("first"))
            owed.enter_context(closed())

    with pytest.raises(ValueError, match="closed"):
        await work()
    assert journal.lines == ["first: closed"]
