"""The tree of errors is the one that is drawn."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from proxy import errors
from proxy.errors import ProxyError

# One line of the drawing: `  x KeyRejected .............. 401 invalid_api_key`.
DRAWN = dict(re.findall(r"^ *[*x+] (\w+) \.+ (.+)$", errors.__doc__ or "", re.MULTILINE))


def tree(base: type[ProxyError] = ProxyError) -> Iterator[type[ProxyError]]:
    yield base
    for each in base.__subclasses__():
        yield from tree(each)


CLASSES = [each for each in tree() if each.__module__ == errors.__name__]


def test_every_error_is_drawn_and_nothing_else() -> None:
    assert {each.__name__ for each in CLASSES} == set(DRAWN)


@pytest.mark.parametrize("error", [each for each in CLASSES if each is not errors.Refused])
def test_an_error_is_drawn_with_its_status_and_its_word(error: type[ProxyError]) -> None:
    status, word = DRAWN[error.__name__].split()[:2]
    assert (int(status), word) == (error.status, error.code or error.type)
