"""Whatever happens to a file, it loads or raises ConfigError; and no secret ever shows."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.clock import SystemClock
from proxy.config import Config, ConfigError, load_config
from proxy.reload import Reloader, Result
from tests.config.loading import FILES, targets

SOURCES = [file.read_bytes() for file in sorted(FILES.glob("*.yaml"))]
SECRET = "Zq7-hush-hush-9d"  # neither a word nor of a known shape: only knowing it hides it
ENVIRON = {
    "OPENAI_API_KEY": SECRET + "0",
    "AZURE_EU_KEY": SECRET + "1",
    "CORP_KEY": SECRET + "2",
    "X": SECRET + "3",
    "MASTER_KEY": SECRET + "4",
}
TOKENS = [
    *(":", "- ", "[", "]", "{", "}", "&a ", "*a", "<<: *base", "? ", "|", ">", "%", "@", "#", "*"),
    *("!!int ", "!!float ", "!!bool x", "!x ", "\t", "\n", "  ", "null", "yes", ".nan", "1e999"),
    *("-1", "'", '"', "---\n", "...\n", "1:1", "0x_", "0b", "+", "2024-02-30", "9" * 5000, "\x00"),
    *("\x85", "\u2028", "\ufeff", "os.environ/X", "os.environ/", "include: [x]\n", "~: 1\n"),
]
fuzzing = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Draw a file with pieces of it deleted, doubled, replaced, or put in, as bytes or as lines."""
    raw = draw(st.sampled_from(SOURCES)) or b"\n"
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["delete", "token", "replace", "bytes", "drop", "double"]))
        at = draw(st.integers(0, len(raw)))
        if kind == "delete":
            raw = raw[:at] + raw[at + draw(st.integers(1, 30)) :]
        elif kind == "bytes":
            raw = raw[:at] + draw(st.binary(min_size=1, max_size=4)) + raw[at:]
        elif kind in {"token", "replace"}:
            end = at + (draw(st.integers(1, 8)) if kind == "replace" else 0)
            raw = raw[:at] + draw(st.sampled_from(TOKENS)).encode() + raw[end:]
        else:
            rows = raw.split(b"\n")
            row = draw(st.integers(0, len(rows) - 1))
            rows[row : row + 1] = [] if kind == "drop" else [rows[row]] * 2
            raw = b"\n".join(rows)
    return raw


def outcome(raw: bytes) -> Config | ConfigError:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "litellm_config.yaml"
        file.write_bytes(raw)
        try:
            return load_config(file, ENVIRON)
        except ConfigError as exc:
            return exc


@fuzzing
@given(mutated())
def test_a_mutated_file_loads_or_is_refused_with_its_lines(raw: bytes) -> None:
    found = outcome(raw)
    if isinstance(found, ConfigError):
        assert found.remarks
        assert all(remark.line >= 1 and remark.text for remark in found.remarks)
    remarks = found.remarks if isinstance(found, ConfigError) else found.warnings
    assert all("\n" not in str(remark) for remark in remarks)
    assert SECRET not in str(found)
    assert SECRET not in repr(found)


@fuzzing
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_any_bytes_load_or_are_refused(raw: bytes) -> None:
    assert isinstance(outcome(raw), Config | ConfigError)


@fuzzing
@given(mutated())
def test_a_reloader_keeps_the_very_same_snapshot_when_a_file_is_refused(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "litellm_config.yaml"
        file.write_text("model_list: []\n")
        subject = Reloader(file, ENVIRON, load_config(file, ENVIRON), clock=SystemClock())
        before = subject.current
        file.write_bytes(raw)
        result = asyncio.run(subject.reload())
        assert (subject.last_error is not None) == (result is Result.ERROR)
        assert (subject.current is before) == (result is not Result.OK)


PLACES = ["api_key", "api_base", "aws_secret_access_key", "extra_headers", "extra_body", "rpm"]
SHAPES = [SECRET, f"[{SECRET}]", f"{{{SECRET}: x}}", f"{{a: {SECRET}}}", f"{{a: [{SECRET}]}}"]


@fuzzing
@given(st.sampled_from(PLACES), st.sampled_from(SHAPES), st.sampled_from(["30", "[x]", "soon"]))
def test_a_secret_never_shows_wherever_it_is_written(place: str, shape: str, timeout: str) -> None:
    params = {"model": "openai/a", "api_key": SECRET, "timeout": timeout, place: shape}
    rows = "".join(f"      {name}: {value}\n" for name, value in params.items())
    found = outcome(
        f"model_list:\n  - model_name: a\n    litellm_params:\n{rows}"
        f"general_settings: {{master_key: {SECRET}}}\n"
        f"router_settings: {{redis_password: {SECRET}, redis_host: h}}\n"
        f"mobius: {{keys: [{{name: web, key: {SECRET}x}}]}}\n".encode()
    )
    assert SECRET not in str(found)
    assert SECRET not in repr(found)


def test_a_secret_in_the_place_of_a_name_is_left_out_when_it_is_known() -> None:
    found = outcome(
        f"general_settings: {{master_key: os.environ/MASTER_KEY, {SECRET}4: x}}\n".encode()
    )
    assert isinstance(found, Config)
    assert found.warnings[0].text == "general_settings.… is not known; it is ignored"


def test_the_secrets_of_a_good_file_are_where_they_belong_and_nowhere_else() -> None:
    found = outcome(
        "model_list:\n"
        f"  - {{model_name: a, litellm_params: {{model: gpt-4o, api_key: {SECRET}}}}}\n"
        f"environment_variables: {{TOKEN: {SECRET}}}\n".encode()
    )
    assert isinstance(found, Config)
    assert targets(found.snapshot, "a")[0].params["api_key"] == SECRET
    assert found.environment["TOKEN"] == SECRET
    assert SECRET not in repr(found)
