"""The servers of a run: how each is started, and what it is asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import yaml

from bench.child import HOST, Child, held_port
from bench.client import Connection, connected, post
from bench.payload import CLAUDE, Kind, check, question

PATH = "/v1/chat/completions"
MODEL = "bench-model"
RINGS = 8
KEY = "sk-bench"
READINESS = "/health/readiness"
NOTHING_MORE: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Server:
    """Who is asked: its name in the tables, its process, and the model it is asked for."""

    name: str
    child: Child
    model: str = MODEL


@dataclass(frozen=True, slots=True)
class Start:
    """How long one server took to begin, from its first instruction, and what it then weighed."""

    server: str
    ready_s: float  # it says that it is ready
    answer_s: float  # it has answered a request
    memory_mib: float


def request(kind: Kind, model: str = MODEL) -> bytes:
    """Return a whole HTTP request, the same for every server."""
    return post(PATH, KEY, question(model, kind))


@contextlib.contextmanager
def provider(folder: Path) -> Iterator[Child]:
    """Yield the fake provider; asked directly, it is also the least that any path can take."""
    with held_port() as port:
        command = [sys.executable, "-m", "bench.provider", str(port)]
        with Child("direct", port, command, folder) as child:
            child.wait_ready(None)
            yield child


@contextlib.contextmanager
def floor(origin: Child, folder: Path) -> Iterator[tuple[Child, Start]]:
    """Yield the byte-copying pass-through."""
    with held_port() as port:
        base = f"http://{HOST}:{origin.port}"
        command = [sys.executable, "-m", "bench.floor", str(port), base]
        with Child("floor", port, command, folder) as child:
            yield child, begin(child, None)


@contextlib.contextmanager
def mobius(origin: Child, folder: Path) -> Iterator[tuple[Child, Start]]:
    """Yield Mobius with one target of OpenAI's wire format and access keys on."""
    entries = [openai_entry(MODEL, origin.port)]
    with _mobius("mobius", entries, folder) as child:
        yield child, begin(child, READINESS)


@contextlib.contextmanager
def translated(origin: Child, folder: Path) -> Iterator[tuple[Child, Start]]:
    """Yield Mobius as `mobius` does, with a target of Anthropic's wire format."""
    with _mobius("translated", [claude_entry(MODEL, origin.port)], folder) as child:
        yield child, begin(child, READINESS)


@contextlib.contextmanager
def mixed(origin: Child, folder: Path) -> Iterator[Child]:
    """Yield Mobius as `mobius` does, not ready yet, with a target for LiteLLM besides."""
    params = {"model": "gemini/gemini-2.5-flash", "api_key": "sk-provider"}
    entries = [openai_entry(MODEL, origin.port), {"model_name": "other", "litellm_params": params}]
    with _mobius("mixed", entries, folder) as child:
        yield child


@contextlib.contextmanager
def ring(origin: Child, folder: Path) -> Iterator[Child]:
    """
    Yield Mobius with rings whose first target refuses connections and whose second is healthy.

    `MODEL` is the healthy target alone. Each dead one has a path, hence a breaker, of its own.
    """
    with held_port() as dead_port:
        entries = [openai_entry(MODEL, origin.port)]
        for number in range(RINGS):
            entries.append(openai_entry(ring_model(number), dead_port, f"/dead-{number}"))
            entries.append(openai_entry(ring_model(number), origin.port))
        with _mobius("ring", entries, folder) as child:
            child.wait_ready(READINESS)
            yield child


@contextlib.contextmanager
def keeping(place: str, url: str | None, origin: Child, folder: Path) -> Iterator[Child]:
    """Yield Mobius as `mobius` does, with a cache in that place, which is also its name."""
    params = {"type": place, "ttl": 3600} | ({} if url is None else {"url": url})
    caching = {"litellm_settings": {"cache": True, "cache_params": params}}
    entries = [openai_entry(kept_model(kind), origin.port) for kind in Kind]
    with _mobius(place, entries, folder, caching) as child:
        child.wait_ready(READINESS)
        yield child


async def served(origin: Child, kind: Kind) -> int:
    """Return how many answers of that kind the provider has given so far."""
    async with connected(origin.port, 1, Connection) as (connection,):
        answer = await connection.ask(b"GET /served HTTP/1.1\r\n\r\n")
    count: int = json.loads(answer.body)[kind]
    return count


def kept_model(kind: Kind) -> str:
    """Return a model of its own: else the whole answer would be given again as a stream."""
    return f"kept-{kind}"


def ring_model(number: int) -> str:
    return f"ring-{number}"


def openai_entry(model: str, port: int, path: str = "") -> dict[str, Any]:
    base = f"http://{HOST}:{port}{path}/v1"
    return {
        "model_name": model,
        "litellm_params": {"model": f"openai/{MODEL}", "api_base": base, "api_key": "sk-provider"},
    }


def claude_entry(model: str, port: int) -> dict[str, Any]:
    base = f"http://{HOST}:{port}"
    return {
        "model_name": model,
        "litellm_params": {
            "model": f"anthropic/{CLAUDE}",
            "api_base": base,
            "api_key": "sk-provider",
        },
    }


@contextlib.contextmanager
def _mobius(
    name: str,
    entries: list[dict[str, Any]],
    folder: Path,
    more: Mapping[str, Any] = NOTHING_MORE,
) -> Iterator[Child]:
    config: Mapping[str, Any] = {
        "model_list": entries,
        "router_settings": {"routing_strategy": "health-based"},
        "mobius": {
            "keys": [{"name": "bench", "key_sha256": hashlib.sha256(KEY.encode()).hexdigest()}]
        },
        **more,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    with held_port() as port:
        command = [
            sys.executable,
            "-m",
            "proxy",
            "serve",
            "--config",
            str(file),
            "--port",
            str(port),
        ]
        with Child(name, port, command, folder) as child:
            yield child


def begin(child: Child, ready_path: str | None) -> Start:
    """Return how it began. Raises NotServing, and WrongAnswer from its first answer."""
    ready_s = child.wait_ready(ready_path)
    with contextlib.closing(HTTPConnection(HOST, child.port, timeout=60)) as connection:
        ask(connection)
    answer_s = time.monotonic() - child.started_s
    return Start(child.name, ready_s, answer_s, child.memory_mib())


def ask(connection: HTTPConnection) -> None:
    """`MODEL` has answered over that connection. Raises WrongAnswer when it answers otherwise."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    connection.request("POST", PATH, question(MODEL, Kind.UNARY), headers)
    response = connection.getresponse()
    check(Kind.UNARY, response.status, response.read())
