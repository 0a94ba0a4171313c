"""The image and the compose file, as far as they can be judged without building them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import yaml

from proxy.cli.guard import NO_KEY
from proxy.config.mobius import MASTER_VARIABLE
from proxy.policy import MobiusPolicy

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
KNOWN = {f"proxy/config/known/{file.name}" for file in (ROOT / "proxy/config/known").iterdir()}


def copied() -> list[str]:
    """What the image takes from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "config/compose.yaml").read_text())[
        "services"
    ]
    return services


def test_what_is_copied_is_there_and_nothing_else_is_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert sent == set(copied())
    assert all((ROOT / source).exists() for source in sent)


def test_what_is_copied_is_enough_to_build_from(tmp_path: Path) -> None:
    for source in copied():
        take = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        take(ROOT / source, tmp_path / source)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True, timeout=100)
    (wheel,) = tmp_path.glob("dist/*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"proxy/py.typed", "proxy/cli/__init__.py", *KNOWN} <= names
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


def test_it_runs_as_nobody_and_writes_to_its_volume_alone() -> None:
    assert "\nUSER 10001:10001\n" in DOCKERFILE
    assert "\nVOLUME /data\n" in DOCKERFILE
    assert "ln -s /data /app/data" in DOCKERFILE
    assert Path(MobiusPolicy().ledger.path).parts[0] == "data", "which leads to the volume"
    mobius = compose()["mobius"]
    assert mobius["read_only"] is True
    assert [mount for mount in mobius["volumes"] if not mount.endswith(":ro")] == ["data:/data"]


def test_compose_mounts_what_is_there_and_stops_later_than_the_grace_ends() -> None:
    services = compose()
    mounts = [mount for service in services.values() for mount in service["volumes"]]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert len(files) == 3
    assert all((ROOT / "config" / file).is_file() for file in files)
    assert int(services["mobius"]["stop_grace_period"].removesuffix("s")) > MobiusPolicy().grace


def test_the_variable_for_the_key_is_the_one_that_is_asked_for() -> None:
    assert MASTER_VARIABLE in compose()["mobius"]["environment"]
    assert MASTER_VARIABLE in NO_KEY
