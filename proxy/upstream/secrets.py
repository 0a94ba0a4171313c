"""What of a target must not reach a caller: every secret that the file holds for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from proxy.redaction import may_be_secret
from proxy.types import Json, Target
from proxy.upstream.fields import TARGETS

HEADERS = ("extra_headers", "headers", "default_headers")


@lru_cache(maxsize=TARGETS)
def secrets_of(target: Target) -> tuple[str, ...]:
    """Return every text of the file that must not reach a caller, at any depth."""
    return tuple(_secrets_in(target.params))


def _secrets_in(place: Json) -> Iterator[str]:
    for name, value in place.items():
        if name in HEADERS and isinstance(value, Mapping):
            # Whatever they are called, a gateway in between may take any of them for its key.
            yield from (each for text in value.values() for each in _long(text))
        elif may_be_secret(name):
            yield from _texts(value)
        else:
            yield from (each for inner in _mappings(value) for each in _secrets_in(inner))


def _texts(value: object) -> Iterator[str]:
    match value:
        case Mapping():
            yield from (text for each in value.values() for text in _texts(each))
        case list() | tuple():
            yield from (text for each in value for text in _texts(each))
        case _:
            yield from _long(value)


def _mappings(value: object) -> Iterator[Json]:
    match value:
        case Mapping():
            yield value
        case list() | tuple():
            yield from (inner for each in value for inner in _mappings(each))
        case _:
            pass


def _long(value: object) -> Iterator[str]:
    """Yield a text long enough to be a secret, and what follows a scheme such as `Basic`."""
    if isinstance(value, str):
        yield from {text for text in (value, value.rpartition(" ")[2]) if len(text) >= 8}
