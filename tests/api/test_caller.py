from __future__ import annotations

import hashlib

import pytest

from proxy.access import ANONYMOUS
from proxy.api.caller import caller_by
from proxy.errors import KeyRejected, OriginRefused
from proxy.snapshot import Snapshot
from proxy.types import Caller

OPEN = Snapshot()
CLOSED = Snapshot(callers={"0" * 64: Caller("web")})


@pytest.mark.parametrize(
    "headers",
    [
        {b"origin": b"https://evil.example"},
        {b"origin": b"null"},
        {b"origin": b"http://localhost.evil.example"},
        {b"origin": b"http://127.0.0.1.evil.example:80"},
        {b"sec-fetch-site": b"cross-site"},
    ],
)
def test_a_server_without_keys_refuses_the_pages_of_other_sites(
    headers: dict[bytes, bytes],
) -> None:
    with pytest.raises(OriginRefused):
        caller_by(headers, OPEN, wall_s=0.0)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"origin": b"http://localhost:3000"},
        {b"origin": b"http://127.0.0.1:8080"},
        {b"origin": b"http://[::1]:5173"},
        {b"sec-fetch-site": b"same-origin"},
    ],
)
def test_a_server_without_keys_answers_programs_and_local_pages(
    headers: dict[bytes, bytes],
) -> None:
    assert caller_by(headers, OPEN, wall_s=0.0) is ANONYMOUS


def test_where_keys_are_needed_the_origin_does_not_matter() -> None:
    with pytest.raises(KeyRejected):
        caller_by({b"origin": b"https://evil.example"}, CLOSED, wall_s=0.0)


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer sk-1"},
        {b"authorization": b"bearer  sk-1 "},
        {b"x-api-key": b"sk-1"},
        {b"api-key": b"sk-1"},
        {b"x-litellm-api-key": b"sk-1", b"authorization": b"Bearer of something else"},
        {b"x-litellm-api-key": b"Bearer sk-1"},
    ],
)
def test_a_key_is_found_wherever_a_client_puts_it(headers: dict[bytes, bytes]) -> None:
    web = Caller("web")
    known = Snapshot(callers={hashlib.sha256(b"sk-1").hexdigest(): web})
    assert caller_by(headers, known, wall_s=0.0) is web
