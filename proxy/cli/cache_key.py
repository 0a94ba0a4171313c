"""`mobius cache-key < request.json`: under which key an answer is kept, and what went into it."""

from __future__ import annotations

import argparse
import os
import sys

import orjson

from proxy.access import ANONYMOUS
from proxy.api.surfaces import BY_SURFACE
from proxy.cache_key import explain
from proxy.cacheable import TABLE, may_be_kept
from proxy.config import load_config
from proxy.errors import ProxyError
from proxy.gateway import ring_of
from proxy.keys import key_parts
from proxy.types import Surface

EXAMPLES = """\
examples:
  mobius cache-key < request.json                   the key of a chat request without a caller's key
  mobius cache-key --as web < request.json          the same, asked by the key named `web`
  mobius cache-key --surface embeddings < request.json
                                                    the keys of vectors, one for each input
  diff <(mobius cache-key < one.json) <(mobius cache-key < other.json)
                                                    why two requests do not share an answer
"""
DEPTH = 1000


def add_cache_key(command: argparse.ArgumentParser) -> None:
    command.epilog = EXAMPLES
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument("--as", dest="caller", metavar="KEY", help="the name of the caller's key")
    command.add_argument(
        "--surface",
        choices=[surface.value for surface in TABLE],
        default=Surface.CHAT.value,
        help="where it is asked: %(choices)s (default: %(default)s)",
        metavar="SURFACE",
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    snapshot = load_config(args.config, os.environ).snapshot
    named = {caller.name: caller for caller in snapshot.callers.values()}
    caller = ANONYMOUS if args.caller is None else named.get(args.caller)
    if caller is None:
        print(f"--as: the file has no key named {args.caller}", file=sys.stderr)
        return 1
    try:
        row = BY_SURFACE[Surface(args.surface)]
        call = row.parse(sys.stdin.buffer.read(), DEPTH)
        ring = ring_of(call, caller, snapshot)
    except ProxyError as error:
        print(error.message, file=sys.stderr)
        return 1
    parts = key_parts(call, caller, ring, snapshot)
    used = parts is not None and may_be_kept(call, snapshot.caching)
    report = {"used": used, **({} if parts is None else explain(parts))}
    print(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    return 0
