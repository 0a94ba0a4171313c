"""YAML with its lines, and what is refused of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from proxy.config import ConfigError, load_config
from proxy.config.source import MOST_NODES, Fields, Leaf, parse, plain, problem_of
from tests.config.loading import lines, load_text, mock_model, refusal

MODELS = "model_list:\n" + mock_model("a")


def parsed(text: str) -> Fields:
    tree = parse(text.encode(), "f.yaml")
    assert isinstance(tree, Fields)
    return tree


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\nb: [\n", 3, "not YAML"),
        ("a:\n\tb: 1\n", 2, "not YAML: a tab is used for indentation; use spaces"),
        ("a: 1\n  b: 2\n", 2, "not YAML"),
        ("a: 1\nb: 2\na: 3\n", 3, "a stands here again, after line 1"),
        ("a:\n  x: {k: 1, k: 2}\n", 2, "k stands here again, after line 2"),
        ("a: 1\n---\nb: 2\n", 2, "a second document starts here; one file is one document"),
        ("a: *b\n", 1, "an alias (*) of an anchor (&) that does not stand before it"),
        ("a: &a\n  b: *a\n", 2, "an alias (*) inside what it stands for"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "a tag (!) that is not supported here"),
        ("a: !!set {x}\n", 1, "a tag (!) that is not supported here"),
        ("a: !mine [x]\n", 1, "a tag (!) that is not supported here"),
        ("a: .nan\n", 1, "not a finite number"),
        ("a: 1\nb: -.inf\n", 2, "not a finite number"),
        ("a: !!int twelve\n", 1, "not a value of the type int"),
        ("a: 1\n? [x, y]\n: 2\n", 2, "a key must be a plain name"),
        ("a: 1\n'': 2\n", 2, "a key is empty"),
        ("a: 1\n<<: 3\n", 2, "<< takes a mapping, or a list of mappings"),
        ("a: 1\nb: \x07\n", 2, "the character U+0007 is not allowed in YAML"),
        ("a: " + "[" * 100, 1, "nested deeper than 64"),
    ],
)
def test_what_is_not_right_is_refused_with_its_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), "f.yaml")
    (remark,) = caught.value.remarks
    assert (remark.file, remark.line) == ("f.yaml", line)
    assert remark.text.startswith(problem)


def test_the_words_of_the_parser_are_shown_without_those_of_the_file() -> None:
    """PyYAML without libyaml quotes what it found."""
    for problem, shown in {
        "found undefined tag handle '!sk-secret!'": "found undefined tag handle …",
        "expected ',' or ']', but got '<scalar>'": "expected ',' or ']', but got '<scalar>'",
    }.items():
        assert problem_of(yaml.MarkedYAMLError(problem=problem), "a: 1", 1) == shown


def test_an_alias_bomb_is_refused_at_once() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    with pytest.raises(ConfigError) as caught:
        parse("\n".join(rows).encode(), "f.yaml")
    assert f"more than {MOST_NODES} values" in str(caught.value)


def test_a_file_that_is_too_large_or_not_utf_8_is_refused() -> None:
    with pytest.raises(ConfigError, match="larger than 16 MB"):
        parse(b"#" * (16 * 1024 * 1024 + 1), "f.yaml")
    with pytest.raises(ConfigError, match=r"f\.yaml:3: not UTF-8 text"):
        parse(b"a: 1\nb: 2\nc: \xff\n", "f.yaml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_text(encoding: str) -> None:
    tree = parse("a: ü\n".encode(encoding), "f.yaml")
    assert isinstance(tree, Fields)
    assert plain(tree) == {"a": "ü"}


def test_keys_and_dates_stay_as_they_are_written() -> None:
    tree = parsed("on: off\nyes: 'no'\n4: 010\n1.10: 1.10\ndate: 2024-02-01\n~: ~\n")
    assert plain(tree) == {
        "on": False,
        "yes": "no",
        "4": 8,
        "1.10": 1.1,
        "date": "2024-02-01",
        "~": None,
    }


def test_anchors_and_merges_read_as_in_pyyaml_and_keep_their_lines() -> None:
    tree = parsed(
        "base: &base\n  a: 1\n  b: 2\nother: &other {b: 3, c: 4}\n"
        "x:\n  <<: *base\n  b: 9\ny: {<<: [*base, *other]}\nz: *base\n"
    )
    assert plain(tree.entries["x"]) == {"b": 9, "a": 1}
    assert plain(tree.entries["y"]) == {"a": 1, "b": 2, "c": 4}
    assert plain(tree.entries["z"]) == {"a": 1, "b": 2}
    x = tree.entries["x"]
    assert isinstance(x, Fields)
    assert (x.places["a"].line, x.places["b"].line) == (2, 7)


def test_every_key_and_value_knows_its_line() -> None:
    tree = parsed("a:\n  - 1\n  -\n    b: 2\n")
    inner = tree.entries["a"]
    assert inner.place.line == 2
    assert isinstance(inner, Leaf) is False
    assert tree.places["a"].line == 1


def test_a_value_never_shows_in_the_representation_of_the_tree() -> None:
    assert "sk-secret" not in repr(parsed("a: {api_key: sk-secret}\n"))


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "~\n"])
def test_a_file_without_content_has_no_models(tmp_path: Path, text: str) -> None:
    config = load_text(tmp_path, text)
    assert [warning.text for warning in config.warnings] == ["there is no model in this file"]


@pytest.mark.parametrize("text", ["- a\n", "text\n", "4\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "takes a mapping of sections" in str(refusal(tmp_path, text))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    from_nowhere = refusal_of(tmp_path / "nowhere.yaml")
    assert lines(from_nowhere.remarks) == [
        (1, "nowhere.yaml cannot be read: no such file or directory")
    ]
    assert "cannot be read" in str(refusal_of(tmp_path))


def refusal_of(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    return caught.value


def test_a_file_that_includes_itself_or_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("include: [litellm_config.yaml]\n")
    error = refusal(tmp_path, "include:\n  - b.yaml\n  - c.yaml\n  - [d]\n" + MODELS)
    assert [(Path(r.file).name, r.line, r.text) for r in error.remarks] == [
        ("b.yaml", 1, "litellm_config.yaml includes itself"),
        ("litellm_config.yaml", 3, "c.yaml cannot be read: no such file or directory"),
        ("litellm_config.yaml", 4, "include takes a list of files"),
    ]
    assert {path.name for path in error.files} == {"litellm_config.yaml", "b.yaml", "c.yaml"}
    assert "include takes a list" in str(refusal(tmp_path, "include: b.yaml\n"))


def test_an_error_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("model_list:\n  - {model_name: b, litellm_params: {rpm: x}}\n")
    error = refusal(tmp_path, "include: [b.yaml]\n" + MODELS)
    assert {Path(remark.file).name for remark in error.remarks} == {"b.yaml"}
