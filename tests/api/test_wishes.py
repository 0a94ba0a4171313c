"""What headers say about the handling of a request, and what is wrong with them."""

from __future__ import annotations

import pytest

from proxy.api.wishes import with_headers
from proxy.errors import RequestInvalid
from proxy.types import Wishes


def test_without_any_the_wishes_are_the_very_same() -> None:
    wishes = Wishes(timeout_s=3.0)
    assert with_headers(wishes, {b"content-type": b"application/json"}) is wishes


def test_each_header_is_a_wish_and_stands_nearer_than_the_body() -> None:
    body = Wishes(timeout_s=3.0, num_retries=2)
    found = with_headers(
        body,
        {
            b"x-mobius-order": b"a, b,a ,, c",
            b"x-mobius-timeout": b"1.5",
            b"x-litellm-timeout": b"9",
            b"x-litellm-num-retries": b"0",
            b"x-mobius-no-fallback": b"True",
            b"x-mobius-session": b"talk 7",
            b"cache-control": b"no-store",
        },
    )
    assert found.order == ("a", "b", "c")
    assert (found.timeout_s, found.disable_fallbacks, found.session) == (1.5, True, "talk 7")
    assert (found.num_retries, found.cache.no_store) == (0, True)
    assert with_headers(body, {b"x-mobius-num-retries": b" 3 "}).num_retries == 3
    assert not with_headers(body, {b"x-mobius-no-fallback": b"false"}).disable_fallbacks


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-mobius-order", " , "),
        ("x-mobius-order", ",".join(f"m{number}" for number in range(21))),
        ("x-mobius-timeout", "soon"),
        ("x-mobius-timeout", "0"),
        ("x-mobius-timeout", "-1"),
        ("x-mobius-timeout", "inf"),
        ("x-mobius-timeout", "nan"),
        ("x-litellm-timeout", "soon"),
        ("x-litellm-num-retries", "-1"),
        ("x-mobius-num-retries", "11"),
        ("x-mobius-num-retries", "9" * 10_000),
        ("x-mobius-num-retries", "1.5"),
        ("x-mobius-no-fallback", "perhaps"),
    ],
)
def test_what_is_no_such_wish_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(RequestInvalid) as refused:
        with_headers(Wishes(), {name.encode(): value.encode()})
    assert refused.value.param == name
