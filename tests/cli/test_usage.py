"""`mobius usage` and `mobius usage export`, as far as they need no server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.clock import SystemClock
from proxy.ledger import Ledger
from proxy.statement import ATTEMPT_COLUMNS
from proxy.store import GroupBy
from proxy.store.sqlite_report import PAGE
from tests.providers import closed_port
from tests.store.rows import T0, closed, opened

MODEL = "model_list:\n  - {model_name: m, litellm_params: {model: openai/x, mock_response: hi}}\n"


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "mobius.db"


@pytest.fixture
def config(tmp_path: Path, ledger: Path) -> str:
    file = tmp_path / "litellm_config.yaml"
    file.write_text(f"{MODEL}mobius:\n  ledger: {{path: {ledger}}}\n")
    return str(file)


def used(path: Path, moments: Iterable[float] = ()) -> None:
    """Have a ledger with an attempt that was closed at each of these."""

    async def fill() -> None:
        async with Ledger(path, SystemClock()) as ledger:
            for number, moment in enumerate(moments):
                await ledger.open(opened(f"a{number}"), admitted=True)
                await ledger.close(closed(f"a{number}", closed_at=moment))

    asyncio.run(fill())


def said(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    captured = capsys.readouterr()
    assert ended.value.code == code, captured.err
    return captured.out if code == 0 else captured.err


def ids(lines: str) -> list[str]:
    return [json.loads(line)["id"] for line in lines.splitlines()]


def moment(second: float) -> str:
    return datetime.fromtimestamp(T0 + second, UTC).isoformat()


def test_an_export_is_every_attempt_in_the_order_of_their_ends(
    capsys: pytest.CaptureFixture[str], config: str, ledger: Path
) -> None:
    used(ledger, [T0 + 3, T0 + 1, T0 + 2])
    out = said(capsys, "usage", "export", "--config", config)
    assert ids(out) == ["a1", "a2", "a0"]
    assert list(json.loads(out.splitlines()[0])) == list(ATTEMPT_COLUMNS)


def test_an_export_of_several_pages_leaves_none_out(
    capsys: pytest.CaptureFixture[str], config: str, ledger: Path
) -> None:
    used(ledger, [T0] * (2 * PAGE + 1))
    found = ids(said(capsys, "usage", "export", "--config", config))
    assert sorted(found) == sorted(f"a{number}" for number in range(2 * PAGE + 1))


def test_options_that_stand_before_export_hold_for_it_too(
    capsys: pytest.CaptureFixture[str], config: str, ledger: Path
) -> None:
    used(ledger, [T0 + 1, T0 + 2, T0 + 3])
    period = ("--since", moment(2), "--until", moment(3))
    for argv in (
        ("usage", "export", "--config", config, *period),
        ("usage", "--config", config, *period, "export"),
        ("usage", "--config", config, "--since", moment(0), "export", *period),
    ):
        assert ids(said(capsys, *argv)) == ["a1"]


def test_an_export_of_nothing_is_nothing_but_the_header_of_csv(
    capsys: pytest.CaptureFixture[str], config: str, ledger: Path, tmp_path: Path
) -> None:
    used(ledger)
    assert said(capsys, "usage", "export", "--config", config) == ""
    file = tmp_path / "out.csv"
    said(capsys, "usage", "export", "--config", config, "--format", "csv", "--output", str(file))
    assert file.read_bytes().decode() == ",".join(ATTEMPT_COLUMNS) + "\r\n"


def test_a_ledger_that_is_not_there_is_said_and_not_made(
    capsys: pytest.CaptureFixture[str], config: str, ledger: Path
) -> None:
    text = said(capsys, "usage", "export", "--config", config, code=1)
    assert text.startswith(f"there is no ledger {ledger} (mobius.ledger.path in {config}): ")
    assert not ledger.exists()


def test_a_ledger_that_is_none_is_said_with_what_to_do(
    capsys: pytest.CaptureFixture[str], config: str, ledger: Path
) -> None:
    ledger.write_bytes(b"no database" * 100)
    text = said(capsys, "usage", "export", "--config", config, code=1)
    assert f"the ledger {ledger} is not available" in text
    assert "set mobius.ledger.path to another file" in text


def test_a_place_that_cannot_be_written_to_is_one_sentence(
    capsys: pytest.CaptureFixture[str], config: str, ledger: Path, tmp_path: Path
) -> None:
    used(ledger)
    where = tmp_path / "none" / "out.jsonl"
    text = said(capsys, "usage", "export", "--config", config, "--output", str(where), code=1)
    assert text == f"cannot write to {where}: No such file or directory\n"


@pytest.mark.parametrize("command", [("usage",), ("usage", "export")], ids=" ".join)
def test_a_moment_that_is_none_is_refused_with_the_forms_there_are(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    text = said(capsys, *command, "--since", "monday", code=2)
    assert "argument --since: `monday` is not a date or time in UTC (2026-01, " in text


def test_no_server_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with closed_port() as port:
        text = said(capsys, "usage", "--url", f"http://127.0.0.1:{port}", code=1)
    assert text.endswith("is `mobius serve` running?\n")


def test_the_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "usage", "--help")
    for example in ("--since 7d --group-by day,model", "usage export", "--format csv > usage.csv"):
        assert example in text
    assert [group for group in GroupBy if group not in text] == []
    assert "2026-01 --until 2026-02" in said(capsys, "usage", "export", "--help")
