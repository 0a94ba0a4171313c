"""Lines for machines: whole, and without anything that is nobody's business."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import orjson

from proxy.log import LineWriter, Log
from proxy.types import Surface, Tally, Usage
from tests.fakes import FakeClock


class Book:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.written: list[bytes] = []
        self.log = Log(self.written.append, self.clock)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.written]


def tally(**facts: Any) -> Tally:
    return Tally("req-1", Surface.CHAT, "m", False, 1000.0, **facts)


def test_a_line_is_one_json_object_with_its_time_in_utc() -> None:
    book = Book()
    book.clock.wall_s = 0.25
    book.log.line("started", version="1\n2", models=["a"])
    (written,) = book.written
    assert written.count(b"\n") == 1
    assert written.endswith(b"}\n")
    assert book.lines == [
        {"time": "1970-01-01T00:00:00.250Z", "event": "started", "version": "1\n2", "models": ["a"]}
    ]


def test_a_request_is_one_line() -> None:
    book = Book()
    subject = tally(caller="web", target="a", trail=["a:429", "a:200"], upstream_s=1.5)
    book.clock.pass_(2.0)
    subject.first_content_s = 1001.0
    subject.usage = Usage(prompt_tokens=7, completion_tokens=3)
    book.log.request(subject)
    assert book.written[0].count(b"\n") == 1
    (line,) = book.lines
    line.pop("time")
    assert line == {
        "event": "request",
        "request_id": "req-1",
        "surface": "chat",
        "model": "m",
        "caller": "web",
        "stream": False,
        "outcome": "ok",
        "status": 200,
        "target": "a",
        "attempts": ["a:429", "a:200"],
        "cache": "bypass",
        "total_s": 2.0,
        "upstream_s": 1.5,
        "first_token_s": 1.0,
        "prompt_tokens": 7,
        "completion_tokens": 3,
    }


def test_what_is_not_known_is_null() -> None:
    book = Book()
    book.log.request(tally())
    (line,) = book.lines
    assert line["first_token_s"] is None
    assert line["prompt_tokens"] is line["completion_tokens"] is None


def test_a_tally_has_no_place_for_a_prompt_or_a_key() -> None:
    # Whoever adds one has to think about what becomes of it in the log.
    assert {field.name for field in dataclasses.fields(Tally)} == {
        "request_id", "surface", "model", "stream", "started_s", "caller", "target", "provider",
        "trail", "retries", "fallbacks", "hedged", "upstream_s", "waits_s", "first_content_s",
        "last_content_s", "usage", "nano_usd", "requests_left", "tokens_left", "cache",
        "cache_age_s", "kept_of", "outcome", "status",
    }  # fmt: skip


class Pipe:
    """Something to write to that is full until it is `read`, or fails its first writes."""

    def __init__(self, *, failures: int = 0) -> None:
        self.read = threading.Event()
        self.began = threading.Event()
        self.writes: list[bytes] = []
        self._failures = failures

    def __call__(self, lines: bytes) -> None:
        self.began.set()
        self.read.wait(10)
        if self._failures:
            self._failures -= 1
            raise BrokenPipeError
        self.writes.append(lines)

    @property
    def lines(self) -> list[bytes]:
        return b"".join(self.writes).splitlines()


def test_lines_that_nobody_reads_hold_nobody_up_and_are_counted_when_lost() -> None:
    pipe = Pipe()
    with LineWriter(pipe, FakeClock(), most_lines=3) as writer:
        writer(b"first\n")
        assert pipe.began.wait(10)
        for number in range(5):
            writer(b"%d\n" % number)
        pipe.read.set()
    first, lost, *rest = pipe.lines
    assert first == b"first"
    told = orjson.loads(lost)
    assert (told["event"], told["lines"]) == ("log_lost", 2)
    assert rest == [b"0", b"1", b"2"]
    assert len(pipe.writes) == 2, "what waits is written at once"


def test_a_broken_log_fails_nobody_and_its_lines_are_counted() -> None:
    pipe = Pipe(failures=1)
    with LineWriter(pipe, FakeClock()) as writer:
        writer(b"gone\n")
        assert pipe.began.wait(10)
        pipe.read.set()
        writer(b"next\n")
    lost, *rest = pipe.lines
    assert orjson.loads(lost)["lines"] == 1
    assert rest == [b"next"]


def test_a_log_that_is_never_read_does_not_keep_the_process() -> None:
    pipe = Pipe()
    with LineWriter(pipe, FakeClock()) as writer:
        writer(b"stuck\n")
    assert pipe.writes == []
    pipe.read.set()
