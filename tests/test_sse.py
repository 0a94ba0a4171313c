from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy import sse
from proxy.sse import EventTooLarge, Reader, ServerEvent

BOM = b"\xef\xbb\xbf"


def lines_of(stream: bytes) -> tuple[list[bytes], bytes]:
    """The ended lines of a stream, and what follows the last of them."""
    lines, line, after_cr = [], b"", False
    for code in stream:
        byte = bytes((code,))
        if byte == b"\n" and after_cr:
            after_cr = False
            continue
        after_cr = byte == b"\r"
        if byte in b"\r\n":
            lines.append(line)
            line = b""
        else:
            line += byte
    return lines, line


def reference(stream: bytes) -> list[ServerEvent]:
    """
    The events of a whole stream, word for word as the standard says.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    with one liberty, which is the reader's too: the lines of `data` are joined by a space.
    """
    events, data, name = [], b"", b""
    for line in lines_of(stream.removeprefix(BOM))[0]:
        if line == b"":
            if data != b"":
                events.append(ServerEvent(name, data.removesuffix(b"\n").replace(b"\n", b" ")))
            data, name = b"", b""
        elif line.startswith(b":"):
            pass
        else:
            field, value = line, b""
            if b":" in line:
                at = line.index(b":")
                field, value = line[:at], line[at + 1 :]
                value = value[1:] if value[:1] == b" " else value
            if field == b"data":
                data += value + b"\n"
            elif field == b"event":
                name = value
    return events


def largest(stream: bytes) -> int:
    """The most bytes that any moment of `stream` obliges a reader to hold: data and a line."""
    lines, rest = lines_of(stream)
    most = held = 0
    for number, line in enumerate([*lines, rest]):
        most = max(most, held + len(line))
        plain = line.removeprefix(BOM) if number == 0 else line
        field, _, value = plain.partition(b":")
        if plain == b"":
            held = 0
        elif field == b"data":
            held += len(value.removeprefix(b" ")) + 1
    return most


def cut(stream: bytes, places: Iterable[int]) -> Iterator[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    for start, end in pairwise(edges):
        yield stream[start:end]


def read(pieces: Iterable[bytes], limit_bytes: int = 1 << 20) -> list[ServerEvent]:
    reader = Reader(limit_bytes)
    return [event for piece in pieces for event in reader.feed(piece)]


LINES = st.sampled_from(
    [
        b"",
        b"",
        b"",
        b'data: {"content":"Gr\xc3\xbc\xc3\x9fe \xe4\xb8\x96\xe7\x95\x8c \xf0\x9f\x91\x8b"}',
        b"data: [DONE]",
        b"data:[DONE]",
        b"data:",
        b"data: ",
        b"data",
        b"data:  two spaces, and a colon: here",
        b"dataset: 1",
        b" data: not a field",
        b"Data: nor this",
        b"data: a\x0bvertical tab, \x0c, \x1c, \xc2\x85 and \xe2\x80\xa8 end no line",
        b"event: error",
        b"event:ping",
        b"event",
        b": a comment",
        b":",
        b"id: 7",
        b"retry: 1000",
        BOM,
        BOM + b"data: a BOM that is not at the start",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.one_of(
    st.tuples(
        st.sampled_from([b"", BOM, BOM + BOM]),
        st.lists(st.tuples(LINES, ENDS), max_size=20),
        LINES,
    ).map(lambda s: s[0] + b"".join(line + end for line, end in s[1]) + s[2]),
    st.lists(st.sampled_from([b"\r", b"\n", b":", b" ", b"d", b"data", b"\xef", BOM])).map(
        b"".join
    ),
)
CUTS = st.lists(st.integers(0, 2000), max_size=30)


@given(STREAMS, CUTS)
@settings(deadline=None)
@example(BOM + b"data: \xe4\xb8\x96\r\n\r\n", [1, 2, 10, 12, 13, 14])
@example(b"data: a\r\rdata: b\n\r\ndata: c\r\n", [])
def test_the_same_events_come_out_wherever_the_bytes_are_split(
    stream: bytes, places: list[int]
) -> None:
    expected = reference(stream)
    assert read([stream]) == expected
    assert read(cut(stream, places)) == expected
    assert read(bytes((byte,)) for byte in stream) == expected


@given(STREAMS, CUTS, st.integers(0, 60))
@settings(deadline=None)
@example(b"data: 1\n\n", [], 6)
@example(b"data\n" * 8, [], 7)
@example(b": a long comment\n", [], 15)
@example(BOM + b"data:12\ndata: 3\n\n", [], 9)
def test_an_event_over_the_limit_raises_wherever_the_bytes_are_split(
    stream: bytes, places: list[int], limit: int
) -> None:
    for pieces in ([stream], cut(stream, places), (bytes((byte,)) for byte in stream)):
        if largest(stream) > limit:
            with pytest.raises(EventTooLarge, match=f"over {limit} bytes"):
                read(pieces, limit)
        else:
            assert read(pieces, limit) == reference(stream)


def test_an_event_comes_out_with_the_piece_that_ends_it() -> None:
    reader = Reader()
    assert reader.feed(b"event: ping\nda") == []
    assert reader.feed(b"ta: 1\r\n\r") == [ServerEvent(b"ping", b"1")]
    assert reader.feed(b"\n") == []
    assert reader.feed(b"data: 2\n\ndata: 3\n\ndata: 4\n") == [
        ServerEvent(b"", b"2"),
        ServerEvent(b"", b"3"),
    ]


def test_an_event_that_the_end_cuts_short_does_not_come_out() -> None:
    assert read([b"data: 1\n\ndata: 2\n"]) == [ServerEvent(b"", b"1")]


def test_an_event_without_data_does_not_come_out_and_its_name_is_forgotten() -> None:
    assert read([b"event: ping\n\ndata: 1\n\n"]) == [ServerEvent(b"", b"1")]


def test_data_that_is_empty_is_data() -> None:
    assert read([b"data:\n\n", b"data\n\n"]) == [ServerEvent(b"", b"")] * 2


def test_lines_of_one_event_become_one_line() -> None:
    (event,) = read([b'data: {"a":\ndata: 1}\n\n'])
    assert event.data == b'{"a": 1}'
    assert read([sse.frame(event.data)]) == [event]


def test_many_small_events_are_no_large_one() -> None:
    assert len(read([b"data: 123456789\n\n"] * 1000, limit_bytes=15)) == 1000


def test_an_endless_event_of_empty_lines_is_over_the_limit_too() -> None:
    with pytest.raises(EventTooLarge):
        read([b"data:\n" * 100] * 100, limit_bytes=5000)


def test_a_large_event_that_comes_byte_by_byte_costs_what_its_bytes_cost() -> None:
    # A reader that looks at the unfinished line again with every byte copies half a terabyte
    # here, which the time limit of a test does not allow.
    payload = b"x" * (1 << 20)
    reader = Reader()
    events = [event for byte in sse.frame(payload) for event in reader.feed(bytes((byte,)))]
    assert events == [ServerEvent(b"", payload)]


def test_what_is_written_is_read_back() -> None:
    written = sse.COMMENT_FRAME + sse.frame(b'{"a":1}') + sse.DONE_FRAME
    assert read([written]) == [ServerEvent(b"", b'{"a":1}'), ServerEvent(b"", sse.DONE)]
