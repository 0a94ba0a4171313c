"""What the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

from proxy.api.routes import TABLE
from proxy.api.small import SmallEndpoint
from proxy.api.surfaces import ROWS
from proxy.cacheable import TABLE as CACHEABLE
from proxy.types import Surface
from proxy.upstream.arguments import FUNCTIONS

ROOT = Path(__file__).resolve().parent.parent


def test_every_fault_names_tests_that_exist() -> None:
    named = re.findall(r"`(test_\w+)::(test_\w+)`", (ROOT / "docs/faults.md").read_text())
    assert len(named) > 30
    for module, test in named:
        source = (ROOT / "tests/e2e" / f"{module}.py").read_text()
        assert f"def {test}(" in source, f"{module}::{test}"


def test_every_fault_of_a_table_names_a_test() -> None:
    rows = re.findall(
        r"^\| (?!fault|---)(.*) \|$", (ROOT / "docs/faults.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 25
    assert [row for row in rows if "`test_" not in row] == []


def requirements() -> list[list[str]]:
    """The cells of each row."""
    page = (ROOT / "docs/requirements.md").read_text()
    rows = re.findall(r"^\| (?!item|---)(.*) \|$", page, re.MULTILINE)
    return [row.split(" | ") for row in rows]


def test_every_requirement_names_rooms_that_exist() -> None:
    rows = requirements()
    assert len(rows) > 15
    for item, _, rooms, _ in rows:
        named = re.findall(r"`([^`]+)`", rooms)
        assert named, item
        assert [room for room in named if not (ROOT / room).is_file()] == [], item


def test_every_requirement_names_tests_that_exist() -> None:
    for item, _, _, tests in requirements():
        named = re.findall(r"`([^`]+)::(test_\w+)`", tests)
        assert named, item
        assert len(named) == tests.count("`") / 2, item
        for file, test in named:
            assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


def test_every_surface_stands_in_the_table_of_endpoints_as_it_is() -> None:
    page = (ROOT / "docs/endpoints.md").read_text()
    rows = dict(re.findall(r"^\| (`/v.*?) \| (.*) \|$", page, re.MULTILINE))
    assert {path for names in rows for path in re.findall(r"`([^`]+)`", names)} == {
        path if path.startswith("/v") else f"/v1{path}" for row in ROWS for path in row.paths
    }
    for names, cells in rows.items():
        row = next(row for row in ROWS if row.paths[0] in names and _last(row.paths[0], names))
        _, _, by_litellm, streams, cached, _ = cells.split(" | ")
        assert streams == ("always" if row.always else "yes" if row.streams else "no"), names
        assert cached == ("yes" if row.surface in CACHEABLE else "no"), names
        function = {**FUNCTIONS, Surface.RESPONSES: None}.get(row.surface)
        assert function is None or by_litellm == f"`{function}`", names


def _last(path: str, names: str) -> bool:
    """Say whether the path is the whole of an address."""
    return f"{path}`" in names and f"/v1{path}`" in names


def test_every_other_address_stands_there_too() -> None:
    page = (ROOT / "docs/endpoints.md").read_text()
    small = {path for _, path, app in TABLE if isinstance(app, SmallEndpoint)}
    own = {path for path in small if not path.startswith(("/openai/", "/models", "/responses"))}
    spelt = {path.replace("{model:path}", "").replace("{response}", "{id}") for path in own}
    assert [path for path in spelt if path not in page] == []


def test_nothing_is_left_to_be_filled_in() -> None:
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")):
        assert re.search(r"PLACEHOLDER|TODO|TBD|FIXME", page.read_text()) is None, page.name
