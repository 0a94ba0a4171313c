"""Where real clients ask: only in the environment that `make test-clients` makes for them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

if find_spec("pydantic_ai") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from tests.clients.place import Place, open_place

    @pytest.fixture(scope="session")
    def running() -> Iterator[Place]:
        with open_place() as place:
            yield place

    @pytest.fixture
    def place(running: Place) -> Iterator[Place]:
        """At the end of the test everything that passed is judged."""
        running.fresh()
        yield running
        running.check()
