"""`mobius serve | check | explain | health | usage | keys`: what a person types."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import ipaddress
import os
import secrets
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from proxy import __version__
from proxy.accounts import check_ledger
from proxy.answers import check_place
from proxy.app import create_app
from proxy.cli import server
from proxy.cli.ask import NoServer, ask
from proxy.cli.cache_key import add_cache_key
from proxy.cli.guard import guarded
from proxy.cli.listen import CannotListen, apart, bound
from proxy.cli.live import ask_all
from proxy.cli.options import DEFAULT, add_command, add_server, key_of
from proxy.cli.report import print_plan, print_rings
from proxy.cli.spawn import Order, supervise
from proxy.cli.usage import CannotWrite, add_usage
from proxy.clock import SystemClock
from proxy.config import ConfigError, load_config
from proxy.store import LedgerUnavailable
from proxy.store.cache_port import CannotKeep
from proxy.upstream.sdk import IMPORTING

STARTING = (ConfigError, CannotListen, CannotKeep, LedgerUnavailable)  # that there is no server
PASSED_ON = (
    "ssl_keyfile",
    "ssl_certfile",
    "ssl_keyfile_password",
    "root_path",
    "forwarded_allow_ips",
)


def command() -> NoReturn:
    """Be the process of one command: this ends with it."""
    try:
        main()
    except SystemExit as ended:
        leave(ended)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and raise SystemExit: 0, or 1 with the reason on standard error."""
    try:
        code = _run(argv)
    except (*STARTING, CannotWrite, NoServer) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read this has enough. What is still buffered would fail once more as Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code)


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = _parser().parse_args(argv)
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    finally:
        # Also what argparse prints before it ends the process.
        if sys.stdout is not None:
            sys.stdout.flush()


def _serve(args: argparse.Namespace) -> int:
    several, loopback = args.workers > 1, _is_loopback(args.host)
    load = guarded(loopback=loopback, several=several, redis=True)
    _check_tls_files(args)
    environ = dict(os.environ)
    config = load(args.config, environ)
    asyncio.run(check_ledger(config.snapshot.policy, SystemClock()))
    check_place(config, SystemClock())
    options = {name: value for name in PASSED_ON if (value := getattr(args, name)) is not None}
    access = config.snapshot.policy.metrics.access
    with (
        bound(args.host, args.port) as listeners,
        apart(access, args.host, listeners) as for_metrics,
    ):
        if not several:
            app = create_app(args.config, config, environ=environ, load=load)
            return server.run(app, listeners, apart=for_metrics, **options)
        order = Order(
            config=str(args.config),
            listeners=[each.fileno() for each in listeners],
            apart=[each.fileno() for each in for_metrics],
            loopback=loopback,
            redis=config.redis is not None,
            options=options,
        )
        return supervise(order, workers=args.workers)


def leave(ended: SystemExit) -> NoReturn:
    """
    End the process as `ended` says, and with it a thread that imports LiteLLM for nobody any more.

    Python would wait for that thread, and would crash where it went on while Python ends.
    """
    if any(thread.name == IMPORTING for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 0)
    raise ended


def _check_tls_files(args: argparse.Namespace) -> None:
    for name in ("ssl_certfile", "ssl_keyfile"):
        file = getattr(args, name)
        if file is not None and not Path(file).is_file():
            raise CannotListen(f"--{name.replace('_', '-')}: there is no file {file}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check(args: argparse.Namespace) -> int:
    config = load_config(args.config, os.environ)
    for warning in config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print_rings(config.snapshot)
    return asyncio.run(ask_all(config)) if args.live else 0


def _explain(args: argparse.Namespace) -> int:
    print_plan(ask(args.url, f"/admin/explain/{args.model}", key=key_of(args)))
    return 0


def _health(args: argparse.Namespace) -> int:
    answer = ask(args.url, "/health/readiness", key=None)
    print(answer.get("status"))
    return 0 if answer.get("status") == "ready" else 1


def _keys_new(args: argparse.Namespace) -> int:
    key = f"sk-mobius-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    print(f"{key}\n")
    print("Give the key above to its user: it is not kept anywhere. Add these lines to the file:\n")
    print(f"mobius:\n  keys:\n    - name: {args.name}\n      key_sha256: {digest}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mobius", description="A thin, fast gateway in front of LLM providers."
    )
    parser.add_argument("--version", action="version", version=f"mobius {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = partial(add_command, commands)

    serve = add("serve", _serve, "answer requests")
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help=f"to listen on; localhost is 127.0.0.1 and ::1 {DEFAULT}",
    )
    serve.add_argument("--port", type=_port, default=4000, help=f"0 for any {DEFAULT}")
    text = f"processes that share the address; with limits they need a Redis {DEFAULT}"
    serve.add_argument("--workers", type=_workers, default=1, help=text)
    for name in PASSED_ON:
        serve.add_argument(f"--{name.replace('_', '-')}", help="as uvicorn's")

    check = add("check", _check, "validate the file and show every ring")
    check.add_argument("--live", action="store_true", help="ask every target for one token")

    explain = add("explain", _explain, "show which targets would be asked now, and why")
    explain.add_argument("model")
    add_server(explain)

    add_server(add("health", _health, "ask a running server whether it is ready"))

    add_usage(add)

    add_cache_key(add("cache-key", None, "show under which key an answer is kept"))

    keys = add("keys", None, "keys for callers")
    actions = keys.add_subparsers(required=True, metavar="ACTION")
    new = add_command(actions, "new", _keys_new, "print a new key and the lines for the file")
    new.add_argument("--name", default="new-key", help="its label in metrics, logs and usage")
    return parser


def _port(text: str) -> int:
    return _whole(text, 0, 65_535)


def _workers(text: str) -> int:
    return _whole(text, 1, 1024)


def _whole(text: str, least: int, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} to {most}")
    return number
