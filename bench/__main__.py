"""`python -m bench`: measure, print one report, keep the raw rounds."""

from __future__ import annotations

import argparse
import asyncio
import resource
import signal
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import uvloop

from bench import machine, peer, record, report
from bench.campaign import PARTS, Campaign, Options, Results, steps
from bench.child import NotServing
from bench.payload import WrongAnswer
from bench.peer import OtherVersion
from bench.progress import Progress

LATEST = Path(__file__).parent / "results" / "latest.json"
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0; 1 when something answered wrongly or not at all; 130 when interrupted."""
    args = _parser().parse_args(argv)
    facts = machine.facts()
    _allow_many_streams()
    try:
        found = peer.find(args.litellm)
        only = frozenset(args.only or PARTS)
        options = Options(args.rounds, args.seconds, args.within, only, found)
        results = _run(options)
    except (WrongAnswer, NotServing, OtherVersion, ConnectionError, TimeoutError) as error:
        notes = getattr(error, "__notes__", [])
        print(f"nothing was measured: {error!r}", *notes, sep="\n", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted; every process it started has ended", file=sys.stderr)
        return INTERRUPTED
    print(report.render(results, facts, found))
    record.write(args.json, results, options, facts)
    return 0


def _run(options: Options) -> Results:
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder,
        closing(Progress(steps(options))) as progress,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_until_told(Campaign(options, Path(folder), progress).run()))


async def _until_told(running: Coroutine[Any, Any, Results]) -> Results:
    """Let SIGTERM end a run as Ctrl-C does: the servers are ended on the way out."""
    task = asyncio.ensure_future(running)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _allow_many_streams() -> None:
    """As many files may be open, here and in what is started, as this user may ever have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="The cost of Mobius as a ratio to copying bytes."
    )
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="at most (default %(default)s)")
    add("--seconds", type=float, default=0.7, help="of one measurement, at least (default 0.7)")
    add(
        "--within",
        type=float,
        default=270.0,
        metavar="SECONDS",
        help="no new round after the third would end later (default %(default)g)",
    )
    add("--only", action="append", choices=PARTS, help="leave out the other parts; may be repeated")
    add(
        "--litellm",
        type=Path,
        metavar="COMMAND",
        help="LiteLLM's proxy, in an environment of its own (default: that of make bench-litellm)",
    )
    add("--json", type=Path, default=LATEST, metavar="PATH", help="where the raw rounds go")
    return parser


if __name__ == "__main__":
    sys.exit(main())
