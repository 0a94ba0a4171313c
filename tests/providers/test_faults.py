"""Every fault a fake can play, seen by a raw client and by the journal."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import httpx
import pytest

from tests.providers import (
    Answer,
    Breaks,
    Endless,
    Fails,
    FakeOpenAI,
    NoDone,
    Resets,
    Silent,
    closed_port,
    html_page,
    redirects,
    unanswered_port,
)
from tests.providers.raw import post, stream
from tests.providers.steps import BreakKind, Step


@pytest.fixture
def provider() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as provider:
        yield provider


@pytest.mark.parametrize(
    ("how", "failure"),
    [
        ("eof", httpx.RemoteProtocolError),
        ("reset", httpx.ReadError),
        ("ends", None),
        ("error_event", None),
        ("html", None),
    ],
)
def test_a_stream_breaks_after_the_tokens_it_should(
    provider: FakeOpenAI, how: BreakKind, failure: type[Exception] | None
) -> None:
    provider.script(Breaks(3, how))
    seen = stream(provider)
    assert seen.text == "t0 t1 t2 "
    assert "[DONE]" not in seen.events
    assert isinstance(seen.failure, failure or type(None))
    entry = provider.journal.wait_over()[0]
    assert entry.tokens_sent == (0, 1, 2)
    assert entry.finished == (failure is None)
    assert entry.closed_by == (None if failure is None else "server")


@pytest.mark.parametrize("how", ["malformed", "garbage_utf8"])
def test_a_damaged_event_leaves_a_hole_and_the_stream_goes_on(
    provider: FakeOpenAI, how: BreakKind
) -> None:
    provider.script(Breaks(2, how))
    seen = stream(provider)
    assert seen.events[-1] == "[DONE]"
    assert seen.text.split() != [f"t{n}" for n in range(5)]
    assert provider.journal.wait_over()[0].tokens_sent == (0, 1, 3, 4)
    with pytest.raises(ValueError):  # noqa: PT011 - whichever of JSON and UTF-8 it is
        _read_all(seen.body)


def _read_all(body: bytes) -> None:
    for line in body.decode().splitlines():
        if line.startswith("data: {"):
            json.loads(line[6:])


def test_the_error_event_and_the_page_are_in_the_stream(provider: FakeOpenAI) -> None:
    provider.script(
        Breaks(1, "error_event"), Breaks(1, "error_event", error={"e": 1}), Breaks(0, "html")
    )
    assert json.loads(stream(provider).events[-1])["error"]["type"] == "server_error"
    assert json.loads(stream(provider).events[-1]) == {"e": 1}
    assert b"<html>" in stream(provider).body


@pytest.mark.parametrize("opening", [True, False])
def test_a_stream_breaks_before_its_first_content(provider: FakeOpenAI, opening: bool) -> None:
    provider.script(Breaks(0, "ends", opening=opening))
    seen = stream(provider)
    assert (seen.status, seen.text) == (200, "")
    assert len(seen.events) == opening
    assert provider.journal.wait_over()[0].tokens_sent == ()


@pytest.mark.parametrize("step", [Silent(), Breaks(2, "stall"), Breaks(2, "stall", gzip=True)])
def test_silence_lasts_until_the_client_leaves(provider: FakeOpenAI, step: Step) -> None:
    provider.script(step)
    seen = stream(provider, timeout_s=0.2)
    assert isinstance(seen.failure, httpx.ReadTimeout)
    entry = provider.journal.wait_over()[0]
    assert (entry.closed_by, entry.finished) == ("client", False)
    assert entry.tokens_sent == (() if isinstance(step, Silent) else (0, 1))


def test_silence_can_end_by_itself(provider: FakeOpenAI) -> None:
    provider.script(Silent(for_s=0.01), Breaks(1, "stall", for_s=0.01))
    assert isinstance(stream(provider).failure, httpx.RemoteProtocolError)
    assert isinstance(stream(provider).failure, httpx.RemoteProtocolError)
    assert {entry.closed_by for entry in provider.journal.wait_over(2)} == {"server"}


@pytest.mark.parametrize("how", ["drip", "comments"])
@pytest.mark.parametrize("streams", [True, False])
def test_a_drip_sends_bytes_and_says_nothing(
    provider: FakeOpenAI, how: BreakKind, streams: bool
) -> None:
    provider.script(Breaks(1, how, drip_s=0.001))
    with (
        httpx.Client(trust_env=False) as client,
        client.stream(
            "POST",
            f"{provider.base_url}/chat/completions",
            json={"model": "m", "messages": [], "stream": streams},
        ) as response,
    ):
        provider.journal.wait(lambda j: j.last.bytes_sent > 3000)
        response.close()
    entry = provider.journal.wait_over()[0]
    assert entry.closed_by == "client"
    assert entry.tokens_sent == ((0,) if streams else ())


@pytest.mark.parametrize("how", ["eof", "reset", "stall"])
def test_a_unary_answer_breaks_inside_its_json(provider: FakeOpenAI, how: BreakKind) -> None:
    provider.script(Breaks(how=how))
    seen = post(provider, timeout_s=0.3)
    assert seen.status == 200
    assert seen.failure is not None
    assert 0 < len(seen.body) < int(seen.headers["content-length"])
    assert not provider.journal.wait_over()[0].finished


@pytest.mark.parametrize("how", ["ends", "malformed", "garbage_utf8", "html"])
def test_a_unary_answer_is_whole_and_no_json(provider: FakeOpenAI, how: BreakKind) -> None:
    provider.script(Breaks(how=how))
    seen = post(provider)
    assert (seen.status, seen.failure) == (200, None)
    with pytest.raises(ValueError):  # noqa: PT011 - whichever of JSON and UTF-8 it is
        json.loads(seen.body)


def test_resets_come_where_they_should(provider: FakeOpenAI) -> None:
    provider.script(Resets(), Resets(how="eof"), Resets(before="body"), Resets(after_bytes=30))
    first, second, third, fourth = (post(provider) for _ in range(4))
    assert (first.status, type(first.failure)) == (None, httpx.ReadError)
    assert (second.status, type(second.failure)) == (None, httpx.RemoteProtocolError)
    assert (third.status, third.body) == (200, b"")
    assert (fourth.status, len(fourth.body)) == (200, 30)
    entries = provider.journal.wait_over(4)
    assert [entry.closed_by for entry in entries] == ["server"] * 4
    assert [entry.status for entry in entries] == [None, None, 200, 200]
    assert entries[0].bytes_sent == 0


def test_the_end_mark_can_be_missing(provider: FakeOpenAI) -> None:
    provider.script(NoDone(), NoDone(then="open"))
    closed = stream(provider)
    assert (closed.failure, closed.text) == (None, "t0 t1 t2 t3 t4 ")
    assert json.loads(closed.events[-1])["choices"][0]["finish_reason"] == "stop"
    left_open = stream(provider, timeout_s=0.2)
    assert isinstance(left_open.failure, httpx.ReadTimeout)
    entry = provider.journal.wait(lambda j: j.last.closed_by and j.last)
    assert (entry.finished, entry.closed_by) == (True, "client")


def test_something_follows_the_end_mark(provider: FakeOpenAI) -> None:
    provider.script(Answer(trailing=b'data: {"more": 1}\n\n'))
    assert stream(provider).events[-2:] == ["[DONE]", '{"more": 1}']


def test_pages_types_bodies_and_redirects_are_sent_as_scripted(provider: FakeOpenAI) -> None:
    provider.script(
        html_page(),
        Answer(content_type="text/plain"),
        Answer(raw_body=b"data: x\n\n"),
        redirects("http://127.0.0.1:1/v1"),
        Fails(418, "short and stout", headers={"x-request-id": None, "x-more": "1"}),
    )
    page, typed, raw, redirect, teapot = (post(provider) for _ in range(5))
    assert (page.status, page.headers["content-type"]) == (200, "text/html")
    assert (typed.headers["content-type"], typed.status) == ("text/plain", 200)
    assert raw.body == b"data: x\n\n"
    assert (redirect.status, redirect.headers["location"]) == (302, "http://127.0.0.1:1/v1")
    assert (teapot.status, teapot.body) == (418, b"short and stout")
    assert "x-request-id" not in teapot.headers
    assert teapot.headers["x-more"] == "1"


@pytest.mark.parametrize("streams", [True, False])
def test_an_endless_answer_is_bounded_by_its_limit(provider: FakeOpenAI, streams: bool) -> None:
    provider.script(Endless(limit_bytes=1_000_000), Endless(limit_bytes=1_000_000, of="line"))
    for _ in range(2):
        seen = post(provider, stream=streams)
        assert seen.failure is None
        assert 1_000_000 < len(seen.body) < 2_000_000
    assert all(entry.finished for entry in provider.journal.wait_over(2))


def test_a_bomb_is_small_on_the_wire(provider: FakeOpenAI) -> None:
    provider.script(Endless(limit_bytes=5_000_000, gzip=True))
    seen = post(provider)
    assert len(json.loads(seen.body)["choices"][0]["message"]["content"]) >= 5_000_000
    assert provider.journal.wait_over()[0].bytes_sent < 100_000


def test_an_endless_answer_ends_when_the_client_leaves(provider: FakeOpenAI) -> None:
    provider.script(Endless())
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("POST", f"{provider.base_url}/chat/completions", json={"stream": True}) as r,
    ):
        next(r.iter_bytes())
    entry = provider.journal.wait_over()[0]
    assert (entry.closed_by, entry.finished) == ("client", False)
    assert entry.bytes_sent < 100_000_000


@pytest.mark.parametrize("streams", [True, False])
def test_gzip_is_sent_whether_asked_for_or_not(provider: FakeOpenAI, streams: bool) -> None:
    provider.script(Answer(), Answer(gzip=True))
    assert "content-encoding" not in post(provider, stream=streams).headers
    url = f"{provider.base_url}/chat/completions"
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("POST", url, json={"model": "m", "stream": streams}) as response,
    ):
        assert response.headers["content-encoding"] == "gzip"
        assert b"t0 " in gzip.decompress(b"".join(response.iter_raw()))


def test_plaintext_where_tls_was_expected_is_a_tls_error(provider: FakeOpenAI) -> None:
    with pytest.raises(httpx.ConnectError, match="SSL"):
        httpx.get(f"https://127.0.0.1:{provider.port}/", trust_env=False)
    assert len(provider.journal) == 0
    provider.journal.wait(lambda j: j.accepted == 1 and j.open == 0)


def test_a_closed_port_refuses_and_a_full_one_hangs() -> None:
    with closed_port() as port, pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
    with unanswered_port() as port, pytest.raises(httpx.ConnectTimeout):
        httpx.get(f"http://127.0.0.1:{port}/", timeout=0.2, trust_env=False)
