"""The report for administrators: what may be asked, what is answered, and what is said else."""

from __future__ import annotations

import csv
from typing import Any
from urllib.parse import urlencode

import pytest

from proxy.store import GroupBy, LedgerUnavailable, UsageQuery, UsageRow
from proxy.types import Caller, Usage
from tests.api.fakes import COMPLETION, Client, Edge, FakeBook, replies, snapshot

pytestmark = pytest.mark.anyio

KEYS = {"sk-web": Caller("web"), "sk-master": Caller("master", admin=True)}
ROWS = [
    UsageRow(("web", "gpt"), 5, 3, 4, Usage(75, 93, cached_tokens=8), 1_117_000, 1, 0),
    UsageRow(('=1+1,"x"', "gpt"), 1, 1, 1, Usage(1, 1), 1, 0, 1),
]
HOUR_S = 3600
NOW_S = 1_800_000_000  # of the edge's clock: the first second of an hour


def edge(book: FakeBook | None = None) -> Edge:
    configured = snapshot("gpt", callers=KEYS)
    return Edge(replies(COMPLETION), configured, book=book or FakeBook(list(ROWS)))


async def ask(server: Edge, key: str = "sk-master", **query: str) -> Client:
    path = f"/admin/usage?{urlencode(query)}"
    return await server.get(path, authorization=f"Bearer {key}").run()


async def test_the_report_is_for_administrators() -> None:
    server = edge()
    assert (await server.get("/admin/usage").run()).status == 401
    refused = await ask(server, "sk-web")
    assert (refused.status, refused.error["code"]) == (403, "admin_key_required")
    assert server.book.asked == []
    assert (await ask(server)).status == 200


async def test_without_a_question_it_is_everything_by_key_and_model() -> None:
    server = edge()
    client = await ask(server)
    assert server.book.asked == [UsageQuery((GroupBy.KEY, GroupBy.MODEL), 0, None)]
    assert client.headers["content-type"] == "application/json"
    found = client.json
    assert {name: found[name] for name in found if name != "rows"} == {
        "since": None,
        "until": None,
        "group_by": ["key", "model"],
        "replicas": 1,
        "note": None,
    }
    assert found["rows"][0] == {
        "key": "web",
        "model": "gpt",
        "requests": 3,
        "attempts": 4,
        "prompt_tokens": 75,
        "completion_tokens": 93,
        "cost_usd": "0.001117",
        "cached_tokens": 8,
        "cache_write_tokens": 0,
        "cache_write_1h_tokens": 0,
        "reasoning_tokens": 0,
        "audio_prompt_tokens": 0,
        "audio_completion_tokens": 0,
        "admitted": 5,
        "estimated": 1,
        "unpriced": 0,
    }
    assert found["rows"][1]["key"] == '=1+1,"x"'
    assert found["rows"][1]["cost_usd"] == "0.000000001"


@pytest.mark.parametrize(
    ("given", "groups"),
    [
        ("day", ["day"]),
        (" team , user ", ["team", "user"]),
        ("key,key,model", ["key", "model"]),
        (",".join(GroupBy), list(GroupBy)),
        ("", []),
    ],
)
async def test_it_is_grouped_by_what_is_named_each_once(given: str, groups: list[str]) -> None:
    server = edge(FakeBook())
    client = await ask(server, group_by=given)
    found = client.json
    assert (found["rows"], found["since"], found["until"]) == ([], None, None)
    assert found["group_by"] == groups
    assert server.book.asked[0].group_by == tuple(groups)


async def test_groups_may_be_named_one_by_one() -> None:
    server = edge(FakeBook())
    path = "/admin/usage?group_by=key&group_by=day,model"
    await server.get(path, authorization="Bearer sk-master").run()
    assert server.book.asked[0].group_by == (GroupBy.KEY, GroupBy.DAY, GroupBy.MODEL)


async def test_a_period_is_told_as_the_whole_hours_that_it_is() -> None:
    server = edge(FakeBook())
    found = (await ask(server, since="2026-01-31T10:20", until="2026-01-31T12:00:01")).json
    assert (found["since"], found["until"]) == ("2026-01-31T10:00:00Z", "2026-01-31T13:00:00Z")
    found = (await ask(server, since="24h", until=str(NOW_S))).json
    assert (found["since"], found["until"]) == ("2027-01-14T08:00:00Z", "2027-01-15T08:00:00Z")
    query = server.book.asked[1]
    assert (query.since, query.until) == (NOW_S - 24 * HOUR_S, NOW_S)


@pytest.mark.parametrize("until", ["9999-12-30T23:59", "2026-01"])
async def test_the_latest_moment_there_is_has_a_name(until: str) -> None:
    assert (await ask(edge(FakeBook()), until=until)).status == 200


@pytest.mark.parametrize(
    ("query", "param", "words"),
    [
        ({"group_by": "key,keys"}, "group_by", "`keys` in `group_by` is none of key, team, user,"),
        ({"group_by": "KEY"}, "group_by", "`KEY` in `group_by`"),
        ({"since": "monday"}, "since", "`since`: `monday` is not a date or time in UTC (2026-01"),
        ({"until": "-1"}, "until", "`until`: `-1` is not"),
        ({"since": "2d", "until": "3d"}, "until", "`until` must be later than `since`"),
        ({"format": "xml"}, "format", "`format` is `xml` and must be one of json, csv"),
        ({"groupby": "key"}, "groupby", "takes group_by, since, until, format"),
        ({"x" * 999: "1"}, "x" * 40, "`" + "x" * 40 + "` is not a parameter"),
    ],
)
async def test_what_cannot_be_asked_is_a_400_with_its_name_and_what_can(
    query: dict[str, str], param: str, words: str
) -> None:
    server = edge()
    client = await ask(server, **query)
    assert client.status == 400
    assert client.error["type"] == "invalid_request_error"
    assert client.error["param"] == param
    assert words in client.error["message"]
    assert server.book.asked == []


async def test_csv_has_the_same_columns_and_no_formula() -> None:
    server = edge()
    client = await ask(server, format="csv")
    assert client.headers["content-type"] == "text/csv; charset=utf-8"
    found = list(csv.DictReader(b"".join(client.bodies).decode().splitlines()))
    told: list[dict[str, Any]] = (await ask(server)).json["rows"]
    told[1]["key"] = '\'=1+1,"x"'
    assert found == [{name: str(value) for name, value in row.items()} for row in told]


async def test_csv_of_nothing_is_its_header() -> None:
    client = await ask(edge(FakeBook()), format="csv", group_by="tag")
    (line,) = b"".join(client.bodies).decode().splitlines()
    assert line.startswith("tag,requests,attempts,prompt_tokens,completion_tokens,cost_usd,")


async def test_a_ledger_that_cannot_be_read_is_a_503_that_says_what_to_do() -> None:
    trouble = LedgerUnavailable("the ledger m.db is not available: mount a volume there")
    client = await ask(edge(FakeBook(trouble=trouble)))
    assert client.status == 503
    assert client.error["code"] == "usage_unavailable"
    assert client.error["message"] == "the ledger m.db is not available: mount a volume there"


async def test_what_is_missing_is_told_in_the_body_and_beside_it() -> None:
    book = FakeBook(list(ROWS), note="This is what one replica alone used: Redis is gone.")
    client = await ask(edge(book))
    assert (client.json["replicas"], client.json["note"]) == (1, book.note)
    assert client.headers["x-mobius-note"] == book.note
    assert (await ask(edge(book), format="csv")).headers["x-mobius-note"] == book.note


async def test_nothing_is_missing_where_all_replicas_are_counted() -> None:
    client = await ask(edge(FakeBook(list(ROWS), replicas=3)))
    assert (client.json["replicas"], client.json["note"]) == (3, None)
    assert "x-mobius-note" not in client.headers
