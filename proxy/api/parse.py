"""Bytes to Call. Checks only what we act on; the provider judges the rest."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from proxy.api.headers import RequestHeaders
from proxy.api.multipart import Form
from proxy.caching import CacheWishes, wishes_of
from proxy.controls import check_controls
from proxy.errors import RequestInvalid
from proxy.snapshot import Snapshot
from proxy.types import NONE_WISHED, Call, Json, Surface, Wishes

MOST_RETRIES = 10  # as in the configuration
MOST_FALLBACKS = 20  # nobody waits for that many, and each costs time before the first is asked
NO_HEADERS: RequestHeaders = MappingProxyType({})
# A chat of 2,000 messages has some 10,000. Every one costs a hundred times its bytes, in memory and
# in time that all requests wait for.
MOST_CONTAINERS = 100_000

_WISHED = frozenset({"cache", "fallbacks", "disable_fallbacks", "num_retries", "timeout"})


class Incoming(NamedTuple):
    """A request that has been read whole, before anybody has looked into it."""

    raw: bytes
    snapshot: Snapshot
    query: bytes = b""  # of its address, without the `?`
    headers: RequestHeaders = NO_HEADERS
    form: Form | None = None  # instead of `raw`
    model: str | None = None  # of its address, where that names one

    @property
    def depth_limit(self) -> int:
        return self.snapshot.policy.limits.json_depth


def check_messages(body: Json) -> None:
    """Return when the messages are a list of objects. Raises RequestInvalid."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise wrong("messages", "a list with at least one message")
    for place, message in enumerate(messages):
        if not isinstance(message, dict):
            raise wrong(f"messages[{place}]", "an object")


def check_text(body: Json, name: str) -> None:
    """Return when the field is a text or a list with something in it. Raises RequestInvalid."""
    value = body.get(name)
    if not isinstance(value, str) and not (isinstance(value, list) and value):
        raise wrong(name, "a text, or a list with at least one")


def make_call(body: dict[str, Any], *, surface: Surface, size_bytes: int = 0) -> Call:
    """Return the call of a parsed body, without what was meant for us. Raises RequestInvalid."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise wrong("model", "the name of a model")
    stream = _flag(body, "stream")
    wishes = _take_wishes(body, model)
    check_controls(body)
    options = body.get("stream_options")
    # What is wrong with these options is the provider's to say.
    wants_usage = isinstance(options, dict) and options.get("include_usage") is True
    return Call(model, stream, body, surface, wants_usage, wishes, size_bytes)


def parse_object(raw: bytes, depth_limit: int) -> dict[str, Any]:
    """Return the JSON object in `raw`; of a key given twice the last. Raises RequestInvalid."""
    body = parse_json(raw, depth_limit)
    if not isinstance(body, dict):
        raise RequestInvalid("the body is not a JSON object")
    return body


def parse_json(raw: bytes, depth_limit: int) -> object:
    """Return the JSON in `raw`, which is neither too deep nor too rich. Raises RequestInvalid."""
    if not raw:
        raise RequestInvalid("the body is empty")
    brackets = raw.count(b"{") + raw.count(b"[")
    if brackets > MOST_CONTAINERS:
        check_containers(raw)
    try:
        body: object = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        # `exc.doc` is the body itself: only its position is repeated.
        raise RequestInvalid(
            f"the body is not valid JSON: {exc.msg} (line {exc.lineno}, column {exc.colno})"
        ) from None
    if brackets > depth_limit and deeper_than(body, depth_limit):
        raise RequestInvalid(f"the body is nested more than {depth_limit} levels deep")
    return body


def check_containers(raw: bytes) -> None:
    """
    Return when the objects and lists in `raw` are not too many. Raises RequestInvalid.

    Brackets within strings do not count: a message may hold a program. Quotes that are escaped
    stand only within strings, so that without them every second piece is outside of them.
    """
    pieces = raw.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    outside = b"".join(pieces[::2])
    if outside.count(b"{") + outside.count(b"[") > MOST_CONTAINERS:
        raise RequestInvalid(f"the JSON has more than {MOST_CONTAINERS} objects and lists")


def deeper_than(body: object, limit: int) -> bool:
    """Say whether objects and lists are nested more than `limit` deep, without recursion."""
    level: list[Any] = [body]
    for _ in range(limit):
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item)
            if inner.__class__ is dict or inner.__class__ is list
        ]
        if not level:
            return False
    return True


def _take_wishes(body: dict[str, Any], model: str) -> Wishes:
    """Return what a body says about its own handling, and take it out."""
    if _WISHED.isdisjoint(body):
        return NONE_WISHED
    return Wishes(
        cache=_cache(body.pop("cache", None)),
        fallbacks=_fallbacks(body.pop("fallbacks", None), model),
        disable_fallbacks=_flag(body, "disable_fallbacks", take=True),
        num_retries=_num_retries(body.pop("num_retries", None)),
        timeout_s=_timeout_s(body.pop("timeout", None)),
    )


def _flag(body: dict[str, Any], name: str, *, take: bool = False) -> bool:
    value = body.pop(name, None) if take else body.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong(name, "true or false")
    return value is True


def _cache(value: object) -> CacheWishes:
    try:
        return wishes_of(value)
    except ValueError as exc:
        raise RequestInvalid(str(exc), param="cache") from None


def _fallbacks(value: object, model: str) -> tuple[str, ...] | None:
    """
    Return the models that a body names as fallbacks, in any of the forms that LiteLLM's proxy has.

    They are names, objects that name a model, or the form of the file, where each object says whose
    fallbacks it holds; those under `*` are for models that have none of their own.
    """
    if value is None:
        return None
    if not isinstance(value, list):
        raise wrong("fallbacks", "a list of model names")
    names, spare = list[str](), list[str]()
    for place, each in enumerate(value):
        match each:
            case str(name) | {"model": str(name)} if name:
                if isinstance(each, dict) and len(each) > 1:
                    expected = "no more than the name of a model: all are asked the same"
                    raise wrong(f"fallbacks[{place}]", expected)
                names.append(name)
            case dict() if each and all(map(_are_names, each.values())):
                names += each.get(model, ())
                spare += each.get("*", ())
            case _:
                raise wrong(f"fallbacks[{place}]", "the name of a model")
    names = list(dict.fromkeys(names or spare))
    if len(names) > MOST_FALLBACKS:
        raise wrong("fallbacks", f"a list of at most {MOST_FALLBACKS} model names")
    return tuple(names)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value)


def _num_retries(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_RETRIES:
        raise wrong("num_retries", f"a whole number from 0 to {MOST_RETRIES}")
    return value


def _timeout_s(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise wrong("timeout", "a positive number of seconds")
    return float(value)


def wrong(field: str, expected: str) -> RequestInvalid:
    return RequestInvalid(f"`{field}` must be {expected}", param=field)
