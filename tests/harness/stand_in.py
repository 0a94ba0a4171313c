"""The smallest server that the harness can take for Mobius; the harness is tested with it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType

_PAGE = b"""# TYPE things counter
things_total{kind="a",model="m"} 2
things_total{kind="b",model="m"} 3
"""
_COMPLETION = b"""{"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [
{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}]}"""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        config = Path(sys.argv[sys.argv.index("--config") + 1])
        pages = {
            "/health/readiness": b"ready",
            "/metrics": _PAGE,
            "/config": config.read_bytes(),
            "/env": "\n".join(sorted(os.environ)).encode(),
        }
        self._say(pages.get(self.path, b""), 200 if self.path in pages else 404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._say(_COMPLETION, 200)

    def _say(self, body: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serves until SIGTERM, prints what `$TELL` says, and fails at once on a config of `bad`."""
    options = argparse.ArgumentParser()
    options.add_argument("command")
    options.add_argument("--config", type=Path)
    options.add_argument("--port", type=int)
    given = options.parse_args()
    sys.stdout.write(os.environ.get("TELL", "nothing to tell") + "\n")
    if given.config is not None and given.config.read_text().startswith("bad"):
        sys.exit(f"{given.config}:1: it is bad")
    if given.command == "serve":
        signal.signal(signal.SIGTERM, _leave)
        ThreadingHTTPServer(("127.0.0.1", given.port), _Handler).serve_forever()


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(3)


if __name__ == "__main__":
    main()
