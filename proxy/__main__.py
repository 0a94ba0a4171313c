"""`python -m proxy` is `mobius`."""

from __future__ import annotations

from proxy.cli import command

if __name__ == "__main__":
    command()
