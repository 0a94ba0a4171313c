"""`ssl_verify` says whose certificates are trusted, and is wrong at its line or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from proxy.config import Config
from proxy.types import ANYBODY, Trust
from tests.config.loading import lines, load_text, mock_model, refusal, targets

UNCHECKED = (
    "certificates are not checked, so that whoever is on the way can read the key and all that is "
    "said; name the file of the authority instead"
)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    file = tmp_path / "authority.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    return file


def trust(config: Config, model: str = "a") -> Trust | None:
    return targets(config.snapshot, model)[0].trust


def test_nothing_written_is_the_usual_trust(tmp_path: Path) -> None:
    for said in ("true", "~", "'yes'", "''"):
        config = load_text(tmp_path, "model_list:\n" + mock_model("a", ssl_verify=said))
        assert (trust(config), config.warnings) == (None, ())
    assert trust(load_text(tmp_path, "model_list:\n" + mock_model("a"))) is None


def test_false_trusts_anybody_and_warns_at_its_line(tmp_path: Path) -> None:
    for said in ("false", "'False'", "os.environ/VERIFY"):
        text = "model_list:\n" + mock_model("a", ssl_verify=said)
        config = load_text(tmp_path, text, {"VERIFY": "false"})
        assert trust(config) == ANYBODY
        assert lines(config.warnings) == [(2, f"ssl_verify is false: {UNCHECKED}")]


def test_a_file_is_trusted_and_nothing_else(tmp_path: Path, authority: Path) -> None:
    config = load_text(tmp_path, "model_list:\n" + mock_model("a", ssl_verify=authority))
    found = trust(config)
    assert found is not None
    assert (found.authorities, found.anybody) == (authority.read_text(), False)
    assert config.warnings == ()
    assert "BEGIN" not in repr(found)


def test_what_litellm_settings_say_holds_where_a_deployment_says_nothing(
    tmp_path: Path, authority: Path
) -> None:
    text = (
        "model_list:\n"
        + mock_model("a")
        + mock_model("b", ssl_verify="true")
        + mock_model("c", ssl_verify=authority)
        + "litellm_settings: {ssl_verify: false}\n"
    )
    config = load_text(tmp_path, text)
    assert [trust(config, name) for name in "ab"] == [ANYBODY, None]
    assert trust(config, "c") not in {ANYBODY, None}
    said = f"litellm_settings.ssl_verify is false: {UNCHECKED}"
    assert lines(config.warnings) == [(5, said)]


def test_a_file_that_cannot_be_used_is_an_error_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "words.pem").write_text("no certificate\n")
    (tmp_path / "folder.pem").mkdir()
    for name, reason in (
        ("none.pem", "no such file or directory"),
        ("empty.pem", "it holds no certificate"),
        ("words.pem", "it holds no certificate"),
        ("folder.pem", "it holds no certificate"),
    ):
        file = tmp_path / name
        error = refusal(tmp_path, "model_list:\n" + mock_model("a", ssl_verify=file))
        assert lines(error.remarks) == [(2, f"ssl_verify: {file} cannot be used: {reason}")]


def test_an_authority_that_is_replaced_is_another_trust(tmp_path: Path, authority: Path) -> None:
    text = "model_list:\n" + mock_model("a", ssl_verify=authority)
    before = load_text(tmp_path, text)
    again = load_text(tmp_path, text)
    trustme.CA().cert_pem.write_to_path(str(authority))
    after = load_text(tmp_path, text)
    assert authority in after.files
    assert (trust(before), before.fingerprint) == (trust(again), again.fingerprint)
    assert trust(before) != trust(after)
    assert before.fingerprint != after.fingerprint


def test_health_is_kept_whoever_is_trusted(tmp_path: Path) -> None:
    checked = load_text(tmp_path, "model_list:\n" + mock_model("a"))
    unchecked = load_text(tmp_path, "model_list:\n" + mock_model("a", ssl_verify="false"))
    assert (
        targets(checked.snapshot, "a")[0].identity == targets(unchecked.snapshot, "a")[0].identity
    )
