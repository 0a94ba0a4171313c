"""A body that comes again byte for byte is not read again, where answers are kept."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from proxy.api.parse import Incoming
from proxy.api.surfaces import BY_SURFACE
from proxy.cache_key import REMEMBERED_BYTES
from proxy.caching import Caching
from proxy.errors import RequestInvalid
from proxy.policy import LimitsPolicy
from proxy.snapshot import Snapshot
from proxy.types import Call, Surface
from tests.api.fakes import snapshot

KEEPING = replace(snapshot("chat"), caching=Caching(enabled=True))
PLAIN = snapshot("chat")
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "again"}]}


def read(body: object, held: Snapshot = KEEPING, surface: Surface = Surface.CHAT) -> Call:
    return BY_SURFACE[surface].read(Incoming(orjson.dumps(body), held))


def test_the_same_bytes_make_the_same_call() -> None:
    first = read(CHAT)
    assert read(CHAT) is first
    assert read(CHAT, PLAIN) == first


def test_other_bytes_another_surface_and_another_limit_make_another_call() -> None:
    assert read({**CHAT, "seed": 1}).body == {**CHAT, "seed": 1}
    said = read({**CHAT, "max_tokens": 1}, surface=Surface.MESSAGES)
    assert said.surface is Surface.MESSAGES
    deep = {**CHAT, "metadata": {"a": {"b": {}}}}
    assert read(deep).body == deep
    shallow = KEEPING.policy.model_copy(update={"limits": LimitsPolicy(json_depth=2)})
    with pytest.raises(RequestInvalid, match="nested"):
        read(deep, held=replace(KEEPING, policy=shallow))


def test_what_is_wrong_is_said_each_time() -> None:
    for _ in range(2):
        with pytest.raises(RequestInvalid, match="messages"):
            read({"model": "chat"})


@pytest.mark.parametrize(
    ("held", "text"),
    [(PLAIN, "again"), (KEEPING, "x" * REMEMBERED_BYTES)],
    ids=["nothing is kept", "it is long"],
)
def test_it_is_read_again_where_that_is_not_worth_its_place(held: Snapshot, text: str) -> None:
    body = {"model": "chat", "messages": [{"role": "user", "content": text}]}
    assert read(body, held=held).body is not read(body, held=held).body
