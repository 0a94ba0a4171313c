"""
What is read back is what was served: the report, the export and the metrics say what the journal
of the provider says, in tokens and in nano-dollars, and they say it again after a restart.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest

from tests.harness import Mobius, mobius_command, total
from tests.harness.child import MOBIUS
from tests.providers import Answer, Entry, Fails, FakeOpenAI, Usage

pytestmark = pytest.mark.e2e

KEYS = {
    "web": "sk-web-0123456789",
    "cli": "sk-cli-0123456789",
    "none": "sk-none-0123456789",
    "master": "sk-master-0123456789",
}
TAGS = {"web": "agent=planner, run=7", "cli": "agent=planner"}
CACHED = Usage(prompt=1000, completion=50, cached=600, reasoning=20)
# Nano-dollars for a token of the prompt, of its cached part, and of the answer.
NANO = {
    "first": (3000, 3000, 15_000),
    "second": (123, 123, 457),
    "third": (2500, 1250, 10_000),
}
BUDGET_NANO = 2 * 10**9


def config(provider: str, ledger: Path) -> dict[str, Any]:
    def model(name: str, target: str) -> dict[str, Any]:
        prompt, cached, completion = (f"{nano}e-9" for nano in NANO[target])
        params = {
            "model": f"openai/{target}",
            "api_base": provider,
            "api_key": "sk-of-the-provider",
            "input_cost_per_token": float(prompt),
            "cache_read_input_token_cost": float(cached),
            "output_cost_per_token": float(completion),
        }
        return {"model_name": name, "litellm_params": params}

    return {
        "model_list": [model("chat", "first"), model("spare", "second"), model("deep", "third")],
        "router_settings": {"fallbacks": [{"chat": ["spare"]}], "num_retries": 0},
        "general_settings": {"master_key": KEYS["master"]},
        "mobius": {
            "laps": 1,
            "ledger": {"path": str(ledger)},
            "keys": [
                {
                    "name": "web",
                    "key": KEYS["web"],
                    "team": "product",
                    "limits": {"rpm": 1000, "budget_usd": {"total": BUDGET_NANO / 1e9}},
                },
                {"name": "cli", "key": KEYS["cli"], "team": "product"},
                {"name": "none", "key": KEYS["none"], "limits": {"rpm": 0}},
            ],
            "teams": [{"name": "product", "limits": {"tpd": 10**9, "budget_usd": {"total": 9}}}],
        },
    }


@dataclass(frozen=True)
class Served:
    """What one attempt took, as its provider has it."""

    key: str
    user: str
    target: str
    stream: bool
    answered: bool
    prompt: int
    completion: int
    cached: int
    reasoning: int

    @property
    def nano(self) -> int:
        prompt, cached, completion = NANO[self.target]
        fresh = self.prompt - self.cached
        return fresh * prompt + self.cached * cached + self.completion * completion


def served(entry: Entry) -> Served:
    key, target = entry.json["messages"][0]["content"], entry.model or ""
    who = (key, entry.json.get("user", ""), target, entry.streams)
    if entry.status != 200:
        return Served(*who, False, 0, 0, 0, 0)
    if target == "third":
        counts = (CACHED.prompt, CACHED.completion, CACHED.cached, CACHED.reasoning)
    else:
        counts = (len(entry.body) // 4, len(entry.tokens_sent), 0, 0)
    return Served(*who, True, *counts)


@dataclass
class Place:
    mobius: Mobius
    provider: FakeOpenAI
    ledger: Path
    config: dict[str, Any]

    @property
    def journal(self) -> list[Served]:
        return [served(entry) for entry in self.provider.journal.requests()]

    def ask(self, key: str, model: str, *, stream: bool = False, user: str = "") -> None:
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": key}],
            "stream": stream,
        }
        headers = {"authorization": f"Bearer {KEYS[key]}", "x-mobius-tag": TAGS[key]}
        response = self.mobius.http.post(
            "/v1/chat/completions",
            json={**body, **({"user": user} if user else {})},
            headers=headers,
        )
        assert response.status_code == 200, response.text

    def get(self, query: str, key: str = "master") -> httpx.Response:
        headers = {"authorization": f"Bearer {KEYS[key]}"}
        return self.mobius.http.get(f"/admin/usage?{query}", headers=headers)

    def rows(self, groups: str) -> dict[tuple[str, ...], dict[str, Any]]:
        response = self.get(f"group_by={groups}")
        assert response.status_code == 200, response.text
        names = groups.split(",") if groups else []
        return {tuple(row[name] for name in names): row for row in response.json()["rows"]}

    def command(self, *args: str) -> CompletedProcess[str]:
        done = mobius_command(*args, config=self.config, env={"MOBIUS_MASTER_KEY": KEYS["master"]})
        assert "Traceback" not in done.stderr
        return done

    def export(self, *args: str) -> str:
        done = self.command("usage", "export", *args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def everything(self) -> dict[str, Any]:
        """All that can be read back."""
        groups = ("key,model", "team", "user,tag", "target,provider", "day,hour")
        return {
            "reports": [self.get(f"group_by={each}").json() for each in groups],
            "rows": self.export(),
        }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Whole answers and streams, for two keys of a team, one failed over to the next target."""
    ledger = tmp_path_factory.mktemp("ledger") / "mobius.db"
    with FakeOpenAI() as provider:
        made = config(provider.base_url, ledger)
        provider.always(Answer(usage=CACHED), model="third")
        with Mobius(made, secrets=tuple(KEYS.values())) as mobius:
            place = Place(mobius, provider, ledger, made)
            for key in ("web", "cli"):
                for stream in (False, True):
                    place.ask(key, "chat", stream=stream, user="ann" if key == "web" else "")
                    place.ask(key, "deep", stream=stream)
            provider.script(Fails(500), Fails(503), model="first")
            place.ask("web", "chat")
            place.ask("cli", "chat", stream=True, user="=HYPERLINK(1)")
            provider.journal.wait_over(12)
            mobius.wait_until(lambda: place.rows("key")[("cli",)]["attempts"] == 6)
            yield place


def assert_equal(row: dict[str, Any], attempts: list[Served]) -> None:
    """The row of a report says what these attempts took."""
    expected = {
        "requests": sum(each.answered for each in attempts),
        "attempts": len(attempts),
        "prompt_tokens": sum(each.prompt for each in attempts),
        "completion_tokens": sum(each.completion for each in attempts),
        "cached_tokens": sum(each.cached for each in attempts),
        "reasoning_tokens": sum(each.reasoning for each in attempts),
        "estimated": 0,
        "unpriced": 0,
    }
    assert {name: row[name] for name in expected} == expected
    assert Decimal(row["cost_usd"]) * 10**9 == sum(each.nano for each in attempts)


def test_what_the_provider_served_is_what_this_test_is_about(place: Place) -> None:
    attempts = place.journal
    assert len(attempts) == 12
    assert Counter(each.answered for each in attempts) == {True: 10, False: 2}
    assert Counter(each.stream for each in attempts if each.answered) == {False: 5, True: 5}
    assert all(each.prompt and each.completion for each in attempts if each.answered)


@pytest.mark.parametrize("key", ["web", "cli"])
def test_a_key_used_what_the_provider_served_it(place: Place, key: str) -> None:
    own = [each for each in place.journal if each.key == key]
    row = place.rows("key")[(key,)]
    assert_equal(row, own)
    assert row["admitted"] == row["requests"] == 5


def test_a_team_used_what_its_keys_used(place: Place) -> None:
    assert_equal(place.rows("team")[("product",)], place.journal)
    assert_equal(place.rows("")[()], place.journal)


@pytest.mark.parametrize(
    "target", [("chat/openai/first", "first"), ("spare/openai/second", "second")]
)
def test_a_target_served_what_its_provider_says(place: Place, target: tuple[str, str]) -> None:
    label, model = target
    own = [each for each in place.journal if each.target == model]
    row = place.rows("provider,target")[("openai", label)]
    assert_equal(row, own)
    assert row["attempts"] - row["requests"] == (2 if model == "first" else 0)


def test_a_model_is_the_one_that_was_asked_for_whoever_answered(place: Place) -> None:
    rows = place.rows("key,model")
    assert set(rows) == {(key, model) for key in ("web", "cli") for model in ("chat", "deep")}
    for (key, model), row in rows.items():
        targets = {"third"} if model == "deep" else {"first", "second"}
        own = [each for each in place.journal if each.key == key and each.target in targets]
        assert_equal(row, own)


def test_an_end_user_and_a_tag_are_told_apart(place: Place) -> None:
    ann = [each for each in place.journal if each.user == "ann"]
    assert_equal(place.rows("user")[("ann",)], ann)
    tags = place.rows("tag")
    assert_equal(tags[("agent=planner",)], place.journal)
    assert_equal(tags[("run=7",)], [each for each in place.journal if each.key == "web"])


def test_the_report_in_csv_says_the_same_and_is_safe_in_a_spreadsheet(place: Place) -> None:
    response = place.get("group_by=user,model&format=csv")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    found = list(csv.DictReader(response.text.splitlines()))
    rows = [
        {name: str(value) for name, value in row.items()}
        for row in place.get("group_by=user,model").json()["rows"]
    ]
    for row in rows:
        row["user"] = row["user"].replace("=HYPER", "'=HYPER")
    assert found == rows
    assert "'=HYPERLINK(1)" in {row["user"] for row in found}


def test_the_export_has_every_attempt_once(place: Place) -> None:
    rows = [json.loads(line) for line in place.export().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows) == 12
    found = Counter(
        Served(
            row["key"],
            row["user"],
            row["target"].rsplit("/", 1)[1],
            False,
            row["answered"],
            *(row[f"{kind}_tokens"] for kind in ("prompt", "completion", "cached", "reasoning")),
        )
        for row in rows
    )
    # A row does not say whether its answer was streamed.
    expected = Counter(Served(**{**_fields(each), "stream": False}) for each in place.journal)
    assert found == expected
    for row in rows:
        assert row["team"] == "product"
        assert row["tags"] == sorted(TAGS[row["key"]].split(", "))
        assert (row["outcome"] == "ok") == row["answered"]
        assert row["estimated"] is False
        assert row["opened_at"] < row["closed_at"]
        assert row["closed_at"].endswith("Z")
        assert Decimal(row["reserved_cost_usd"]) >= Decimal(row["cost_usd"])
    cost = sum(Decimal(row["cost_usd"]) for row in rows)
    assert cost * 10**9 == sum(each.nano for each in place.journal)
    fell = [row for row in rows if row["model"] == "chat" and row["attempt"] == 2]
    assert {row["target"] for row in fell} == {"spare/openai/second"}
    assert {row["request_id"] for row in fell} == {
        row["request_id"] for row in rows if not row["answered"]
    }


def _fields(each: Served) -> dict[str, Any]:
    return {name: getattr(each, name) for name in Served.__dataclass_fields__}


def test_the_export_in_csv_is_the_same_rows(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "usage.csv"
    assert place.export("--format", "csv", "--output", str(file)) == ""
    with file.open(newline="") as text:
        found = list(csv.DictReader(text))
    rows = [json.loads(line) for line in place.export().splitlines()]
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert [row["cost_usd"] for row in found] == [row["cost_usd"] for row in rows]
    assert [row["tags"].split(",") for row in found] == [row["tags"] for row in rows]
    assert {row["user"] for row in found} == {"ann", "", "'=HYPERLINK(1)"}


def test_an_export_takes_the_part_that_is_asked_for(place: Place) -> None:
    rows = [json.loads(line) for line in place.export("--since", "1h").splitlines()]
    middle = rows[6]["closed_at"]
    before = place.export("--until", middle).splitlines()
    after = place.export("--since", middle).splitlines()
    assert [json.loads(line)["id"] for line in before + after] == [row["id"] for row in rows]
    assert len(before) == 6


def test_whoever_has_read_enough_sees_no_traceback(place: Place) -> None:
    mobius = " ".join(MOBIUS)
    export = f"{mobius} usage export --config {place.mobius.config}"
    # As people have it: what is still buffered at the end must not fail a second time.
    script = (
        f"unset PYTHONUNBUFFERED; {export} --format csv | head -1; {export} | true;"
        f"{export} --format csv --until 2026-01 | true; {mobius} usage --help | true"
    )
    done = mobius_command("-c", script, command=("bash",))
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith("id,request_id,attempt,key,")


def test_the_metrics_say_what_was_served(place: Place) -> None:
    samples = place.mobius.metrics()
    for model, targets in {"chat": {"first", "second"}, "deep": {"third"}}.items():
        own = [each for each in place.journal if each.target in targets]
        kinds = {
            "prompt": sum(each.prompt - each.cached for each in own),
            "prompt_cached": sum(each.cached for each in own),
            "completion": sum(each.completion - each.reasoning for each in own),
            "reasoning": sum(each.reasoning for each in own),
        }
        for kind, tokens in kinds.items():
            assert total(samples, "mobius_tokens_total", model=model, kind=kind) == tokens
        for key in ("web", "cli"):
            cost = total(samples, "mobius_cost_usd_total", model=model, key=key)
            assert round(cost * 10**9) == sum(each.nano for each in own if each.key == key)


def test_no_end_user_and_no_tag_is_a_label_of_a_metric(place: Place) -> None:
    page = place.mobius.http.get("/metrics").text
    assert 'key="web"' in page
    assert not [word for word in ("ann", "HYPERLINK", "planner", "run=7") if f'"{word}' in page]


def test_a_refusal_is_counted_by_its_limit_and_is_nobodys_use(place: Place) -> None:
    before = len(place.journal)
    headers = {"authorization": f"Bearer {KEYS['none']}"}
    message = {"role": "user", "content": "hello"}
    body = {"model": "chat", "messages": [message], "user": "bob"}
    for number in (1, 2):
        response = place.mobius.http.post("/v1/chat/completions", json=body, headers=headers)
        assert response.status_code == 429
        refused = {
            pairs: value
            for (name, pairs), value in place.mobius.metrics().items()
            if name == "mobius_quota_refused_total"
        }
        assert refused == {frozenset({("scope", "key"), ("limit", "rpm")}): number}
    assert len(place.journal) == before
    assert ("none",) not in place.rows("key")
    assert remaining(place)["key", "none", "rpm"] == 0


def remaining(place: Place) -> dict[tuple[str, str, str], float]:
    return {
        (labels["scope"], labels["name"], labels["limit"]): value
        for (name, pairs), value in place.mobius.metrics().items()
        if name == "mobius_quota_remaining"
        for labels in [dict(pairs)]
    }


def test_the_gauges_say_what_every_limit_of_the_file_leaves(place: Place) -> None:
    web = sum(each.nano for each in place.journal if each.key == "web")
    found = remaining(place)
    assert set(found) == {
        ("key", "none", "rpm"),
        ("key", "web", "rpm"),
        ("key", "web", "budget_usd.total"),
        ("team", "product", "tpd"),
        ("team", "product", "budget_usd.total"),
    }
    assert round(found["key", "web", "budget_usd.total"] * 10**9) == BUDGET_NANO - web


def test_a_table_in_the_terminal_adds_up(place: Place) -> None:
    done = place.command("usage", "--url", place.mobius.url, "--since", "7d")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[2].split() == [
        *("key", "model", "answered", "attempts", "prompt", "cached", "completion", "reasoning"),
        *("cost", "USD"),
    ]
    key, requests, attempts, *_, cost = lines[-1].split()
    assert (key, requests, attempts) == ("total", "10", "12")
    assert Decimal(cost) * 10**9 == sum(each.nano for each in place.journal)


def test_where_rows_overlap_the_total_is_still_what_was_used(place: Place) -> None:
    done = place.command("usage", "--url", place.mobius.url, "--group-by", "tag")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {line[0]: line[1] for line in lines[-4:] if len(line) > 1} == {
        "agent=planner": "10",
        "run=7": "5",
        "total": "10",
    }


@pytest.mark.parametrize("form", ["json", "csv"])
def test_the_command_gives_the_answer_of_the_server_as_it_is(place: Place, form: str) -> None:
    done = place.command("usage", "--url", place.mobius.url, "--format", form)
    answer = place.get(f"group_by=key,model&format={form}").text
    assert done.stdout.split() == answer.split()


def test_what_is_asked_wrongly_or_by_the_wrong_person_is_told(place: Place) -> None:
    wrong = place.command("usage", "--url", place.mobius.url, "--group-by", "keys")
    assert wrong.returncode == 1
    assert "`keys` in `group_by` is none of key, team, user" in wrong.stderr
    stranger = place.command("usage", "--url", place.mobius.url, "--key", KEYS["web"])
    assert stranger.returncode == 1
    assert "administrator" in stranger.stderr
    assert place.get("", key="web").status_code == 403


def test_all_of_it_is_the_same_after_a_restart(place: Place) -> None:
    before, left = place.everything(), remaining(place)
    assert place.mobius.stop() == 0
    assert place.export() == before["rows"]  # from the file, with no server
    place.mobius.start()
    assert place.everything() == before
    # But for the sliding minute, which is known to the end of it.
    del left["key", "web", "rpm"]
    assert left.items() <= remaining(place).items()


def test_a_ledger_that_cannot_be_used_is_told_and_fails_no_scrape(tmp_path: Path) -> None:
    folder = tmp_path / "mobius.db"
    folder.mkdir()  # which is no file
    with FakeOpenAI() as provider:
        made = config(provider.base_url, folder)
        made["mobius"]["quota"] = {"on_store_failure": "open"}
        with Mobius(made) as mobius:
            place = Place(mobius, provider, folder, made)
            answer = place.get("")
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "usage_unavailable"
            assert "set mobius.ledger.path" in answer.json()["error"]["message"]
            done = place.command("usage", "--url", mobius.url)
            assert done.returncode == 1
            assert "set mobius.ledger.path" in done.stderr
            place.ask("web", "chat")
            assert remaining(place) == {}
            assert total(mobius.metrics(), "mobius_tokens_total", model="chat") > 0
