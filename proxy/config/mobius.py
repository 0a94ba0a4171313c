"""The `mobius:` section → MobiusPolicy, and its keys (with the master key) → Callers."""

from __future__ import annotations

import hashlib
import typing
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from proxy.allowance import Allowances
from proxy.config.names import nearest
from proxy.config.remarks import shown
from proxy.config.sections import Reader, note_literal
from proxy.config.source import Fields, Items, Leaf, Tree
from proxy.policy import KeyPolicy, MobiusPolicy
from proxy.snapshot import Snapshot
from proxy.types import Caller

MASTER = "master"
MASTER_VARIABLE = "MOBIUS_MASTER_KEY"  # where `general_settings.master_key` does not stand
DEFAULTS = MobiusPolicy()

# What pydantic calls an error, and what we say of it.
_WORDS = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "string_type": "must be a text",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of names to values",
    "literal_error": "must be {expected}",
}


def read_policy(reader: Reader, tree: Tree | None) -> MobiusPolicy:
    """Return the policy of the section; the default one after an error, which is noted."""
    fields = reader.fields(tree, "mobius")
    if fields is None:
        return MobiusPolicy()
    errors = len(reader.findings.errors)
    values = _values(reader, fields, "mobius")
    try:
        policy = MobiusPolicy.model_validate(values)
    except ValidationError as exc:
        for details in exc.errors(include_url=False, include_context=True, include_input=False):
            _note(reader, fields, details)
        return MobiusPolicy()
    if len(reader.findings.errors) > errors:
        return MobiusPolicy()
    return policy


def read_callers(
    reader: Reader, policy: MobiusPolicy, tree: Tree | None, master: Tree | None
) -> dict[str, Caller]:
    """Return the callers by the SHA-256 of their keys, hex. No key is kept."""
    callers: dict[str, Caller] = {}
    places: dict[str, int] = {}
    key = reader.text(master, "general_settings.master_key")
    if master is not None and key is not None:
        note_literal(reader, master, "general_settings.master_key")
        places[MASTER] = master.place.line
    elif master is None:
        # So that a container needs one variable and no edit of the file that it ships with.
        key = reader.secrets.find(MASTER_VARIABLE).value
    if key is not None:
        callers[_hash(key)] = Caller(MASTER, admin=True)
    # After an error in the section the policy is the default one, which has no keys.
    for written, entry in zip(policy.keys, _key_entries(tree), strict=False):
        digest = _digest(reader, written, entry)
        expires_at = _expires_at(reader, written, entry)
        if digest is None:
            continue
        place = entry.places.get("name", entry.place)
        if written.name in places:
            line = places[written.name]
            reader.findings.error(place, f"mobius.keys: line {line} has the same name")
        elif digest in callers:
            reader.findings.error(
                place, f"mobius.keys: this is also the key of {callers[digest].name}"
            )
        places[written.name] = place.line
        callers[digest] = Caller(
            written.name, team=written.team, models=written.models, expires_at=expires_at
        )
    return callers


def allowances_of(policy: MobiusPolicy) -> Allowances:
    """Return the limits of the section, each under the name that it limits."""
    return Allowances(
        keys={key.name: key.limits for key in policy.keys if key.limits is not None},
        teams={team.name: team.limits for team in policy.teams if team.limits is not None},
        users=policy.users,
        models=policy.models,
    )


def check_ai_model(reader: Reader, tree: Tree | None, snapshot: Snapshot) -> None:
    """
    Note when `mobius.ai.model` names no model.

    The default may: a file without a model `chat` is as good as any for whoever asks `/v1` only.
    """
    section = tree.entries.get("ai") if isinstance(tree, Fields) else None
    named = section.entries.get("model") if isinstance(section, Fields) else None
    model = snapshot.policy.ai.model
    if named is None or model == DEFAULTS.ai.model or snapshot.ring(model) is not None:
        return
    if reader.findings.errors:
        return  # the model may only be missing because of those
    meant = nearest(model, snapshot.models())
    hint = f"; the nearest name is {shown(meant)}" if meant else ""
    reader.findings.error(named.place, f"mobius.ai.model: there is no model {shown(model)}{hint}")


def without_keys(policy: MobiusPolicy) -> MobiusPolicy:
    """Return the policy with the hashes of its keys in place of the keys."""
    keys = tuple(
        written.model_copy(
            update={"key": None, "key_sha256": _hash(written.key.get_secret_value())}
        )
        if written.key is not None
        else written
        for written in policy.keys
    )
    return policy.model_copy(update={"keys": keys})


def _values(reader: Reader, tree: Tree, what: str) -> Any:
    """Return the tree as plain Python. No knob is a switch: `yes` would become the number 1."""
    match tree:
        case Leaf():
            if tree.value is True:
                reader.findings.error(tree.place, f"{what} takes a value, not yes or true")
            return reader.resolve(tree.value, tree.place, what)
        case Items():
            return [_values(reader, item, what) for item in tree.items]
        case Fields():
            return {
                name: _values(reader, each, f"{what}.{shown(name)}")
                for name, each in tree.entries.items()
            }


def _note(reader: Reader, fields: Fields, details: ErrorDetails) -> None:
    """Translate an error of pydantic's: its line, its name, and no value."""
    tree: Tree = fields
    place = fields.place
    path = ["mobius"]
    for step in details["loc"]:
        if isinstance(tree, Fields) and isinstance(step, str) and step in tree.entries:
            place = tree.places[step]
            tree = tree.entries[step]
            path.append(shown(step))
        elif isinstance(tree, Items) and isinstance(step, int) and step < len(tree.items):
            tree = tree.items[step]
            place = tree.place
    what = ".".join(path)
    if details["type"] == "extra_forbidden":
        names = _names_at(details["loc"][:-1])
        meant = nearest(str(details["loc"][-1]), names)
        hint = f"the nearest name is {meant}" if meant else f"it takes {', '.join(sorted(names))}"
        reader.findings.error(place, f"{what} is not known; {hint}")
    elif details["type"] == "missing":
        reader.findings.error(place, f"{what} has no {details['loc'][-1]}")
    else:
        reader.findings.error(place, f"{what}: {_said(details)}")


def _said(details: ErrorDetails) -> str:
    """Return what is wrong, in the words of the rest of our errors."""
    words = _WORDS.get(details["type"])
    if words is None:
        return details["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
    return words.format_map(details.get("ctx", {}))


def _names_at(loc: tuple[int | str, ...]) -> frozenset[str]:
    """Return the names that may stand where `loc` leads to."""
    model: type[BaseModel] = MobiusPolicy
    for step in loc:
        if isinstance(step, str) and step in model.model_fields:
            model = _model_in(model.model_fields[step].annotation) or model
    return frozenset(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(inner) for inner in typing.get_args(annotation))
    return next((model for model in found if model is not None), None)


def _key_entries(tree: Tree | None) -> list[Fields]:
    keys = tree.entries.get("keys") if isinstance(tree, Fields) else None
    items = keys.items if isinstance(keys, Items) else ()
    return [item for item in items if isinstance(item, Fields)]


def _digest(reader: Reader, written: KeyPolicy, entry: Fields) -> str | None:
    has_key = written.key is not None and written.key.get_secret_value() != ""
    if has_key == (written.key_sha256 is not None):
        reader.findings.error(
            entry.place, f"mobius.keys: {written.name} takes either key or key_sha256"
        )
        return None
    if written.key_sha256 is not None:
        return written.key_sha256.lower()
    note_literal(reader, entry.entries.get("key"), "mobius.keys.key")
    return _hash(written.key.get_secret_value()) if written.key else None


def _expires_at(reader: Reader, written: KeyPolicy, entry: Fields) -> float | None:
    """Return the moment in seconds since 1970; a date is its first moment, no zone is UTC."""
    if written.expires is None:
        return None
    try:
        moment = datetime.fromisoformat(written.expires)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        place = entry.places.get("expires", entry.place)
        reader.findings.error(place, "mobius.keys.expires takes an ISO 8601 date or time")
        return None


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
