"""A body of server-sent events as Chunks: what each read of the socket completes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable

from proxy import sse
from proxy.errors import UpstreamFailure
from proxy.replies import Chunk
from proxy.retry import Kind

# How long the rest of a connection is waited for after `[DONE]`, so that it can be used again.
DRAIN_S = 0.02


async def chunks_of(
    body: AsyncIterable[bytes],
    drain: Callable[[float], Awaitable[None]],
    *,
    named: bool = False,
) -> AsyncGenerator[Chunk, None]:
    """
    Yield what each read completes, up to `[DONE]` or the end; after the former, drain.

    `named`: the events keep the names that they came under.
    """
    reader = sse.Reader()
    async for piece in body:
        try:
            events = reader.feed(piece)
        except sse.EventTooLarge as exc:
            raise UpstreamFailure(str(exc), kind=Kind.TRANSIENT) from exc
        payloads = [event.data for event in events]
        done = sse.DONE in payloads
        if done:
            payloads = payloads[: payloads.index(sse.DONE)]
        if payloads:
            yield Chunk.of_named(events[: len(payloads)]) if named else Chunk.of_payloads(payloads)
        if done:
            await drain(DRAIN_S)
            return
