"""
A process that writes a ledger and says what it was told: `python ledger_child.py FILE NAME COUNT`.

Each line is a letter and an id: `o` for a row that is open, `c` for one that is closed, `l` for one
of another process that was recovered. With the variable LEDGER_CHILD_BYTES files may grow to that
size until a line is read from standard input.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from itertools import count
from pathlib import Path

from proxy.clock import SystemClock
from proxy.ledger import Ledger
from proxy.store import LedgerUnavailable
from tests.store.rows import closed, opened

LANES = 8


def say(letter: str, row_id: str) -> None:
    os.write(1, f"{letter} {row_id}\n".encode())


async def write(path: Path, name: str, most: int) -> None:
    numbers = iter(range(most)) if most else count()

    async def lane(ledger: Ledger) -> None:
        for number in numbers:
            row_id = f"{name}-{number}"
            await ledger.open(opened(row_id, user=f"u{number % 7}"), admitted=True)
            say("o", row_id)
            await ledger.close(closed(row_id))
            say("c", row_id)
            if number % 50 == 0:
                for lost in (await ledger.recover()).rows:
                    say("l", lost.id)

    async with Ledger(path, SystemClock()) as ledger:
        for lost in (await ledger.recover()).rows:
            say("l", lost.id)
        await asyncio.gather(*(lane(ledger) for _ in range(LANES)))


async def fill(path: Path, most_bytes: int) -> None:
    """Open rows until files may not grow; close them; wait for a line; end when all is written."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    async with Ledger(path, SystemClock(), retry_s=0.01) as ledger:
        rows: list[str] = []
        try:
            for number in count():
                await ledger.open(opened(str(number)), admitted=True)
                rows.append(str(number))
                say("o", rows[-1])
        except LedgerUnavailable as exc:
            say("x", str(exc))
        for row_id in rows:
            await ledger.close(closed(row_id))
        say("k", "all")
        await asyncio.to_thread(sys.stdin.readline)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        while ledger.trouble is not None:  # noqa: ASYNC110  # it is another thread's doing
            await asyncio.sleep(0.01)
        say("w", "all")


if __name__ == "__main__":
    if most_bytes := os.environ.get("LEDGER_CHILD_BYTES"):
        asyncio.run(fill(Path(sys.argv[1]), int(most_bytes)))
    else:
        asyncio.run(write(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
