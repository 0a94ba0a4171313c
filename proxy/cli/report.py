"""What `mobius check` and `mobius explain` print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.snapshot import Snapshot
from proxy.types import Group, Lane, Target


def print_rings(snapshot: Snapshot) -> None:
    """Print every model's ring, a target a line, with its lane and what it still lacks."""
    for name, ring in snapshot.rings.items():
        listed = "" if name not in snapshot.hidden else "  (not listed)"
        print(f"{name}{listed}")
        for index, group in enumerate(ring.groups):
            _print_group(group, "" if index == 0 else "  then ")
        for word, groups in (
            ("too long: ", ring.oversized),
            ("content refused: ", ring.content),
        ):
            for group in groups:
                _print_group(group, f"  {word}")
    for wildcard in snapshot.wildcards:
        print(f"{wildcard.pattern}")
        _print_group(wildcard.group, "")


def _print_group(group: Group, lead: str) -> None:
    order = f" [{group.strategy.value}]" if len(group.targets) > 1 else ""
    # As they would be asked: LiteLLM's `order` stands above the strategy.
    for target in sorted(group.targets, key=lambda target: target.order):
        print(f"  {lead}{target.label}  {_lanes(target)}{order}{_patience(target)}{_lacks(target)}")


def _patience(target: Target) -> str:
    """Return that its first token is waited for as the last ones say, if it is."""
    most_s = target.timeouts.first_token_s
    return f"  first token: auto, at most {most_s:g} s" if target.timeouts.auto else ""


def _lacks(target: Target) -> str:
    return f"  unconfigured: {target.missing} is not set" if target.missing else ""


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print the answer of `/admin/explain`: who would be asked, in which order, and why."""
    print(plan.get("model"))
    for index, step in enumerate(plan.get("asked", ()), 1):
        patience_s = step.get("first_token_s")
        until = "" if patience_s is None else f"; first token within {patience_s:g} s"
        print(f"  {index}. {step['target']}  {step['reason']}{until}")
    for step in plan.get("left_out", ()):
        print(f"  -  {step['target']}  {step['reason']}")


def _lanes(target: Target) -> str:
    """Return the lane, and those of messages and Responses where these go by another."""
    found = [target.lane.value]
    if target.messages is Lane.DIRECT:
        found.append("messages direct")
    if target.responses is Lane.DIRECT and target.lane is not Lane.DIRECT:
        found.append("responses direct")
    if target.responses is Lane.AS_CHAT and target.lane is Lane.DIRECT:
        found.append("responses as chats")
    return ", ".join(found)
