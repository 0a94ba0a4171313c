"""What lasts is out of the collector's sight: the parts of a server, and LiteLLM's."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.heap import keep, lasting
from tests.upstream.test_sdk import run

# Objects that a collection goes over once a server serves; those of its imports are 95,000.
FEW = 20_000

SERVE = """
import gc, json, os, sys
from pathlib import Path
from proxy.app import create_app
from proxy.cli.listen import bound
from proxy.cli.server import Server, run
from proxy.config import load_config

class Once(Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        seen.append(len(gc.get_objects()))
        self.should_exit = True

seen = []
path = Path(sys.argv[1])
app = create_app(path, load_config(path, os.environ))
with bound("127.0.0.1", 0) as listeners:
    run(app, listeners, kind=Once)
print(json.dumps({"seen": seen[0]}))
"""

IMPORT = """
import asyncio, gc, json
from proxy.clock import SystemClock
from proxy.upstream.sdk import Sdk
from proxy.upstream.wire import Transport

async def main():
    sdk = Sdk(Transport(SystemClock()))
    await sdk.ready()
    collections = gc.get_stats()[2]["collections"] - before
    seen = {"seen": len(gc.get_objects()), "enabled": gc.isenabled(), "collections": collections}
    await sdk.aclose()
    return seen

before = gc.get_stats()[2]["collections"]
print(json.dumps(asyncio.run(main())))
"""


@pytest.fixture(autouse=True)
def seen_again() -> Iterator[None]:
    yield
    gc.unfreeze()


def in_sight(what: object) -> bool:
    return any(each is what for each in gc.get_objects())


def test_what_is_there_when_a_server_begins_is_looked_at_no_more() -> None:
    before = [[]]  # type: list[list[int]]
    assert in_sight(before)
    keep()
    after = [[]]  # type: list[list[int]]
    assert not in_sight(before)
    assert in_sight(after)


def test_what_a_block_makes_is_never_looked_at_and_what_comes_later_is() -> None:
    collections = sum(each["collections"] for each in gc.get_stats())
    with lasting():
        made = [[number] for number in range(10_000)]
        assert sum(each["collections"] for each in gc.get_stats()) == collections
    assert not in_sight(made[0])
    assert gc.isenabled()
    assert in_sight([made])


def test_a_block_that_fails_leaves_the_collector_as_it_was() -> None:
    with pytest.raises(ImportError), lasting():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with lasting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_server_that_listens_has_little_to_look_at(tmp_path: Path) -> None:
    file = tmp_path / "litellm_config.yaml"
    file.write_text("model_list: []\n")
    said, _ = run(tmp_path, SERVE, str(file))
    assert said["seen"] < FEW


def test_litellm_is_imported_without_a_standstill_and_none_comes_of_it(tmp_path: Path) -> None:
    said, _ = run(tmp_path, IMPORT)
    assert said["seen"] < FEW
    assert said["enabled"]
    assert said["collections"] == 0
