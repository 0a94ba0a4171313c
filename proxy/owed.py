"""
What is still to be done when a request closes, the last first: `contextlib.AsyncExitStack`, lean.

Three of them are on the path of every request, and the library's wraps all that it is given. This
keeps the methods that the path uses, under the library's names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

T = TypeVar("T")
Exit: TypeAlias = Callable[
    [type[BaseException] | None, BaseException | None, TracebackType | None], Any
]


class Owed:
    """
    A block whose end closes what was entered in it, each told of the error that it ends with.

    What is raised by one takes the place of that error for those that follow, and is raised at the
    end; none of them makes an error go away. `pop_all` moves everything to another.
    """

    __slots__ = ("_exits",)

    def __init__(self) -> None:
        # Each with whether it is to be awaited; None: it is told nothing.
        self._exits: list[tuple[bool | None, Callable[..., Any]]] = []

    def enter_context(self, block: AbstractContextManager[T]) -> T:
        """Enter `block` now, and leave it at the end."""
        entered = block.__enter__()
        self._exits.append((False, block.__exit__))
        return entered

    async def enter_async_context(self, block: AbstractAsyncContextManager[T]) -> T:
        """Do the same with an asynchronous block."""
        entered = await block.__aenter__()
        self._exits.append((True, block.__aexit__))
        return entered

    def callback(self, work: Callable[[], object]) -> None:
        """Do `work` at the end."""
        self._exits.append((None, work))

    def push_async_callback(self, work: Callable[[], Awaitable[object]]) -> None:
        """Await what `work` returns at the end."""

        async def leave(
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            await work()

        self._exits.append((True, leave))

    def push_async_exit(self, leave: Exit) -> None:
        """Await what `leave` returns at the end; it is told of the error."""
        self._exits.append((True, leave))

    def take(self, other: Owed) -> None:
        """Take over all that is owed there, to be done before what is owed here."""
        self._exits += other._exits
        other._exits = []

    def pop_all(self) -> Owed:
        """Return all that is owed; nothing is owed here any more."""
        moved = Owed()
        moved._exits, self._exits = self._exits, []
        return moved

    async def aclose(self) -> None:
        """Close everything, without an error."""
        await self.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        given, exits = error, self._exits
        while exits:
            awaited, leave = exits.pop()
            try:
                if awaited is None:
                    leave()
                    continue
                left = leave(kind, error, trace)
                if awaited:
                    await left
            except BaseException as exc:
                _linked(exc, error)
                kind, error, trace = type(exc), exc, exc.__traceback__
        if error is not None and error is not given:
            raise error


def _linked(error: BaseException, before: BaseException | None) -> None:
    """Have `error` say what it came after, where it does not: both belong in a log."""
    if before is None or error in _chain(before):
        return
    *_, last = _chain(error)
    if before not in _chain(error):
        last.__context__ = before


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error and what it came after, one behind the other."""
    found = [error]
    while (context := found[-1].__context__) is not None and context not in found:
        found.append(context)
    return found
