"""A ledger that cannot be written: as the policy says, and no paid call that is not recorded.

The tests may run as root, to whom no folder is closed: what is full is the size that the system
lets the server's files grow to, and what cannot be made is a folder below a file.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from tests.e2e.quota_place import HI, TOOK, Place, key, priced
from tests.harness import Mobius, mobius_command, wait_until
from tests.providers import Answer, FakeOpenAI, Gate
from tests.store.rows import open_ids

pytestmark = pytest.mark.e2e

HELD_UP_S = 5.0
BACK_S = 10.0
NAME = "x-ratelimit-remaining-tokens"


def config(base: str, policy: str, path: str = "data/mobius.db") -> dict[str, Any]:
    return {
        "model_list": [priced("m", base)],
        "router_settings": {"num_retries": 0},
        "mobius": {
            "laps": 1,
            "keys": [key("web", limits={"tpd": 1_000_000, "rpd": 1000, "max_parallel": 2})],
            "quota": {"on_store_failure": policy},
            "ledger": {"path": path},
        },
    }


@pytest.fixture
def provider() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        fake.always(Answer(usage=TOOK))
        yield fake


@contextmanager
def full_disk(place: Place) -> Iterator[None]:
    """No file of the server's grows any more."""
    size = place.ledger.with_name("mobius.db-wal").stat().st_size
    # Its log is a file too, and shall have room.
    assert size > 20_000 + len(place.mobius.log)
    before = resource.prlimit(place.mobius.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(place.mobius.pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(place.mobius.pid, resource.RLIMIT_FSIZE, before)


def fill(place: Place) -> int:
    """So many requests that the file has a size."""
    for _ in range(15):
        place.ask("web")
    return 15


@pytest.mark.parametrize("policy", ["leased", "closed"])
def test_while_the_disk_is_full_no_call_is_made_that_is_not_recorded(
    provider: FakeOpenAI, policy: str
) -> None:
    gate = Gate()
    with Mobius(config(provider.base_url, policy)) as mobius:
        place = Place(mobius, provider)
        asked = fill(place)
        provider.script(Answer(usage=TOOK, gate=gate, gate_after_tokens=2))
        stream = place.client("web").chat.completions.create(
            model="m", messages=HI, stream=True, max_tokens=10
        )
        next(iter(stream))
        with full_disk(place):
            for _ in range(5):
                error = place.refuse("web", kind=openai.InternalServerError)
                assert (error.status_code, error.code) == (503, "quota_unavailable")
                assert error.response.headers["retry-after"] == "1"
            # What was begun is answered, and its end is kept until it can be written.
            gate.open()
            began_s = time.monotonic()
            assert len(list(stream)) > 2
            assert time.monotonic() - began_s < HELD_UP_S
            assert len(open_ids(place.ledger)) == 1
        wait_until(lambda: not open_ids(place.ledger), BACK_S, "the row's end")
        wait_until(lambda: _asks(place), BACK_S, "the ledger's return")
        assert place.rows() == [("ok", 60, 10, 80_000, 0)] * (asked + 2)
        assert len(provider.journal) == asked + 2
        _, headers = place.ask("web")
        assert int(headers[NAME]) == 1_000_000 - 70 * (asked + 3)
        used = int(headers["x-ratelimit-remaining-requests"])
        mobius.stop()
        mobius.start()
        _, headers = place.ask("web")
        assert int(headers[NAME]) == 1_000_000 - 70 * (asked + 4)
        assert int(headers["x-ratelimit-remaining-requests"]) == used - 1


def _asks(place: Place) -> bool:
    try:
        place.ask("web")
    except openai.InternalServerError:
        return False
    return True


def test_an_open_policy_lets_calls_through_while_the_disk_is_full(provider: FakeOpenAI) -> None:
    with Mobius(config(provider.base_url, "open")) as mobius:
        place = Place(mobius, provider)
        asked = fill(place)
        with full_disk(place):
            for _ in range(5):
                place.ask("web")
            assert len(place.rows()) == asked
        _, headers = place.ask("web")
        # The limit knows of all, though the ledger does not.
        assert int(headers[NAME]) == 1_000_000 - 70 * (asked + 6)
        assert len(provider.journal) == asked + 6

        def recorded() -> bool:
            place.ask("web")
            return len(place.rows()) > asked

        wait_until(recorded, BACK_S, "the ledger's return")


@pytest.mark.parametrize("policy", ["leased", "closed"])
def test_without_a_ledger_the_server_does_not_start_and_says_what_to_do(policy: str) -> None:
    made = config("http://127.0.0.1:9/v1", policy, path="litellm_config.yaml/mobius.db")
    done = mobius_command("serve", "--port", "0", config=made)
    assert done.returncode == 1
    assert "mobius.ledger.path" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_an_open_policy_serves_without_a_ledger(provider: FakeOpenAI) -> None:
    made = config(provider.base_url, "open", path="litellm_config.yaml/mobius.db")
    with Mobius(made) as mobius:
        place = Place(mobius, provider)
        for _ in range(3):
            place.ask("web")
        assert len(provider.journal) == 3
        assert "ledger_unavailable" in mobius.log
