"""The composition root: the one place that names concrete parts and ties them together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from proxy import __version__, edits
from proxy.accounts import Accounts, Opening, open_accounts
from proxy.answers import open_cache, open_origins
from proxy.api import routes
from proxy.api.deps import State, TargetHealth
from proxy.api.load import Drain
from proxy.attempts import Attempts
from proxy.cache import Cache
from proxy.clock import Clock, SystemClock
from proxy.config import Config, ConfigError, load_config
from proxy.estimate import PromptRates
from proxy.everyone import Alone, Everyone
from proxy.exports import Exports
from proxy.gateway import Gateway
from proxy.headroom import Headroom
from proxy.health import Health
from proxy.log import LineWriter, Log, write_lines
from proxy.metrics import Metrics
from proxy.origins import Origins
from proxy.probes import Probe, Prober
from proxy.quota import Quota
from proxy.reload import Load, Reloader, Result
from proxy.remaining import Remaining
from proxy.resume import Resume
from proxy.shelf import Shelf
from proxy.snapshot import Snapshot
from proxy.types import Target
from proxy.upstream import Upstream
from proxy.upstream.lanes import Providers
from proxy.upstream.listing import Listing

_MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Seams:
    """What tests put in the place of the world."""

    load: Load
    upstream: Upstream | None
    clock: Clock
    chance: Callable[[], float]
    write: Callable[[bytes], object] | None
    everyone: Everyone | None


@dataclass(frozen=True, slots=True)
class Parts:
    """What the lifespan opens, and what live edits of the file are told to."""

    log: Log
    metrics: Metrics
    health: Health
    headroom: Headroom
    providers: Providers
    reloader: Reloader
    exports: Exports
    accounts: Accounts
    cache: Cache
    origins: Origins
    probes: dict[str, Probe]  # the last of each target, by identity


def create_app(
    path: Path,
    config: Config,
    *,
    environ: Mapping[str, str] | None = None,
    load: Load = load_config,
    upstream: Upstream | None = None,
    clock: Clock | None = None,
    chance: Callable[[], float] = random.random,
    write: Callable[[bytes], object] | None = None,
    everyone: Everyone | None = None,
) -> FastAPI:
    """
    Build the service for the file at `path`, which holds `config` now.

    `environ` is the environment as it was at start: what a file exports is no part of it, so that
    what is deleted from the file is gone; `everyone` is given to one of several processes. The
    other keyword arguments are the seams tests use; production passes none but `load`. `app.state`
    holds what a server needs: `drain` to end its requests with, `grace` for the seconds of it, and
    inside the lifespan `say`, which logs, and `alone`, which answers for this process.
    """
    seams = Seams(load, upstream, clock or SystemClock(), chance, write, everyone)
    start = dict(os.environ if environ is None else environ)
    drain = Drain(chance)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as opened:
            parts = await _open(opened, path, config, start, seams)
            await _begin(parts)
            app.state.say = parts.log.line
            app.state.grace = lambda: parts.reloader.current.policy.grace
            await _watch(opened, parts.reloader)
            app.state.alone = _alone(parts)
            quota, attempts = _ring(parts, seams)
            parts.reloader.on_reload.append(lambda *_: quota.follow(parts.reloader.current))
            prober = _prober(parts, quota, attempts, drain=drain, seams=seams)
            await opened.enter_async_context(prober.running())
            yield _state(parts, app.state.alone, drain, seams, quota=quota, attempts=attempts)

    # Without `openapi_url` it has no pages of its own.
    app = routes.Service(title="Mobius", version=__version__, lifespan=lifespan, openapi_url=None)
    app.state.drain = drain
    app.state.say = lambda event, **facts: None  # a signal may come before the lifespan does
    app.state.grace = lambda: config.snapshot.policy.grace
    routes.install(app)
    return app


async def _open(
    opened: AsyncExitStack, path: Path, config: Config, start: Mapping[str, str], seams: Seams
) -> Parts:
    """Open every resource; `opened` closes them, the last one first."""
    clock = seams.clock
    write = seams.write or opened.enter_context(LineWriter(write_lines, clock))
    log = Log(write, clock)
    opened.callback(log.line, "stopped")
    providers = Providers(clock)
    opened.push_async_callback(providers.aclose)
    exports = Exports(os.environ, start)
    opened.callback(exports.set, {})
    reloader = Reloader(path, start, config, clock=clock, load=seams.load)
    accounts = await open_accounts(
        opened, Opening(lambda: reloader.current.policy, config.redis, clock, log)
    )
    parts = Parts(
        log=log,
        metrics=Metrics(clock),
        health=Health(clock, log),
        headroom=Headroom(clock),
        providers=providers,
        reloader=reloader,
        exports=exports,
        accounts=accounts,
        cache=await open_cache(opened, config, clock),
        origins=open_origins(opened, config, clock, accounts.ledger),
        probes={},
    )
    reloader.on_reload.append(_observer(parts))
    return parts


def _alone(parts: Parts) -> Alone:
    remaining = Remaining(parts.accounts.store, parts.metrics)

    async def refresh() -> None:
        _targets(parts)
        await remaining.show(parts.reloader.current.allowances)

    return Alone(parts.metrics, parts.reloader, refresh)


def _ring(parts: Parts, seams: Seams) -> tuple[Quota, Attempts]:
    """Return what asks the targets, on the parts that were opened."""
    reloader, metrics, headroom = parts.reloader, parts.metrics, parts.headroom
    clock, chance = seams.clock, seams.chance
    rates = PromptRates()  # learned by the one, told by the other
    upstream = seams.upstream or parts.providers.lanes(
        lambda: _answer_limit(reloader.current), rates
    )
    quota = Quota(parts.accounts.store, parts.accounts.ledger, metrics, headroom, rates)
    attempts = Attempts(
        upstream, parts.health, metrics, quota, headroom=headroom, clock=clock, chance=chance
    )
    return quota, attempts


def _prober(
    parts: Parts, quota: Quota, attempts: Attempts, *, drain: Drain, seams: Seams
) -> Prober:
    """Return what probes the targets, where the file in force says so."""
    return Prober(
        attempts=attempts,
        quota=quota,
        lists=Listing(parts.providers.sdk, seams.clock),
        health=parts.health,
        metrics=parts.metrics,
        log=parts.log,
        last=parts.probes,
        current=lambda: parts.reloader.current,
        active=lambda: not drain.draining,
        clock=seams.clock,
        chance=seams.chance,
    )


def _state(
    parts: Parts, alone: Alone, drain: Drain, seams: Seams, *, quota: Quota, attempts: Attempts
) -> State:
    """Return what requests may use: the path itself, on the parts that were opened."""
    reloader, metrics, clock = parts.reloader, parts.metrics, seams.clock
    providers = parts.providers
    return State(
        gateway=Gateway(
            attempts=attempts,
            resume=Resume(attempts, metrics, clock),
            quota=quota,
            cache=parts.cache,
            origins=parts.origins,
            metrics=metrics,
            log=parts.log,
        ),
        snapshots=reloader,
        metrics=metrics,
        clock=clock,
        log=parts.log,
        drain=drain,
        lanes=lambda: providers.state(reloader.current.targets()),
        targets=lambda: _targets(parts),
        usage=parts.accounts.usage,
        purge=parts.cache.purge,
        shelf=Shelf(parts.origins, providers.stored(lambda: _answer_limit(reloader.current))),
        everyone=seams.everyone or alone,
        explain=attempts.plan,
    )


def _answer_limit(snapshot: Snapshot) -> int:
    return int(snapshot.policy.limits.answer_mb * _MB)


async def _begin(parts: Parts) -> None:
    config, log = parts.reloader.config, parts.log
    _apply(parts)
    await parts.accounts.store.learn(config.snapshot.allowances.configured())
    for target in config.snapshot.targets():
        if target.missing is not None:
            log.line("unconfigured", target=target.label, missing=target.missing)
    log.line("started", version=__version__, models=list(config.snapshot.models())[:100])


def _apply(parts: Parts) -> None:
    """Let the process be as the file in force says, and log what is doubtful about that file."""
    config = parts.reloader.config
    parts.exports.set(config.environment)
    for warning in config.warnings:
        parts.log.line("config_warning", text=str(warning))
    parts.metrics.generation(parts.reloader.generation)
    parts.metrics.promise(config.snapshot.policy.slo)
    if config.snapshot.needs_litellm():
        parts.providers.sdk.start()


def _observer(parts: Parts) -> Callable[[Result, ConfigError | None], None]:
    reloader, log = parts.reloader, parts.log
    before, started = reloader.current, reloader.config
    tasks: set[asyncio.Task[None]] = set()

    def see(result: Result, error: ConfigError | None) -> None:
        nonlocal before
        parts.metrics.reloaded(result.value)
        if error is not None:
            log.line("reload", result=result.value, error=str(error))
            return
        change = edits.change(before, reloader.current)
        before = reloader.current
        log.line("reload", result=result.value, generation=reloader.generation, **change)
        _apply(parts)
        for setting in edits.waiting(started, reloader.config):
            log.line("waits_for_restart", level="warning", setting=setting)
        limits = reloader.current.allowances.configured()
        task = asyncio.create_task(parts.accounts.store.learn(limits), name="learn the limits")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return see


async def _watch(opened: AsyncExitStack, reloader: Reloader) -> None:
    """Reload on every save and on SIGHUP, until `opened` closes."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[Any]] = set()
    tasks.add(asyncio.create_task(reloader.watch(), name="watch the configuration"))

    def hang_up() -> None:
        task = asyncio.create_task(reloader.reload(), name="reload on SIGHUP")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    # Only a main thread may take signals; under a test's server there may be none.
    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
        loop.add_signal_handler(signal.SIGHUP, hang_up)
        opened.callback(loop.remove_signal_handler, signal.SIGHUP)

    async def stop() -> None:
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    opened.push_async_callback(stop)


def _targets(parts: Parts) -> Sequence[TargetHealth]:
    """Return the health of every target, and set their gauges on the way."""
    snapshot, metrics, headroom = parts.reloader.current, parts.metrics, parts.headroom
    targets = snapshot.targets()
    found = [_health_of(target, parts, snapshot) for target in targets]
    metrics.healthy({each.label: each.healthy for each in found})
    metrics.provider({target.label: headroom.leeways(target) for target in targets})
    return found


def _health_of(target: Target, parts: Parts, snapshot: Snapshot) -> TargetHealth:
    standing = parts.health.standing(target, snapshot.policy)
    reason = None if standing.healthy else standing.word()
    if target.missing is not None:
        reason = f"{target.missing} is not set"
    return TargetHealth(
        target.label,
        healthy=reason is None,
        reason=reason,
        provider=target.provider,
        latency_s=standing.latency_s,
        mocked=target.stated.mocked,
        probe=parts.probes.get(target.identity),
    )
