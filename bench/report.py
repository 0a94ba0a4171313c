"""The table that a person reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from bench import cache, versus
from bench.campaign import CASES, Results
from bench.child import TICK_S
from bench.held import STALL_S, Held
from bench.load import LEAST_CPU_S, Case, Sample, percentile
from bench.loading import LoadingStart
from bench.memory import MemorySample
from bench.payload import Kind
from bench.peer import CLAUDE_NAME, NAME, Peer
from bench.quota import QuotaSample, stores_of
from bench.ring import RingTimes
from bench.table import Row, spread, table

SERVERS = ("direct", "floor", "mobius", "translated", NAME, CLAUDE_NAME)
ROUGH = TICK_S / LEAST_CPU_S  # a CPU time that is known less well than this is marked
ROUGH_MARK = "~"
COST_HEAD = (
    "path",
    "conns",
    "server",
    "CPU ms/request",
    "x floor",
    "requests/s",
    "core",
    "p50 ms",
    "p99 ms",
    "gap ms",
)
BUSY_MACHINE = 0.25  # load average per core before the run


def render(results: Results, machine: dict[str, Any], peer: Peer) -> str:
    """Return the whole report."""
    blocks = (
        _head(results, machine),
        "" if peer.command is not None else f"LiteLLM's proxy was not measured: {peer.missing}",
        _costs(results),
        _added(results),
        versus.show(versus.compared(results.samples)),
        "" if results.ring is None else _ring(results.ring),
        _cache(results.cache),
        _quota(results.quota),
        _held(results.held),
        _streams(results.streams),
        _starts(results),
        _loading(results.loading),
    )
    return "\n\n".join(block for block in blocks if block)


def _head(results: Results, machine: dict[str, Any]) -> str:
    packages = machine["packages"]
    lines = [
        f"Mobius {packages['mobius-proxy']}, LiteLLM {packages['litellm']}, "
        f"Python {machine['python']}; {machine['date']}",
        f"{machine['cores']} cores, {machine['cpu']}",
        f"{results.rounds} rounds, {results.took_s:.0f} s in all; "
        "median (least-most) of the rounds, ratios within a round",
    ]
    if machine["load_before"] > BUSY_MACHINE * machine["cores"]:
        lines.append(
            f"NOTE: the machine was busy (load {machine['load_before']}): the ratios hold roughly, "
            "the latencies do not"
        )
    return "\n".join(lines)


def _costs(results: Results) -> str:
    title = "Cost: CPU time of the server (of `direct`: the fake provider's own)"
    groups = list(_groups(results.samples))
    rows = [_cost(*group, _of(results.samples, group[0], "floor")) for group in groups]
    rough = any(ROUGH_MARK in row[3] for row in rows)
    note = f"\n{ROUGH_MARK} a round had too little CPU time: known to {ROUGH:.0%} or worse"
    return table(title, COST_HEAD, rows) + (note if rough else "")


def _cost(case: Case, server: str, samples: Sequence[Sample], floors: Sequence[Sample]) -> Row:
    ratios = [own.cpu_ms / least.cpu_ms for own, least in zip(samples, floors, strict=True)]
    is_rough = server != "direct" and any(sample.cpu_s < LEAST_CPU_S for sample in samples)
    return (
        case.kind,
        str(case.concurrency),
        server,
        spread([sample.cpu_ms for sample in samples], 3) + ROUGH_MARK * is_rough,
        "" if server == "direct" else spread(ratios, 2),
        f"{median(sample.per_s for sample in samples):.0f}",
        f"{median(sample.busy for sample in samples):.0%}",
        f"{_p50_ms(samples):.2f}",
        f"{_p99_ms(samples):.2f}",
        f"{_gap_p99_ms(samples):.0f}" if case.kind is Kind.PACED else "",
    )


def _added(results: Results) -> str:
    head = ("path", "server", "p50 ms", "p99 ms", "over direct p50", "p99", "over floor p50", "p99")
    rows = []
    for case, server, samples in _groups(results.samples):
        if case.concurrency != 1:
            continue
        row = [case.kind, server, f"{_p50_ms(samples):.2f}", f"{_p99_ms(samples):.2f}"]
        for other in ("direct", "floor"):
            others = _of(results.samples, case, other)
            differs = SERVERS.index(other) < SERVERS.index(server)
            row += _over(samples, others) if differs else ["", ""]
        rows.append(tuple(row))
    title = "Added latency: one request at a time (p99 over all rounds together)"
    return table(title, head, rows)


def _over(samples: Sequence[Sample], others: Sequence[Sample]) -> list[str]:
    pairs = zip(samples, others, strict=True)
    added_ms = [_p50_ms([own]) - _p50_ms([other]) for own, other in pairs]
    return [spread(added_ms, 2), f"{_p99_ms(samples) - _p99_ms(others):.2f}"]


def _cache(samples: Sequence[Sample]) -> str:
    head = (
        "path",
        "conns",
        "server",
        "CPU ms/request",
        "x floor",
        "requests/s",
        "p50 ms",
        "p99 ms",
    )
    rows = []
    for case in cache.CASES:
        floors = _of(samples, case, "floor")
        for server in cache.SERVERS:
            if own := _of(samples, case, server):
                row = _cost(case, server, own, floors)
                rows.append((*row[:6], *row[7:9]))
    return table("Cache: a hit, kept in the process or on a Redis", head, rows)


def _quota(samples: Sequence[QuotaSample]) -> str:
    head = ("store", "at once", "CPU ms/request")
    rows = []
    for store, concurrency in stores_of(samples):
        own = [each for each in samples if (each.store, each.concurrency) == (store, concurrency)]
        rows.append((store, str(concurrency), spread([each.cpu_ms for each in own], 3)))
    return table("Quota and ledger: what they add to a request", head, rows)


def _ring(times: RingTimes) -> str:
    head = ("asked", "requests", "p50 ms", "p99 ms", "over alone p50")
    named = {
        "the healthy target alone": times.alone_ms,
        "dead first: the first contact": times.first_ms,
        "dead first: breaker closed": times.closed_ms,
        "dead first: breaker open": times.open_ms,
        "dead first: a probe": times.probe_ms,
    }
    alone_ms = median(times.alone_ms)
    rows = []
    for name, took_ms in named.items():
        if took_ms:
            p50_ms, p99_ms = median(took_ms), percentile(sorted(took_ms), 0.99)
            added = "" if took_ms is times.alone_ms else f"{p50_ms - alone_ms:+.2f}"
            rows.append((name, str(len(took_ms)), f"{p50_ms:.2f}", f"{p99_ms:.2f}", added))
    return table("Ring: the first provider refuses connections (unary, one at a time)", head, rows)


def _held(samples: Sequence[Held]) -> str:
    floors = {each.turn: each.streams for each in samples if each.server == "floor"}
    rows = []
    for server in SERVERS:
        if own := [each for each in samples if each.server == server]:
            streams = [each.streams for each in own]
            over = [each.streams / floors[each.turn] for each in own]
            more = "" if all(each.ended for each in own) else "no more were tried"
            rows.append((server, spread(streams, 0), spread(over, 2), more))
    head = ("server", "streams", "x floor", "")
    return table(f"Held: paced streams without a silence over {STALL_S * 1000:.0f} ms", head, rows)


def _streams(samples: Sequence[MemorySample]) -> str:
    head = ("server", "streams", "events of each", "before MiB", "at most MiB", "KiB a stream")
    rows = [
        (
            each.server,
            str(each.streams),
            str(each.events),
            f"{each.before_mib:.0f}",
            f"{each.peak_mib:.0f}",
            f"{each.stream_kib:.0f}",
        )
        for each in samples
    ]
    return table("Memory: long streams, all under way at once", head, rows)


def _starts(results: Results) -> str:
    head = ("server", "ready s", "first answer s", "memory MiB", "after the load")
    rows = []
    for server in SERVERS:
        starts = [start for start in results.starts if start.server == server]
        if not starts:
            continue
        after_mib = results.memory_mib.get(server)
        rows.append(
            (
                server,
                spread([start.ready_s for start in starts], 2),
                spread([start.answer_s for start in starts], 2),
                f"{median(start.memory_mib for start in starts):.0f}",
                "" if after_mib is None else f"{after_mib:.0f}",
            )
        )
    return table("Start: from the first instruction; resident memory", head, rows)


def _loading(starts: Sequence[LoadingStart]) -> str:
    if not starts:
        return ""
    head = ("first answer s", "then loading", "slowest answer ms", "all ready s", "memory MiB")
    row = (
        spread([start.answer_s for start in starts], 2),
        " ".join(sorted({lane for start in starts for lane in start.loading})) or "nothing",
        spread([start.slowest_ms for start in starts], 0),
        spread([start.ready_s for start in starts], 2),
        f"{median(start.memory_mib for start in starts):.0f}",
    )
    title = "Start where another target needs LiteLLM: the answers of one that does not"
    return table(title, head, [row])


def _groups(samples: Sequence[Sample]) -> Iterator[tuple[Case, str, list[Sample]]]:
    for case in CASES:
        for server in SERVERS:
            if found := _of(samples, case, server):
                yield case, server, found


def _of(samples: Iterable[Sample], case: Case, server: str) -> list[Sample]:
    return [sample for sample in samples if (sample.case, sample.server) == (case, server)]


def _p50_ms(samples: Iterable[Sample]) -> float:
    return median(percentile(sample.latencies_ms, 0.5) for sample in samples)


def _p99_ms(samples: Iterable[Sample]) -> float:
    """Of all rounds together: one round may hold too few answers to have one."""
    return percentile(sorted(each for sample in samples for each in sample.latencies_ms), 0.99)


def _gap_p99_ms(samples: Iterable[Sample]) -> float:
    return percentile(sorted(each for sample in samples for each in sample.gaps_ms), 0.99)
