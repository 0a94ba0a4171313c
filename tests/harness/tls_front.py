"""TLS in front of a fake provider, with the certificate of an authority that nobody knows."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Front:
    """Where TLS is spoken, and the file of the authority that vouches for it."""

    port: int
    authority: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


@contextlib.contextmanager
def tls_front(folder: Path, port: int, name: str = "127.0.0.1") -> Iterator[Front]:
    """Pass on what is said over TLS to what listens at `port`; the certificate is for `name`."""
    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(tls)
    file = folder / f"authority-{port}.pem"
    authority.cert_pem.write_to_path(str(file))
    loop, stop, listens = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    found: list[int] = []

    async def serve() -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            onward = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_pump(reader, onward[1]), _pump(onward[0], writer))

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
        found.append(server.sockets[0].getsockname()[1])
        listens.set()
        await stop.wait()
        server.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, name="tls front", daemon=True)
    thread.start()
    assert listens.wait(10)
    try:
        yield Front(found[0], file)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()
