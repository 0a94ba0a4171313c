"""The options that commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

DEFAULT = "(default: %(default)s)"


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int] | None,
    text: str,
) -> argparse.ArgumentParser:
    """Return the parser of one more command."""
    command = commands.add_parser(name, help=text, description=text)
    # Every command takes it: a person need not remember which of them reads the file.
    command.add_argument(
        "--config", type=Path, default=Path("litellm_config.yaml"), help=f"the file {DEFAULT}"
    )
    if run is not None:
        command.set_defaults(run=run)
    return command


def add_server(command: argparse.ArgumentParser) -> None:
    """Let the command say which running server it asks, and with which key."""
    url = "http://127.0.0.1:4000"
    command.add_argument("--url", default=url, help=f"of the running server {DEFAULT}")
    command.add_argument("--key", help="of the running server; else MOBIUS_MASTER_KEY")


def key_of(args: argparse.Namespace) -> str | None:
    return args.key or os.environ.get("MOBIUS_MASTER_KEY")
