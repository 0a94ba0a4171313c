"""`mobius usage`: what a running server says was used; `mobius usage export`: every attempt."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, Protocol

import orjson

from proxy.cli.ask import ask, ask_text
from proxy.cli.options import DEFAULT, add_server, key_of
from proxy.cli.table import usage_table
from proxy.config import load_config
from proxy.period import FORMS, moment_of
from proxy.statement import ATTEMPT_COLUMNS, attempt_fields, csv_line
from proxy.store import Attempt, LedgerUnavailable
from proxy.store.sqlite_report import attempt_pages

PATH = "/admin/usage"
TIMEOUT_S = 60.0  # years of hours are added up
GROUPS = "key,model"
EXAMPLES = f"""\
A moment is {FORMS}.

examples:
  mobius usage                                          who used which model, ever
  mobius usage --since 7d --group-by day,model          the last week, day by day
  mobius usage --since 2026-01 --until 2026-02 --group-by provider,target
                                                        a month, as a provider's invoice has it
  mobius usage --since 24h --group-by user,key          the end users of the last day
  mobius usage --group-by tag                           by x-mobius-tag: agent=planner, ...
  mobius usage --since 2026-01 --format csv > usage.csv for a spreadsheet
  mobius usage export --since 2026-01 --until 2026-02 --output january.jsonl
                                                        every attempt, from the ledger's own file

It can be grouped by key, team, user, tag, model, target, provider, day and hour. Whole hours (UTC)
are counted. An attempt with several tags stands under each of them.
"""
EXPORT_EXAMPLES = f"""\
A moment is {FORMS}.
An attempt belongs to the moment at which it was closed. The ledger is `mobius.ledger.path` of the
file, as seen from this folder: no server is needed, and one may run meanwhile.

examples:
  mobius usage export | head -1                         what there is to know about an attempt
  mobius usage export --since 2026-01 --until 2026-02 --format csv --output january.csv
  mobius usage export --since 24h | jq 'select(.estimated)'
  mobius usage export | jq 'select(.request_id == "req_...")'
                                                        every attempt of one request
"""


class CannotWrite(Exception):
    """What was exported cannot be written; the message says where and why."""


class Add(Protocol):
    def __call__(
        self, name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser: ...


def add_usage(add: Add) -> None:
    """Add both commands."""
    usage = add("usage", _usage, "show what a running server says was used")
    _explain(usage, EXAMPLES)
    _add_period(usage)
    usage.add_argument("--group-by", default=GROUPS, metavar="NAMES", help=f"by commas {DEFAULT}")
    formats = ("table", "json", "csv")
    usage.add_argument("--format", choices=formats, default="table", help=DEFAULT)
    add_server(usage)

    actions = usage.add_subparsers(metavar="[export]", title="every attempt")
    text = "write every attempt of the ledger"
    export = actions.add_parser("export", help=text, description=text)
    _explain(export, EXPORT_EXAMPLES)
    _add_period(export, default=argparse.SUPPRESS)
    export.add_argument("--config", type=Path, default=argparse.SUPPRESS, help="the file")
    export.add_argument(
        "--format", dest="lines", choices=("jsonl", "csv"), default="jsonl", help=DEFAULT
    )
    export.add_argument("--output", type=Path, metavar="FILE", help="else standard output")
    export.set_defaults(run=_export)


def _explain(command: argparse.ArgumentParser, text: str) -> None:
    command.epilog = text
    command.formatter_class = argparse.RawDescriptionHelpFormatter


def _add_period(command: argparse.ArgumentParser, default: str | None = None) -> None:
    # An option of `usage` that stands before `export` holds for it too: it has no default there.
    for name, text in (("--since", "from this moment on"), ("--until", "until before this one")):
        command.add_argument(name, type=_moment, default=default, metavar="MOMENT", help=text)


def _usage(args: argparse.Namespace) -> int:
    query = {"group_by": args.group_by}
    query |= {name: value for name in ("since", "until") if (value := getattr(args, name))}
    key = key_of(args)
    if args.format != "table":
        query["format"] = args.format
        body = ask_text(args.url, PATH, key=key, query=query, timeout_s=TIMEOUT_S)
        print(body.decode().rstrip())
        return 0
    report = ask(args.url, PATH, key=key, query=query, timeout_s=TIMEOUT_S)
    total = None
    if "tag" in report["group_by"]:
        query["group_by"] = ""
        everything = ask(args.url, PATH, key=key, query=query, timeout_s=TIMEOUT_S)["rows"]
        total = everything[0] if everything else None
    print("\n".join(usage_table(report, total)))
    return 0


def _export(args: argparse.Namespace) -> int:
    now_s = time.time()
    since = 0.0 if args.since is None else moment_of(args.since, wall_s=now_s)
    until = None if args.until is None else moment_of(args.until, wall_s=now_s)
    path = Path(load_config(args.config, os.environ).snapshot.policy.ledger.path)
    if not path.exists():
        raise LedgerUnavailable(
            f"there is no ledger {path} (mobius.ledger.path in {args.config}): start where the "
            "server was started, once it has served"
        )
    with _output(args.output) as file:
        if args.lines == "csv":
            file.write(csv_line(ATTEMPT_COLUMNS).encode())
        line = _csv if args.lines == "csv" else _json
        for page in attempt_pages(path, since, until):
            file.write(b"".join(map(line, page)))
    return 0


def _json(attempt: Attempt) -> bytes:
    return orjson.dumps(attempt_fields(attempt), option=orjson.OPT_APPEND_NEWLINE)


def _csv(attempt: Attempt) -> bytes:
    return csv_line(attempt_fields(attempt).values()).encode()


@contextmanager
def _output(path: Path | None) -> Iterator[BinaryIO]:
    try:
        with nullcontext(sys.stdout.buffer) if path is None else path.open("wb") as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        where = "standard output" if path is None else path
        raise CannotWrite(f"cannot write to {where}: {error.strerror}") from error


def _moment(text: str) -> str:
    """Return what is a moment as it is: seven days ago is for whoever answers to tell."""
    try:
        moment_of(text, wall_s=time.time())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text
