"""The file is edited while requests are under way: nobody fails, and nobody gets two of them mixed.

Each revision of the file has model names and keys of its own, so that the providers' journals say
which revision served a request.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.stream_checks import Listener, Overheard, Visitor, check_whole, target
from tests.harness import Mobius, total, wait_until
from tests.harness.config_file import EditKind, as_yaml
from tests.providers import Answer, Breaks, Entry, Fails, FakeOpenAI, Gate, Journal, openai_errors

pytestmark = pytest.mark.e2e

IN_FORCE_S = 10.0  # an edit that is in force by then was noticed; how soon is the benchmark's
WORKERS = 4
EDITS = 20
PROOF_EDITS = 200
REFUSALS = {
    "a refused key": Fails(401),
    "a forbidden key": Fails(403),
    "an empty account": openai_errors.insufficient_quota(),
}
# An empty account rests with every target on its key: each test has two of its own.
VARIABLES = {
    refusal: (
        (f"OLD_KEY_{at}", f"sk-old-variable-{at}"),
        (f"NEW_KEY_{at}", f"sk-new-variable-{at}"),
    )
    for at, refusal in enumerate(REFUSALS)
}
Config = dict[str, Any]
REVISIONS = count(1)


@dataclass(frozen=True)
class Place:
    """A Mobius with a first and a second provider, and a revision of its file in force."""

    mobius: Mobius
    first: FakeOpenAI
    second: FakeOpenAI
    secret: Path  # a file that MOUNTED_KEY_FILE names

    def config(self, revision: int, order: str = "first second", **mobius: Any) -> Config:
        """`chat` goes to the first provider, then to the second, or the other way round."""
        one, other = order.split()
        return {
            "model_list": [
                self._target(one, revision, name="chat"),
                self._target(other, revision, name="spare"),
            ],
            "router_settings": {"num_retries": 0, "fallbacks": [{"chat": ["spare"]}]},
            "mobius": {"laps": 1, "breaker": {"failures": 1000, "min_calls": 1000}, **mobius},
        }

    def _target(self, where: str, revision: int, name: str) -> Config:
        fake = self.first if where == "first" else self.second
        key = f"sk-{where}-{revision}"
        return target(f"openai/{where}-{revision}", fake.base_url, name=name, api_key=key)

    def apply(self, config: Config, how: EditKind = "rename") -> None:
        """The file says this, and it is in force."""
        before = self.generation
        self.mobius.edit(config, how)
        self.wait_in_force(before)

    def wait_in_force(self, before: int) -> None:
        """A newer revision than that is in force."""
        wait_until(lambda: self.generation > before, IN_FORCE_S, "the edit")

    @property
    def generation(self) -> int:
        """Which configuration is in force, counted from the start."""
        return int(self.readiness["generation"])

    @property
    def readiness(self) -> dict[str, Any]:
        """What a load balancer hears."""
        answer = self.mobius.http.get("/health/readiness")
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found

    def reloads(self, result: str) -> float:
        """How many came to that."""
        return total(self.mobius.metrics(), "mobius_config_reload_total", result=result)

    def ask(self) -> str:
        """Which model of which provider answers now."""
        answer = self.mobius.http.post("/v1/chat/completions", json=asking("hi"))
        assert answer.status_code == 200, answer.text
        model: str = answer.json()["model"]
        return model


def asking(content: str, *, stream: bool = False) -> Config:
    """A request's body."""
    messages = [{"role": "user", "content": content}]
    return {"model": "chat", "stream": stream, "messages": messages}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    secret = tmp_path_factory.mktemp("secrets") / "key"
    variables = dict(pair for pairs in VARIABLES.values() for pair in pairs)
    env = {**variables, "MOUNTED_KEY_FILE": str(secret)}
    with FakeOpenAI() as first, FakeOpenAI() as second:
        config = Place(None, first, second, secret).config(0)  # type: ignore[arg-type]
        with Mobius(config, layout="configmap", env=env) as mobius:
            yield Place(mobius, first, second, secret)


@pytest.fixture
def place(running: Place) -> Place:
    for fake in (running.first, running.second):
        fake.reset_script()
        fake.journal.clear()
    return running


@pytest.mark.parametrize("how", ["save", "rename", "configmap"])
def test_after_a_save_the_fallbacks_go_the_other_way_round(place: Place, how: EditKind) -> None:
    for order in ("second first", "first second") * 2:
        revision = next(REVISIONS)
        place.mobius.edit(place.config(revision, order), how)
        wanted = f"{order.split()[0]}-{revision}"
        wait_until(lambda wanted=wanted: place.ask() == wanted, IN_FORCE_S, how)  # type: ignore[misc]


def test_a_reload_that_was_asked_for_is_in_force_when_it_is_answered(place: Place) -> None:
    for _ in range(5):
        revision = next(REVISIONS)
        place.mobius.edit(place.config(revision), "save")
        answer = place.mobius.http.post("/admin/reload").json()
        assert answer["error"] is None
        assert answer["result"] in {"ok", "unchanged"}  # the watch may have been faster
        assert place.ask() == f"first-{revision}"


def test_a_hang_up_reads_the_file_again_and_harms_nobody(place: Place) -> None:
    revision = next(REVISIONS)
    place.mobius.edit(place.config(revision), "rename")
    for _ in range(10):
        place.mobius.signal(signal.SIGHUP)
    wait_until(lambda: place.ask() == f"first-{revision}", IN_FORCE_S, "SIGHUP")


def test_a_stream_in_flight_ends_as_it_began(place: Place) -> None:
    old, new = next(REVISIONS), next(REVISIONS)
    place.apply(place.config(old))
    gate = Gate()
    place.first.script(Answer(tokens=20, gate=gate, gate_after_tokens=10))

    async def hear(listener: Listener) -> Overheard:
        return await listener.stream("chat", f"old-{old}")

    def meanwhile() -> None:
        place.first.journal.wait(
            lambda journal: len(journal) and len(journal.last.tokens_sent) == 10
        )
        place.apply(place.config(new, "second first"))
        assert place.ask() == f"second-{new}"
        gate.open()

    heard = asyncio.run(_with(place.mobius.url, hear, meanwhile))
    check_whole(heard, 20)
    assert heard.headers["x-mobius-target"] == f"chat/openai/first-{old}"
    assert {chunk.model for chunk in heard.chunks} == {f"first-{old}"}


def test_a_request_in_flight_falls_back_as_its_own_revision_says(place: Place) -> None:
    old, new = next(REVISIONS), next(REVISIONS)
    place.apply(place.config(old))
    gate = Gate()
    place.first.script(Fails(500, gate=gate))
    with Visitor(place.mobius.port, "chat") as visitor:
        place.first.journal.wait_received()
        place.apply(place.config(new))
        gate.open()
        assert f'"model": "second-{old}"'.encode() in visitor.read_until(b"}}")
    assert [entry.model for entry in place.second.journal.requests()] == [f"second-{old}"]


async def _with(
    url: str, hear: Callable[[Listener], Any], meanwhile: Callable[[], None]
) -> Overheard:
    async with Listener(url) as listener:
        heard, _ = await asyncio.gather(hear(listener), asyncio.to_thread(meanwhile))
        found: Overheard = heard
        return found


def test_a_breaker_stays_open_over_edits(place: Place) -> None:
    revision = next(REVISIONS)
    strict: Config = {"breaker": {"failures": 1, "rest": 600, "rest_cap": 600}}
    place.apply(place.config(revision, **strict))
    place.first.script(Breaks(0, "ends"))
    assert place.ask() == f"second-{revision}"
    for grace in (31, 32, 33):
        place.apply(place.config(revision, grace=grace, **strict))
        assert place.ask() == f"second-{revision}"
    (unhealthy,) = place.mobius.http.get("/health").json()["unhealthy_endpoints"]
    assert unhealthy["target"] == f"chat/openai/first-{revision}"
    assert len(place.first.journal) == 1


def test_another_limit_of_an_answer_holds_from_the_next_request_on(place: Place) -> None:
    for answer_mb, order in ((1, "first"), (0.01, "second"), (1, "first"), (0.05, "second")) * 2:
        revision = next(REVISIONS)
        place.apply(place.config(revision, limits={"answer_mb": answer_mb}))
        place.first.script(Answer(text="a" * 100_000))
        assert place.ask() == f"{order}-{revision}"
        assert place.first.steps_left == 0


@pytest.mark.parametrize("where", ["the file itself", "another variable", "a mounted secret"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_another_key_ends_the_rest_that_the_old_one_earned(
    place: Place, refusal: str, where: str
) -> None:
    revision = next(REVISIONS)
    old, new = f"sk-old-{revision}", f"sk-new-{revision}"
    before, after = old, new
    if where == "a mounted secret":
        before = after = "os.environ/MOUNTED_KEY"
    if where == "another variable":
        (before, old), (after, new) = VARIABLES[refusal]
        before, after = f"os.environ/{before}", f"os.environ/{after}"
    place.secret.write_text(old)
    place.apply(_with_key(place.config(revision), before))
    place.mobius.http.post("/admin/reload")  # the secret's own change may have been what was seen
    place.first.script(REFUSALS[refusal])
    for _ in range(3):
        assert place.ask() == f"second-{revision}"
    assert _keys(place) == [old]
    generation = place.generation
    if where == "a mounted secret":
        place.secret.write_text(f"{new}\n")
    else:
        place.mobius.edit(_with_key(place.config(revision), after), "rename")
    place.wait_in_force(generation)
    assert place.ask() == f"first-{revision}"
    assert _keys(place) == [old, new]


def test_a_secret_emptied_or_gone_is_shown_and_its_former_content_counts(place: Place) -> None:
    revision = next(REVISIONS)
    place.secret.write_text("sk-mounted")
    place.apply(_with_key(place.config(revision), "os.environ/MOUNTED_KEY"))
    for lose in (lambda: place.secret.write_text(""), place.secret.unlink):
        lose()
        answer = place.mobius.http.post("/admin/reload").json()
        assert "MOUNTED_KEY_FILE" in answer["error"]
        assert "MOUNTED_KEY_FILE" in place.readiness["config_error"]
        assert place.ask() == f"first-{revision}"
    place.secret.write_text("sk-mounted")
    assert place.mobius.http.post("/admin/reload").json()["error"] is None
    assert set(_keys(place)) == {"sk-mounted"}


def _with_key(config: Config, key: str) -> Config:
    config["model_list"][0]["litellm_params"]["api_key"] = key
    return config


def _keys(place: Place) -> list[str]:
    """The keys that the first provider was asked with, one after the other."""
    entries = place.first.journal.requests()
    return [entry.headers["authorization"].removeprefix("Bearer ") for entry in entries]


BROKEN = ("no YAML", "cut short", "a misspelt name", "an unknown fallback", "no number", "empty")


def _broken(config: Config, number: int) -> str:
    """The file, broken in one of many ways; each of them names its line."""
    text = as_yaml(config)
    match number % len(BROKEN):
        case 5:
            return ""
        case 0:
            return text + "router_settings: [\n"
        case 1:
            return text[: text.index("breaker") + 3]
        case 2:
            return text.replace("num_retries", "num_retriez")
        case 3:
            return text.replace("- spare", "- nobody")
        case _:
            return text.replace("failures: 1000", "failures: many")


@pytest.mark.parametrize("number", range(len(BROKEN)), ids=BROKEN)
def test_a_broken_edit_changes_nothing_and_is_shown(place: Place, number: int) -> None:
    revision = next(REVISIONS)
    place.apply(place.config(revision))
    errors, logged = place.reloads("error"), place.mobius.log.count('"result":"error"')
    place.mobius.edit(_broken(place.config(next(REVISIONS)), number), "save")
    error = wait_until(lambda: place.readiness["config_error"], IN_FORCE_S, "the error")
    assert "litellm_config.yaml:" in error
    assert place.readiness["status"] == "ready"
    assert place.reloads("error") == errors + 1
    assert place.mobius.log.count('"result":"error"') == logged + 1
    assert place.ask() == f"first-{revision}"
    place.apply(place.config(next(REVISIONS)))
    assert place.readiness["config_error"] is None


@dataclass
class Load:
    """Requests without a pause, from a thread of their own, until the block ends."""

    url: str
    sent: int = 0
    failed: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._over.set()
        self._thread.join()

    async def _run(self) -> None:
        async with aiohttp.ClientSession(base_url=self.url) as session:
            await asyncio.gather(*(self._work(session, stream=n % 2 > 0) for n in range(WORKERS)))

    async def _work(self, session: aiohttp.ClientSession, *, stream: bool) -> None:
        while not self._over.is_set():
            self.sent += 1
            body = asking(f"request {self.sent}", stream=stream)
            async with session.post("/v1/chat/completions", json=body) as answer:
                text = await answer.text()
            ending = "data: [DONE]\n\n" if stream else "}}"
            if answer.status != 200 or not text.endswith(ending) or text.count("t4 ") != 1:
                self.failed.append(f"{answer.status}: {text[-300:]}")


@pytest.mark.parametrize(
    "edits", [EDITS, pytest.param(PROOF_EDITS, marks=[pytest.mark.proof, pytest.mark.timeout(900)])]
)
def test_edits_under_load_fail_nobody_and_mix_nothing(place: Place, edits: int) -> None:
    place.first.always(Fails(500))  # every request meets both providers of its revision
    place.apply(place.config(next(REVISIONS)))
    good, broken = place.reloads("ok"), place.reloads("error")
    with Load(place.mobius.url) as load:
        for number in range(edits):
            _edit(place, number)
            _break(place, number)
        before = load.sent
        wait_until(lambda: load.sent > before + WORKERS, what="the last revision's requests")
    assert load.failed == []
    assert place.reloads("ok") == good + edits
    # A hang-up may have met a broken file just before the watch did.
    assert place.reloads("error") >= broken + edits
    _check_unmixed(place, load.sent, edits)


def _edit(place: Place, number: int) -> None:
    """A new revision is in force, made known in one of many ways."""
    before = place.generation
    hows: tuple[EditKind, ...] = ("save", "rename", "configmap")
    place.mobius.edit(place.config(next(REVISIONS)), hows[number % 3])
    if number % 4 == 1:
        place.mobius.signal(signal.SIGHUP)
    if number % 4 == 3:
        place.mobius.http.post("/admin/reload").raise_for_status()
    place.wait_in_force(before)


def _break(place: Place, number: int) -> None:
    """A broken revision was seen and refused."""
    before, errors = place.generation, place.reloads("error")
    hows: tuple[EditKind, ...] = ("rename", "save")
    wrong = _broken(place.config(next(REVISIONS)), number)
    place.mobius.edit(wrong, hows[number % 2])
    wait_until(lambda: place.reloads("error") > errors, IN_FORCE_S, "the error")
    assert place.generation == before


def _check_unmixed(place: Place, sent: int, edits: int) -> None:
    """Every request met both providers once, and both with the names and keys of one revision."""
    place.first.journal.wait_over()
    met = [_revisions(fake.journal) for fake in (place.first, place.second)]
    assert met[0] == met[1]
    assert len(met[0]) == sent
    assert len(set(met[0].values())) > edits


def _revisions(journal: Journal) -> dict[str, str]:
    """By request: the revision of the file that its model and its key are of."""
    found: dict[str, str] = {}
    for entry in journal.requests():
        marker = entry.json["messages"][0]["content"]
        if marker != "hi":
            assert marker not in found, "asked twice"
            found[marker] = _revision(entry)
    return found


def _revision(entry: Entry) -> str:
    assert entry.model is not None
    assert entry.headers["authorization"] == f"Bearer sk-{entry.model}"
    return entry.model.split("-")[1]
