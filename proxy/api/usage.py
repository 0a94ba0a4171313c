"""
GET /admin/usage: what was used, by whom and of what, in JSON or in CSV.

It goes by whole hours of UTC: all of the hour that `since` lies in counts, and all of the one that
`until` lies in, unless that is its first moment. Requests that made no attempt are known by key,
team, user, model and time only: elsewhere their `admitted` stands under an empty name.

Where replicas share a Redis it is what all of them used, and what is older than a week goes by
whole days of UTC. While that Redis cannot be asked it is what this one used; a note says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from math import ceil

import orjson
from starlette.requests import Request
from starlette.responses import Response

from proxy.api.deps import state_of
from proxy.api.headers import safe
from proxy.api.render import JSON, answer
from proxy.api.small import admin_of
from proxy.errors import RequestInvalid, UsageUnavailable
from proxy.period import FORMS, iso, moment_of
from proxy.statement import csv_line, usage_columns, usage_fields
from proxy.store import HOUR_S, GroupBy, LedgerUnavailable, UsageQuery, UsageReport, hour_of

CSV = (b"content-type", b"text/csv; charset=utf-8")
NOTE = b"x-mobius-note"
FORMATS = ("json", "csv")
DEFAULT_GROUPS = "key,model"
_GROUPS = ", ".join(GroupBy)
QUESTIONS = {  # the parameters there are, and what each may be
    "group_by": f"Any of {_GROUPS}, separated by commas; {DEFAULT_GROUPS} unless given.",
    "since": f"{FORMS[0].upper()}{FORMS[1:]}; the oldest record unless given.",
    "until": "Likewise, and later than `since`; now unless given.",
    "format": f"One of {', '.join(FORMATS)}; {FORMATS[0]} unless given.",
}


async def report(request: Request) -> Response:
    """Answer an administrator. Raises RequestInvalid naming the parameter, UsageUnavailable."""
    admin_of(request)
    state = state_of(request.scope)
    asked = request.query_params
    for name in asked:
        if name not in QUESTIONS:
            raise RequestInvalid(
                f"`{name[:40]}` is not a parameter of this address, which takes "
                f"{', '.join(QUESTIONS)}",
                param=name[:40],
            )
    as_csv = _format_of(asked) == "csv"
    query = _query_of(asked, asked.getlist("group_by"), wall_s=state["clock"].wall())
    try:
        found = await state["usage"].report(query)
    except LedgerUnavailable as exc:
        raise UsageUnavailable(str(exc)) from exc
    # Of many rows it takes a while, in which others are served.
    body = await asyncio.to_thread(_as_csv if as_csv else _as_json, query, found)
    # Beside the body, because a CSV has no place for it.
    note = [(NOTE, safe(found.note))] if found.note else []
    return answer(request, body, headers=[CSV if as_csv else JSON, *note])


def _query_of(asked: Mapping[str, str], groups: Sequence[str], *, wall_s: float) -> UsageQuery:
    since = _moment(asked, "since", wall_s)
    until = _moment(asked, "until", wall_s)
    if until is not None and until <= (since or 0):
        raise RequestInvalid("`until` must be later than `since`", param="until")
    return UsageQuery(_groups_of(groups), since or 0, until)


def _groups_of(given: Sequence[str]) -> tuple[GroupBy, ...]:
    words = [word.strip() for word in ",".join(given or [DEFAULT_GROUPS]).split(",")]
    try:
        return tuple(dict.fromkeys(GroupBy(word) for word in words if word))
    except ValueError as exc:
        wrong = next(word for word in words if word and word not in set(GroupBy))
        text = f"`{wrong[:40]}` in `group_by` is none of {_GROUPS}"
        raise RequestInvalid(text, param="group_by") from exc


def _moment(asked: Mapping[str, str], name: str, wall_s: float) -> float | None:
    text = asked.get(name)
    if not text:
        return None
    try:
        return moment_of(text, wall_s=wall_s)
    except ValueError as exc:
        raise RequestInvalid(f"`{name}`: {exc}", param=name) from exc


def _format_of(asked: Mapping[str, str]) -> str:
    wanted = asked.get("format") or FORMATS[0]
    if wanted not in FORMATS:
        text = f"`format` is `{wanted[:40]}` and must be one of {', '.join(FORMATS)}"
        raise RequestInvalid(text, param="format")
    return wanted


def _as_json(query: UsageQuery, found: UsageReport) -> bytes:
    until = None if query.until is None else ceil(query.until / HOUR_S) * HOUR_S
    return orjson.dumps(
        {
            "rows": [usage_fields(row, query.group_by) for row in found.rows],
            "since": iso(hour_of(query.since)) if query.since else None,
            "until": None if until is None else iso(until),
            "group_by": query.group_by,
            "replicas": found.replicas,
            "note": found.note or None,
        }
    )


def _as_csv(query: UsageQuery, found: UsageReport) -> bytes:
    lines = [csv_line(usage_columns(query.group_by))]
    lines += [csv_line(usage_fields(row, query.group_by).values()) for row in found.rows]
    return "".join(lines).encode()
