"""Live edits, with real files and the real watcher."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from proxy.clock import SystemClock
from proxy.config import Config, ConfigError, load_config
from proxy.reload import Reloader, Result
from tests.harness.config_file import ConfigFile, EditKind

IN_FORCE_S = 0.5  # a saved file is promised to be in force by then
PATIENCE_S = 10.0  # for what a busy test machine may take


def text(*names: str) -> str:
    rows = "".join(
        f"  - {{model_name: {name}, litellm_params: {{model: openai/x, mock_response: {name}}}}}\n"
        for name in names
    )
    return f"model_list:\n{rows}"


KEYED = """\
model_list:
  - {model_name: a, litellm_params: {model: openai/a, api_key: os.environ/MOUNTED}}
"""


def reloader(path: Path, environ: Mapping[str, str] | None = None) -> Reloader:
    environ = {} if environ is None else environ
    return Reloader(path, environ, load_config(path, environ), clock=SystemClock())


class Told:
    """An observer that remembers, and can be waited for."""

    def __init__(self, reloader: Reloader) -> None:
        self.results: list[tuple[Result, ConfigError | None]] = []
        self._changed = asyncio.Event()
        reloader.on_reload.append(self)

    def __call__(self, result: Result, error: ConfigError | None) -> None:
        self.results.append((result, error))
        self._changed.set()

    async def until(self, what: Callable[[], bool]) -> float:
        """Wait until it is so; return the seconds it took."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        async with asyncio.timeout(PATIENCE_S):
            while not what():
                self._changed.clear()
                await self._changed.wait()
        return loop.time() - started_s


@asynccontextmanager
async def watching(path: Path, environ: Mapping[str, str] | None = None) -> AsyncIterator[Reloader]:
    watched = reloader(path, environ)
    task = asyncio.create_task(watched.watch())
    try:
        await asyncio.sleep(0.15)  # the watch begins
        yield watched
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_a_good_file_takes_the_place_of_the_old_one_in_one_step(tmp_path: Path) -> None:
    async def main() -> None:
        file = ConfigFile(tmp_path, text("a"))
        subject = reloader(file.path)
        before = subject.current
        assert (before.models(), before.generation) == (("a",), 1)
        file.write(text("a", "b"), "save")
        assert await subject.reload() is Result.OK
        assert (subject.current.models(), subject.generation) == (("a", "b"), 2)
        assert before.models() == ("a",), "whoever holds the old snapshot keeps it"
        assert subject.last_error is None

    asyncio.run(main())


def test_an_unchanged_file_changes_nothing_and_nobody_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        file = ConfigFile(tmp_path, text("a"))
        subject = reloader(file.path)
        told = Told(subject)
        before = subject.current
        file.write(text("a"), "rename")
        assert await subject.reload() is Result.UNCHANGED
        assert subject.current is before
        assert told.results == []

    asyncio.run(main())


def test_a_broken_file_leaves_the_very_same_snapshot_and_is_reported(tmp_path: Path) -> None:
    async def main() -> None:
        file = ConfigFile(tmp_path, text("a"))
        subject = reloader(file.path)
        told = Told(subject)
        before = subject.current
        file.write(text("a") + "router_settings: [\n", "save")
        assert await subject.reload() is Result.ERROR
        assert subject.current is before
        assert subject.last_error is not None
        assert told.results == [(Result.ERROR, subject.last_error)]
        assert subject.last_error.remarks[0].line == 4

        file.write(text("a"), "save")
        assert await subject.reload() is Result.OK, "the error is over, and that is news"
        assert subject.last_error is None

    asyncio.run(main())


def test_a_file_without_any_model_leaves_the_old_snapshot_and_says_what_to_do(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        file = ConfigFile(tmp_path, text("a"))
        subject = reloader(file.path)
        for emptied in ("", "model_list: []\n", "mobius: {laps: 1}\n"):
            file.write(emptied, "save")
            assert await subject.reload() is Result.ERROR
            assert subject.current.models() == ("a",)
            assert "no model is left in this file" in str(subject.last_error)
            assert "restart Mobius" in str(subject.last_error)

    asyncio.run(main())


def test_a_mounted_secret_that_is_emptied_or_gone_leaves_the_old_snapshot(tmp_path: Path) -> None:
    async def main() -> None:
        file = ConfigFile(tmp_path, KEYED)
        secret = tmp_path / "key"
        secret.write_text("sk-old")
        subject = reloader(file.path, {"MOUNTED_FILE": str(secret)})
        before = subject.current
        for lose in (lambda: secret.write_text(""), secret.unlink):
            lose()
            assert await subject.reload() is Result.ERROR
            assert subject.current is before
            assert "the file that MOUNTED_FILE names is empty or cannot" in str(subject.last_error)
        secret.write_text("sk-new")
        assert await subject.reload() is Result.OK
        assert subject.current.targets()[0].params["api_key"] == "sk-new"

    asyncio.run(main())


def test_a_mounted_secret_that_the_file_no_longer_asks_for_may_go(tmp_path: Path) -> None:
    async def main() -> None:
        file = ConfigFile(tmp_path, KEYED)
        secret = tmp_path / "key"
        secret.write_text("sk-old")
        subject = reloader(file.path, {"MOUNTED_FILE": str(secret)})
        secret.unlink()
        file.write(text("b"), "save")
        assert await subject.reload() is Result.OK
        assert subject.current.models() == ("b",)

    asyncio.run(main())


def test_a_file_that_is_gone_leaves_the_old_snapshot(tmp_path: Path) -> None:
    async def main() -> None:
        file = ConfigFile(tmp_path, text("a"))
        subject = reloader(file.path)
        before = subject.current
        file.path.unlink()
        assert await subject.reload() is Result.ERROR
        assert subject.current is before

    asyncio.run(main())


def test_a_fault_of_our_own_while_loading_is_an_error_too(tmp_path: Path) -> None:
    def broken(path: Path, environ: Mapping[str, str]) -> Config:
        raise ZeroDivisionError

    async def main() -> None:
        file = ConfigFile(tmp_path, text("a"))
        config = load_config(file.path, {})
        subject = Reloader(file.path, {}, config, clock=SystemClock(), load=broken)
        assert await subject.reload() is Result.ERROR
        assert "ZeroDivisionError" in str(subject.last_error)
        assert subject.current.models() == ("a",)

    asyncio.run(main())


def test_loads_run_one_after_the_other_and_never_on_the_event_loop(tmp_path: Path) -> None:
    running: list[int] = []
    together: list[int] = []
    on_loop: list[bool] = []

    async def main() -> None:
        file = ConfigFile(tmp_path, text("a"))
        config = load_config(file.path, {})
        loop_thread = threading.get_ident()

        def load(path: Path, environ: Mapping[str, str]) -> Config:
            running.append(1)
            together.append(len(running))
            on_loop.append(threading.get_ident() == loop_thread)
            threading.Event().wait(0.01)  # long enough for another to begin, if it may
            loaded = load_config(path, environ)
            running.pop()
            return loaded

        subject = Reloader(file.path, {}, config, clock=SystemClock(), load=load)
        results = await asyncio.gather(*(subject.reload() for _ in range(8)))
        assert results == [Result.UNCHANGED] * 8

    asyncio.run(main())
    assert together == [1] * 8
    assert on_loop == [False] * 8


def test_the_environment_is_read_again_at_each_reload(tmp_path: Path) -> None:
    async def main() -> None:
        environ: dict[str, str] = {}
        path = tmp_path / "litellm_config.yaml"
        path.write_text("model_list: [{model_name: a, litellm_params: {model: openai/a}}]\n")
        subject = reloader(path, environ)
        environ["OPENAI_API_KEY"] = "sk-new"
        assert await subject.reload() is Result.OK
        ring = subject.current.ring("a")
        assert ring is not None
        assert ring.groups[0].targets[0].missing is None

    asyncio.run(main())


async def edit_five_times(folder: Path, how: EditKind) -> float:
    """Save five edits, wait until each is in force, and return the median of the waits."""
    file = ConfigFile(folder, text("a"), how)
    async with watching(file.path) as subject:
        told = Told(subject)
        took_s = []
        for number in range(5):
            file.write(text("a", f"b{number}"), how)
            wanted = ("a", f"b{number}")
            took_s.append(await told.until(lambda w=wanted: subject.current.models() == w))  # type: ignore[misc]
        assert subject.generation == 6
    return sorted(took_s)[len(took_s) // 2]


async def move_a_link_above(folder: Path) -> float:
    """Move a link further up, which happens in no directory that is watched; return the wait."""
    for version in ("one", "two"):
        (folder / version).mkdir()
        (folder / version / "c.yaml").write_text(text(version))
    link = folder / "current"
    link.symlink_to("one")
    async with watching(link / "c.yaml") as subject:
        told = Told(subject)
        (folder / "new").symlink_to("two")
        os.replace(folder / "new", link)
        took_s = await told.until(lambda: subject.current.models() == ("two",))
        assert subject.generation == 2
    return took_s


EDITS: list[EditKind] = ["save", "rename", "configmap"]


@pytest.mark.parametrize("how", EDITS)
def test_an_edit_is_noticed_however_it_is_saved(tmp_path: Path, how: EditKind) -> None:
    asyncio.run(edit_five_times(tmp_path, how))


def test_an_edit_that_the_watcher_cannot_see_is_noticed_too(tmp_path: Path) -> None:
    asyncio.run(move_a_link_above(tmp_path))


@pytest.mark.proof
@pytest.mark.parametrize("how", EDITS)
def test_an_edit_is_in_force_within_half_a_second(tmp_path: Path, how: EditKind) -> None:
    assert asyncio.run(edit_five_times(tmp_path, how)) < IN_FORCE_S


@pytest.mark.proof
def test_an_edit_that_the_watcher_cannot_see_is_in_force_soon(tmp_path: Path) -> None:
    assert asyncio.run(move_a_link_above(tmp_path)) < IN_FORCE_S


def test_half_a_file_is_reported_once_and_the_whole_one_applied(tmp_path: Path) -> None:
    async def main() -> None:
        file = ConfigFile(tmp_path, text("a"))
        async with watching(file.path) as subject:
            told = Told(subject)
            before = subject.current
            file.write(text("a", "b") + "router_settings: {num_retries: ", "save")
            await told.until(lambda: len(told.results) == 1)
            await asyncio.sleep(0.6)  # several polls: the same broken file is no news
            assert [result for result, _ in told.results] == [Result.ERROR]
            assert subject.current is before
            file.write(text("a", "b") + "router_settings: {num_retries: 2}\n", "save")
            await told.until(lambda: subject.current.models() == ("a", "b"))
            assert subject.current.policy.num_retries == 2
            assert subject.last_error is None

    asyncio.run(main())


def test_an_included_file_is_watched_from_the_moment_it_is_included(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "parts").mkdir()
        file = ConfigFile(tmp_path, text("a"))
        async with watching(file.path) as subject:
            told = Told(subject)
            file.write("include: [parts/b.yaml]\n" + text("a"), "save")
            await told.until(lambda: subject.last_error is not None)
            (tmp_path / "parts" / "b.yaml").write_text(text("b"))
            await told.until(lambda: subject.current.models() == ("a", "b"))
            (tmp_path / "parts" / "b.yaml").write_text(text("c"))
            await told.until(lambda: subject.current.models() == ("a", "c"))

    asyncio.run(main())


def test_a_rotated_mounted_secret_takes_effect(tmp_path: Path) -> None:
    async def main() -> None:
        secret = tmp_path / "secrets" / "openai"
        secret.parent.mkdir()
        path = tmp_path / "litellm_config.yaml"
        path.write_text("model_list: [{model_name: a, litellm_params: {model: openai/a}}]\n")

        def key() -> object:
            ring = subject.current.ring("a")
            assert ring is not None
            return ring.groups[0].targets[0].params.get("api_key")

        async with watching(path, {"OPENAI_API_KEY_FILE": str(secret)}) as subject:
            told = Told(subject)
            assert key() is None
            secret.write_text("sk-one\n")
            await told.until(lambda: key() == "sk-one")
            (tmp_path / "secrets" / "new").write_text("sk-two\n")
            os.replace(tmp_path / "secrets" / "new", secret)
            await told.until(lambda: key() == "sk-two")

    asyncio.run(main())


def test_a_watch_that_is_cancelled_together_with_an_edit_ends_too(tmp_path: Path) -> None:
    async def main() -> None:
        file = ConfigFile(tmp_path, text("a"))
        for steps in range(6):
            subject = reloader(file.path)
            task = asyncio.create_task(subject.watch())
            await asyncio.sleep(0.15)  # the watch begins
            subject._stirred.set()
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE_S)
            assert task.cancelled(), f"{steps} steps after the edit"

    asyncio.run(main())


def test_a_watch_ends_at_once_when_it_is_cancelled(tmp_path: Path) -> None:
    async def main() -> float:
        file = ConfigFile(tmp_path, text("a"))
        loop = asyncio.get_running_loop()
        async with watching(file.path):
            started_s = loop.time()
        return loop.time() - started_s

    assert asyncio.run(main()) < 1.0
