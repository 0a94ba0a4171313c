"""Rings to be broken: many small ones behind one Mobius, each for one test only.

What is known of a target's health outlives a request, so no two tests share a target: every ring
has models and keys of its own, and a test takes the next one of the shape that it needs. The fakes
are shared; they are scripted and asked by model.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.harness import Mobius, total
from tests.providers import (
    Answer,
    Entry,
    FakeAnthropic,
    FakeOpenAI,
    FakeProvider,
    Step,
    closed_port,
    unanswered_port,
)

MASTER_KEY = "sk-master-of-the-tests"
WILDCARDS = ("any-*", "other-*")  # two names for whatever model of one place
SAID = "t0 t1 t2 t3 t4 "  # what a fake answers when it is not told otherwise
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]

ways = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


@dataclass(frozen=True, slots=True)
class Shape:
    """What a ring is made of, as names of places, in the order in which they are to be asked.

    `own` is the group that is asked for; every name in the other fields is a group of its own.
    """

    own: tuple[str, ...]
    general: tuple[str, ...] = ()
    oversized: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    one_model: bool = False  # all targets of one place stand for the same model
    one_key: bool = False  # all targets use the same key
    first: tuple[tuple[str, Any], ...] = ()  # litellm_params of the first target
    every: tuple[tuple[str, Any], ...] = ()  # litellm_params of all targets
    windows: tuple[int | None, ...] = ()  # max_input_tokens, target by target


OPENAI = Shape(("openai",))
ANTHROPIC = Shape(("anthropic",))
OPENAI_FIRST = Shape(("openai",), general=("backup",))
ANTHROPIC_FIRST = Shape(("anthropic",), general=("backup",))
# One group, two providers: the order within it is the order of the file.
TOGETHER = Shape(("openai", "anthropic"))
ALONE = {"openai": OPENAI, "anthropic": ANTHROPIC}
FIRST = {"openai": OPENAI_FIRST, "anthropic": ANTHROPIC_FIRST}


def both_ways(name: str, values: Iterable[Any], *, streamed: Iterable[Any]) -> pytest.MarkDecorator:
    """Each value for a whole answer, and some of them for a stream as well."""
    cases = [*((value, False) for value in values), *((value, True) for value in streamed)]
    return pytest.mark.parametrize((name, "stream"), cases)


suspects = pytest.mark.parametrize("suspect", ["openai", "anthropic"])


@dataclass(frozen=True, slots=True)
class Place:
    """One target of a ring; `fake` is None where nobody listens."""

    fake: FakeProvider | None
    model: str
    label: str
    key: str

    def script(self, *steps: Step) -> None:
        """The next requests are answered by these steps."""
        self._fake.script(*steps, model=self.model)

    def always(self, step: Step) -> None:
        """Every request is answered by this step."""
        self._fake.always(step, model=self.model)

    @property
    def requests(self) -> list[Entry]:
        """What arrived here, by model and key."""
        if self.fake is None:
            return []
        return [
            entry
            for entry in self.fake.journal.requests(self.model)
            if self.key in (_bearer(entry), entry.headers.get("x-api-key"))
        ]

    @property
    def _fake(self) -> FakeProvider:
        assert self.fake is not None, "nobody listens here"
        return self.fake


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client learnt from an answer. `trail` has a target's number for its label."""

    headers: Mapping[str, str]
    trail: list[str]

    @property
    def retry_after_s(self) -> float | None:
        """`retry-after-ms`, which is the same as `retry-after` but finer."""
        text = self.headers.get("retry-after-ms")
        return None if text is None else int(text) / 1000

    @property
    def sdk_may_retry(self) -> bool:
        return self.headers.get("x-should-retry") != "false"


@dataclass(frozen=True, slots=True)
class Answered(Heard):
    """A whole answer, as the SDK read it."""

    text: str
    finish: str | None
    usage: Any = None
    target: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal(Heard):
    """An error, as the SDK raised it."""

    raised: type[openai.APIStatusError]
    status: int
    code: str | None
    type: str | None
    message: str
    param: str | None


@dataclass(frozen=True, slots=True)
class Trial:
    """A ring of one's own, and a client that asks it."""

    name: str
    places: tuple[Place, ...]
    client: openai.OpenAI = field(repr=False)

    @property
    def asked(self) -> list[int]:
        """The targets that were really asked, by number, in the order the requests arrived in."""
        arrived = [
            (entry.t_received, number)
            for number, place in enumerate(self.places)
            for entry in place.requests
        ]
        return [number for _, number in sorted(arrived)]

    def ask(self, *, stream: bool = False, **more: Any) -> Answered:
        """The whole answer; raises what the SDK raises."""
        body = {"model": self.name, "messages": HELLO, "stream": stream, **more}
        create: Any = self.client.chat.completions.with_raw_response.create
        response = create(**body)
        text, finish, usage = _read(response.parse(), stream=stream)
        headers = dict(response.headers)
        label = headers.get("x-mobius-target", "")
        target = [place.label for place in self.places].index(label)
        return Answered(headers, self._trail(headers), text, finish, usage, target)

    def refused(self, *, stream: bool = False, **more: Any) -> Refusal:
        """The error; no key of ours is in it."""
        with pytest.raises(openai.APIStatusError) as caught:
            self.ask(stream=stream, **more)
        error = caught.value
        headers = dict(error.response.headers)
        for place in self.places:
            assert place.key not in error.response.text + str(headers)
        return Refusal(
            headers,
            self._trail(headers),
            type(error),
            error.status_code,
            error.code,
            error.type,
            error.response.json()["error"]["message"],
            error.param,
        )

    def _trail(self, headers: Mapping[str, str]) -> list[str]:
        numbers = {place.label: str(number) for number, place in enumerate(self.places)}
        entries = [e.rpartition(":") for e in headers.get("x-mobius-attempts", "").split(",") if e]
        return [f"{numbers[label]}:{outcome}" for label, _, outcome in entries]


class Lab:
    """Three fakes, places where nobody answers, and one Mobius with so many rings of each shape."""

    def __init__(self, shapes: Mapping[Shape, int], settings: Mapping[str, Any]) -> None:
        self.openai = FakeOpenAI()
        self.anthropic = FakeAnthropic()
        self.backup = FakeOpenAI()
        self._shapes = shapes
        self._settings = settings
        self._numbers = count()
        self._rings: dict[Shape, deque[Trial]] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[Lab]:
        """Everything is up and warm; afterwards no request is under way and no key was told."""
        with contextlib.ExitStack() as stack:
            for fake in (self.openai, self.anthropic, self.backup):
                stack.enter_context(fake)
            self._bases = self._find_bases(
                stack.enter_context(closed_port()), stack.enter_context(unanswered_port())
            )
            config, planned = self._config()
            keys = {place.key for _, _, places in planned for place in places} | {MASTER_KEY}
            env = {_variable(key): key for key in keys}
            self.mobius = stack.enter_context(Mobius(config, env=env, secrets=[*keys]))
            self.client = self.mobius.openai(api_key=MASTER_KEY)
            for shape, name, places in planned:
                trial = Trial(name, places, self.client)
                self._rings.setdefault(shape, deque()).append(trial)
            self._warm()
            yield self
            self.mobius.wait_until(self._idle, what="no request under way")

    def take(self, shape: Shape) -> Trial:
        """A ring of this shape that nobody has used yet."""
        rings = self._rings.get(shape)
        assert rings, f"all rings of {shape} are used: declare more of them"
        return rings.popleft()

    def memory_bytes(self) -> int:
        """What the process holds now; from here on its peak is measured."""
        Path(f"/proc/{self.mobius.pid}/clear_refs").write_text("5")
        return self._memory_bytes("VmRSS")

    def peak_bytes(self) -> int:
        """The most that the process held at once since `memory_bytes` was asked."""
        return self._memory_bytes("VmHWM")

    def _memory_bytes(self, name: str) -> int:
        lines = Path(f"/proc/{self.mobius.pid}/status").read_text().splitlines()
        line = next(line for line in lines if line.startswith(f"{name}:"))
        return int(line.split()[1]) * 1024

    def _idle(self) -> bool:
        return total(self.mobius.metrics(), "mobius_in_flight_requests") == 0

    def _warm(self) -> None:
        # The first call of a provider makes LiteLLM import what it needs for it.
        for shape in (OPENAI, ANTHROPIC):
            trial = self.take(shape)
            for stream in (False, True):
                assert trial.ask(stream=stream).text == SAID

    def _find_bases(self, closed: int, unanswered: int) -> dict[str, _Base]:
        own = f"127.0.0.1:{self.openai.port}"
        return {
            "openai": _Base("openai", self.openai.base_url, self.openai),
            "backup": _Base("openai", self.backup.base_url, self.backup),
            "anthropic": _Base("anthropic", self.anthropic.base_url, self.anthropic),
            "closed": _Base("openai", f"http://127.0.0.1:{closed}/v1"),
            "closed anthropic": _Base("anthropic", f"http://127.0.0.1:{closed}"),
            "unanswered": _Base("openai", f"http://127.0.0.1:{unanswered}/v1"),
            "nameless": _Base("openai", "http://name.invalid/v1"),
            "nameless anthropic": _Base("anthropic", "https://name.invalid"),
            # TLS is expected where plain HTTP is spoken.
            "tls": _Base("openai", f"https://{own}/v1", self.openai),
            "tls anthropic": _Base(
                "anthropic", f"https://127.0.0.1:{self.anthropic.port}", self.anthropic
            ),
        }

    def _config(self) -> tuple[dict[str, Any], list[tuple[Shape, str, tuple[Place, ...]]]]:
        models: list[dict[str, Any]] = []
        fallbacks: dict[str, list[dict[str, list[str]]]] = {
            "fallbacks": [],
            "context_window_fallbacks": [],
            "content_policy_fallbacks": [],
        }
        planned = []
        wanted = [*self._shapes.items(), (OPENAI, 1), (ANTHROPIC, 1)]  # two to warm up with
        for shape in [shape for shape, number in wanted for _ in range(number)]:
            name, groups = f"ring-{next(self._numbers)}", [*shape.own]
            places = []
            lists = (shape.general, shape.oversized, shape.content)
            for kind, names in zip(fallbacks, lists, strict=True):
                more = [f"{name}-after-{len(groups) + at}" for at in range(len(names))]
                if more:
                    fallbacks[kind].append({name: more})
                groups += names
            for at, where in enumerate(groups):
                group = name if at < len(shape.own) else f"{name}-after-{at}"
                model, place = self._target(shape, name, group, at, where)
                models.append(model)
                places.append(place)
            planned.append((shape, name, tuple(places)))
        anything = {
            "model": "openai/*",
            "api_key": f"os.environ/{_variable(MASTER_KEY)}",
            "api_base": self.openai.base_url,
        }
        models += [{"model_name": name, "litellm_params": anything} for name in WILDCARDS]
        config = {
            "model_list": models,
            "router_settings": {"routing_strategy": "health-based", **fallbacks},
            "general_settings": {"master_key": f"os.environ/{_variable(MASTER_KEY)}"},
            "mobius": dict(self._settings),
        }
        return config, planned

    def _target(
        self, shape: Shape, name: str, group: str, at: int, where: str
    ) -> tuple[dict[str, Any], Place]:
        base = self._bases[where]
        model = f"{where.replace(' ', '-')}-{name}" + ("" if shape.one_model else f"-{at}")
        key = f"sk-key-of-{name}" + ("" if shape.one_key else f"-{at}")
        params = {
            "model": f"{base.provider}/{model}",
            "api_key": f"os.environ/{_variable(key)}",
            "api_base": base.url,
            **dict(shape.every),
            **(dict(shape.first) if at == 0 else {}),
        }
        entry: dict[str, Any] = {"model_name": group, "litellm_params": params}
        if at < len(shape.windows) and shape.windows[at] is not None:
            entry["model_info"] = {"max_input_tokens": shape.windows[at]}
        again = f"#{at + 1}" if shape.one_model and group == name and at else ""
        label = f"{group}/{base.provider}/{model}{again}"
        return entry, Place(base.fake, model, label, key)


@dataclass(frozen=True, slots=True)
class _Base:
    provider: str
    url: str
    fake: FakeProvider | None = None


def lab(shapes: Mapping[Shape, int], **settings: Any) -> contextlib.AbstractContextManager[Lab]:
    """A running lab. Waits are short, and retries are not rationed unless a test is about that."""
    usual = {"backoff_base": 0.001, "retry_budget": {"share": 1, "min": 10_000}}
    return Lab(shapes, {**usual, **settings}).running()


def answers(body: Mapping[str, Any] | bytes, **more: Any) -> Answer:
    """An answer of status 200 with this body, whole or streamed."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(raw_body=raw, **more)


def _read(parsed: Any, *, stream: bool) -> tuple[str, str | None, Any]:
    if not stream:
        choice = parsed.choices[0]
        return choice.message.content or "", choice.finish_reason, parsed.usage
    text, finish, usage = "", None, None
    with parsed:
        for chunk in parsed:
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
            usage = chunk.usage or usage
    return text, finish, usage


def _variable(key: str) -> str:
    return key.upper().replace("-", "_")


def _bearer(entry: Entry) -> str:
    return entry.headers.get("authorization", "").removeprefix("Bearer ")


def within(seconds: float | None, least: float, most: float) -> bool:
    """A span told by the gateway lies in these bounds; what has passed meanwhile is no matter."""
    return seconds is not None and least < seconds <= most
