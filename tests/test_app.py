"""What the composition root ties together: the environment, the log, live edits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.app import create_app
from proxy.config import load_config
from proxy.exports import Exports
from tests.quiet import imported

VARIABLE = "MOBIUS_TEST_PROVIDER_KEY"


@pytest.fixture(scope="module", autouse=True)
def _litellm() -> None:
    imported()  # before a service begins to, in a thread of its own


def model(name: str, more: str = "mock_response: hi") -> str:
    return f"  - {{model_name: {name}, litellm_params: {{model: openai/x, {more}}}}}\n"


def test_what_a_file_no_longer_sets_is_as_it_was_at_start() -> None:
    start = {"KEPT": "1", "CHANGED": "old"}
    target = dict(start)
    exports = Exports(target, start)
    exports.set({"CHANGED": "new", "ADDED": "x"})
    assert target == {"KEPT": "1", "CHANGED": "new", "ADDED": "x"}
    exports.set({"ADDED": "y"})
    assert target == {"KEPT": "1", "CHANGED": "old", "ADDED": "y"}
    exports.set({})
    assert target == start


class Served:
    """An app, its file, and its log."""

    def __init__(self, folder: Path, text: str) -> None:
        self.file = folder / "litellm_config.yaml"
        self.file.write_text(text)
        self.written: list[bytes] = []
        environ = dict(os.environ)
        config = load_config(self.file, environ)
        self.app = create_app(self.file, config, environ=environ, write=self.written.append)

    def lines(self, event: str) -> list[dict[str, Any]]:
        lines = [orjson.loads(line) for line in self.written]
        return [line for line in lines if line["event"] == event]

    async def save(self, text: str, until: Callable[[], bool]) -> None:
        self.file.write_text(text)
        async with asyncio.timeout(10):
            while not until():  # noqa: ASYNC110 - the log is a list, which nobody can wait for
                await asyncio.sleep(0.01)


def test_a_key_that_is_deleted_from_the_file_is_gone_at_once(tmp_path: Path) -> None:
    models = f"model_list:\n{model('a', f'api_key: os.environ/{VARIABLE}')}"
    served = Served(tmp_path, f"environment_variables: {{{VARIABLE}: sk-1}}\n{models}")

    async def main() -> None:
        async with served.app.router.lifespan_context(served.app):
            assert os.environ[VARIABLE] == "sk-1"
            assert served.lines("unconfigured") == []
            await served.save(models, lambda: bool(served.lines("reload")))
            assert VARIABLE not in os.environ

    asyncio.run(main())
    assert served.lines("reload")[0]["result"] == "ok"
    assert orjson.loads(served.written[-1])["event"] == "stopped"


def test_a_reload_says_which_models_came_and_went_and_the_grace_is_the_new_one(
    tmp_path: Path,
) -> None:
    served = Served(tmp_path, f"model_list:\n{model('a')}{model('b')}")

    async def main() -> None:
        async with served.app.router.lifespan_context(served.app):
            assert served.app.state.grace() == 30
            text = f"model_list:\n{model('a')}{model('c')}mobius: {{grace: 7}}\n"
            await served.save(text, lambda: bool(served.lines("reload")))
            assert served.app.state.grace() == 7

    asyncio.run(main())
    (line,) = served.lines("reload")
    assert (line["models_added"], line["added"]) == (1, ["c"])
    assert (line["models_removed"], line["removed"]) == (1, ["b"])
