"""The file that a program reads: every raw round, and where it was measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from statistics import median
from typing import Any

from bench.campaign import Options, Results
from bench.load import Sample, percentile
from bench.versus import Versus, compared

FORMAT = 1  # raised when a name in the file changes its meaning


def write(path: Path, results: Results, options: Options, machine: dict[str, Any]) -> None:
    """`path` holds the whole run, or, when writing fails, what it held before."""
    content = {
        "format": FORMAT,
        "machine": machine,
        "options": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "only": sorted(options.only),
        },
        "rounds": results.rounds,
        "took_s": round(results.took_s, 1),
        "litellm_proxy": {
            "measured": options.peer.command is not None,
            "why": options.peer.missing,
        },
        "samples": [_sample(sample) for sample in results.samples],
        "litellm_proxy_over_mobius": [_versus(each) for each in compared(results.samples)],
        "starts": [dataclasses.asdict(start) for start in results.starts],
        "starts_while_litellm_loads": [dataclasses.asdict(start) for start in results.loading],
        "memory_mib_after_load": results.memory_mib,
        "held": [dataclasses.asdict(each) for each in results.held],
        "streams": [
            dataclasses.asdict(each) | {"stream_kib": round(each.stream_kib, 1)}
            for each in results.streams
        ],
        "cache": [_sample(sample) for sample in results.cache],
        "quota": [dataclasses.asdict(sample) for sample in results.quota],
        "ring": None if results.ring is None else dataclasses.asdict(results.ring),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content, indent=1) + "\n")
    new.replace(path)


def _sample(sample: Sample) -> dict[str, Any]:
    latencies_ms = {
        f"p{share * 100:g}_ms": round(percentile(sample.latencies_ms, share), 4)
        for share in (0.5, 0.9, 0.99)
    }
    return {
        "round": sample.round,
        "kind": sample.case.kind,
        "concurrency": sample.case.concurrency,
        "server": sample.server,
        "answers": len(sample.latencies_ms),
        "wall_s": round(sample.wall_s, 4),
        "cpu_s": round(sample.cpu_s, 2),
        **latencies_ms,
        "max_ms": round(sample.latencies_ms[-1], 4),
        "gap_p50_ms": round(percentile(sample.gaps_ms, 0.5), 4),
        "gap_p99_ms": round(percentile(sample.gaps_ms, 0.99), 4),
    }


def _versus(found: Versus) -> dict[str, Any]:
    return {
        "kind": found.case.kind,
        "concurrency": found.case.concurrency,
        "server": found.server,
        "over": found.opposite[0].server,
        "cpu_by_round": [round(each, 2) for each in found.cpu],
        "cpu": round(median(found.cpu), 2),
        "p50": round(median(found.p50), 2),
    }
