"""One entry of `model_list` → one Target."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from proxy.catalogue import STATED
from proxy.config.connection import connect, credential_of
from proxy.config.lanes import lane_of, messages_lane, responses_lane, wish_for
from proxy.config.names import (
    ACTED,
    COMPLETION,
    DEPLOYMENT,
    HANDED,
    POINTERS,
    is_handed,
    is_price,
    is_secret,
    known,
    nearest,
)
from proxy.config.providers import CUSTOMS, split_model
from proxy.config.remarks import Place, shown
from proxy.config.sections import Reader, note_literal
from proxy.config.source import Fields, Items, Leaf, Tree
from proxy.config.trust import read_trust
from proxy.facts import Catalogue, Stated
from proxy.policy import FIRST_TOKEN_S, Timeouts
from proxy.pricing import is_known_price
from proxy.snapshot import NOTHING_KNOWN, identity_of
from proxy.types import Target, TargetTimeouts, Trust

REGION_NAMES = {
    "bedrock": ("aws_region_name",),
    "vertex_ai": ("vertex_location", "vertex_ai_location"),
}
REGIONAL_HOME = re.compile(r"https://([a-z]+)\.api\.openai\.com(?:[:/]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Above:
    """What holds for a deployment that says nothing else."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    timeout_s: float | None = None
    stream_timeout_s: float | None = None
    drop_params: bool | None = None
    trust: Trust | None = None
    credentials: Mapping[str, Fields] = field(default_factory=dict)
    catalogue: Catalogue = NOTHING_KNOWN
    lanes: Mapping[str, str] = field(default_factory=dict)  # by label, group, or provider


@dataclass(frozen=True, slots=True)
class Deployment:
    """A target, and what its entry says about its group."""

    target: Target
    place: Place
    has_order: bool
    num_retries: int | None


@dataclass(slots=True)
class _Params:
    """The litellm_params of one entry, sorted by what is done with them."""

    acted: dict[str, Tree] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    handed: dict[str, Any] = field(default_factory=dict)


def read_deployment(reader: Reader, tree: Tree, above: Above) -> Deployment | None:
    """Return the target of one entry; None when it has errors, which are noted."""
    errors = len(reader.findings.errors)
    missing: list[str] = []
    lenient = Reader(reader.findings, reader.secrets, missing)
    entry = reader.fields(tree, "an entry of model_list")
    if entry is None:
        if isinstance(tree, Leaf) and tree.value is None:
            reader.findings.error(tree.place, "an entry of model_list is empty")
        return None
    _check_entry(reader, entry)
    group = reader.name(entry.entries.get("model_name"), "model_name")
    written = reader.fields(entry.entries.get("litellm_params"), "litellm_params")
    if group is None or written is None:
        if len(reader.findings.errors) == errors:
            name = "model_name" if group is None else "litellm_params"
            reader.findings.error(entry.place, f"an entry of model_list has no {name}")
        return None
    params = _sort(lenient, _with_credential(reader, written, above))
    deployment = _build(lenient, entry, group, params, above)
    return deployment if len(reader.findings.errors) == errors else None


def everything(reader: Reader, tree: Tree, written: frozenset[str]) -> Iterator[Fields]:
    """
    Yield what an entry `*` with the model `*` means beside itself: a wildcard for each provider.

    LiteLLM then takes the provider from the name that was asked for. Providers whose variable is
    not set are left out, and so are wildcards that the file has itself.
    """
    entry = tree.entries if isinstance(tree, Fields) else {}
    params = entry.get("litellm_params")
    if not isinstance(tree, Fields) or not isinstance(params, Fields):
        return
    leaves = (entry.get("model_name"), params.entries.get("model"))
    if not all(isinstance(leaf, Leaf) and leaf.text == "*" for leaf in leaves):
        return
    wildcards = {f"{provider}/*": f"{provider}/*" for provider in CUSTOMS}
    for name, model in {**wildcards, "claude-*": "anthropic/claude-*"}.items():
        custom = CUSTOMS[model.split("/")[0]]
        if name not in written and reader.secrets.first(custom.keys).value is not None:
            place = params.place
            changed = {**params.entries, "model": Leaf(place, model, model)}
            named = {"model_name": Leaf(place, name, name)}
            inner = Fields(place, changed, params.places)
            yield Fields(place, {**entry, **named, "litellm_params": inner}, tree.places)


def _check_entry(reader: Reader, entry: Fields) -> None:
    for name, place in entry.places.items():
        if name in DEPLOYMENT:
            continue
        if not reader.unknown(name, place, DEPLOYMENT, where="an entry of model_list"):
            reader.findings.warn(place, f"model_list: Mobius does not act on {shown(name)}")


def _with_credential(reader: Reader, params: Fields, above: Above) -> Fields:
    """Return the params with those of `litellm_credential_name` under them."""
    tree = params.entries.get("litellm_credential_name")
    name = reader.text(tree, "litellm_credential_name")
    if name is None or tree is None:
        return params
    credential = above.credentials.get(name)
    if credential is None:
        if not reader.unknown(name, tree.place, above.credentials, where="credential_list"):
            reader.findings.error(tree.place, f"credential_list has no {shown(name)}")
        return params
    return Fields(
        params.place,
        {**credential.entries, **params.entries},
        {**credential.places, **params.places},
    )


def _sort(reader: Reader, params: Fields) -> _Params:
    names = known("litellm_params") | COMPLETION | ACTED | HANDED
    sorted_ = _Params()
    for name, tree in params.entries.items():
        place = params.places[name]
        if name in ACTED:
            sorted_.acted[name] = tree
        elif name in COMPLETION:
            sorted_.defaults[name] = _value(reader, tree, name)
        elif name not in names:
            if not reader.unknown(name, place, names, where="litellm_params"):
                reader.findings.warn(
                    place, f"litellm_params: {shown(name)} is not known; it is handed to LiteLLM"
                )
                sorted_.handed[name] = _value(reader, tree, name)
        elif not is_handed(name):
            reader.findings.warn(
                place, f"litellm_params: {name} is known to LiteLLM; Mobius does not act on it"
            )
        else:
            sorted_.handed[name] = _handed(reader, name, tree)
    return sorted_


def _handed(reader: Reader, name: str, tree: Tree) -> Any:
    if name in POINTERS:
        return tree.text if isinstance(tree, Leaf) else None
    if is_price(name) and isinstance(tree, Leaf):
        # YAML 1.1 reads 3e-6 as a text; so does LiteLLM's own file.
        return reader.number(tree, name)
    if name in {"extra_headers", "headers", "default_headers"}:
        fields = reader.fields(tree, name)
        pairs = fields.entries if fields else {}
        return {key: reader.name(value, f"{name}.{shown(key)}") for key, value in pairs.items()}
    if is_secret(name):
        note_literal(reader, tree, name)
    if name == "extra_body":
        fields = reader.fields(tree, name)
        return _value(reader, fields, name) if fields else None
    if name in {"additional_drop_params", "allowed_openai_params"}:
        return list(reader.names(tree, name))
    return _value(reader, tree, name)


def _value(reader: Reader, tree: Tree, what: str) -> Any:
    """Return the tree as plain Python, every `os.environ/NAME` in it resolved."""
    match tree:
        case Leaf():
            return reader.resolve(tree.value, tree.place, what)
        case Items():
            return [_value(reader, item, what) for item in tree.items]
        case Fields():
            return {name: _value(reader, each, what) for name, each in tree.entries.items()}


def _build(
    reader: Reader, entry: Fields, group: str, params: _Params, above: Above
) -> Deployment | None:
    acted = params.acted
    written = reader.name(acted.get("model"), "litellm_params.model")
    if written is None:
        if not reader.missing:
            reader.findings.error(entry.place, "litellm_params has no model")
            return None
        written = "unset"
    provider, model = _provider(reader, acted, written)
    handed = _handed_over(reader, entry.place, provider, params)
    credential = credential_of(provider, handed)
    order = reader.integer(acted.get("order"), "order", least=-(2**31))
    drop = reader.switch(acted.get("drop_params"), "drop_params")
    info = _info(reader, entry.entries.get("model_info"))
    stated = _stated(provider, handed, info)
    label = f"{group}/{provider}/{model}"
    wish = wish_for(above.lanes, label, group, provider)
    facts = above.catalogue.find(provider, model, stated)
    lane, why = lane_of(provider, model, handed, facts, wish=wish)
    if why is not None:
        reader.findings.warn(entry.place, f"mobius.lanes: {shown(label)} goes by {lane}: {why}")
    target = Target(
        label=label,
        group=group,
        provider=provider,
        model=model,
        identity=identity_of(credential, model),
        credential=credential,
        params=MappingProxyType(handed),
        defaults=MappingProxyType({k: v for k, v in params.defaults.items() if v is not None}),
        timeouts=_timeouts(reader, acted, above),
        lane=lane,
        messages=messages_lane(provider, handed, wish=wish),
        responses=responses_lane(provider, handed, info, lane=lane, wish=wish),
        weight=reader.number(acted.get("weight"), "weight"),
        order=order or 0,
        **_limits(reader, acted),
        drop_params=above.drop_params if drop is None else drop,
        trust=read_trust(reader, acted.get("ssl_verify"), "ssl_verify", above=above.trust),
        missing=reader.missing[0] if reader.missing else None,
        info=info,
        facts=facts,
        stated=stated,
    )
    retries = reader.integer(acted.get("num_retries"), "num_retries", most=10)
    return Deployment(target, entry.place, order is not None, retries)


def _limits(reader: Reader, acted: Mapping[str, Tree]) -> dict[str, int | None]:
    most = "max_parallel_requests"
    return {
        "rpm": reader.integer(acted.get("rpm"), "rpm"),
        "tpm": reader.integer(acted.get("tpm"), "tpm"),
        "max_parallel": reader.integer(acted.get(most), most, least=1),
    }


def _handed_over(reader: Reader, place: Place, provider: str, params: _Params) -> dict[str, Any]:
    """Return what LiteLLM is handed for every call to the target."""
    handed = {name: value for name, value in params.handed.items() if value is not None}
    mock = _mock(reader, params.acted.get("mock_response"))
    if mock is not None:
        handed["mock_response"] = mock
    connect(reader, place, provider, params.acted, handed)
    return handed


def _stated(provider: str, handed: Mapping[str, Any], info: Mapping[str, Any]) -> Stated:
    """Return what an entry says of its model; as in LiteLLM, litellm_params win over model_info."""
    said = {name: info[name] for name in STATED if name in info}
    said |= {name: value for name, value in {**info, **handed}.items() if is_known_price(name)}
    numbers = {name: value for name, value in said.items() if isinstance(value, int | float)}
    base_model = info.get("base_model") or handed.get("base_model")
    return Stated(
        base_model=base_model if isinstance(base_model, str) else None,
        numbers=tuple(sorted(numbers.items())),
        region=_region(provider, handed),
        mocked="mock_response" in handed,
    )


def _region(provider: str, handed: Mapping[str, Any]) -> str | None:
    """Return where a model runs, for the providers whose prices differ by that."""
    if provider == "openai":
        home = REGIONAL_HOME.match(str(handed.get("api_base")))
        return home[1].lower() if home else None
    names = REGION_NAMES.get(provider, ())
    return next((str(handed[name]) for name in names if name in handed), None)


def _provider(reader: Reader, acted: Mapping[str, Tree], written: str) -> tuple[str, str]:
    tree = acted.get("custom_llm_provider")
    custom = reader.name(tree, "custom_llm_provider")
    if custom is not None and tree is not None and custom not in known("providers"):
        reader.unknown(custom, tree.place, known("providers"), where="LiteLLM's list of providers")
    provider, model, certain = split_model(written, custom=custom)
    if not certain and "/" in model and not {"api_base", "base_url"} & acted.keys():
        # LiteLLM could not tell where to send it; with an api_base the slash is the model's own.
        prefix, place = model.split("/")[0], acted["model"].place
        meant = nearest(prefix, known("providers"))
        hint = f" (the nearest is {meant})" if meant else ""
        reader.findings.warn(
            place, f"{shown(prefix)} is no provider that LiteLLM knows{hint}; openai is assumed"
        )
    return provider, model


def _mock(reader: Reader, tree: Tree | None) -> Any:
    if tree is None or isinstance(tree, Leaf):
        return reader.text(tree, "mock_response")
    return _value(reader, tree, "mock_response")


def _timeouts(reader: Reader, acted: Mapping[str, Tree], above: Above) -> TargetTimeouts:
    def read(*names: str) -> float | None:
        tree = next((acted[name] for name in names if name in acted), None)
        return reader.number(tree, names[0], above=0, most=86_400)

    own_s, own_stream_s = read("timeout", "request_timeout"), read("stream_timeout")
    timeout_s = above.timeout_s if own_s is None else own_s
    stream_s = above.stream_timeout_s if own_stream_s is None else own_stream_s
    base = above.timeouts
    answer_s = base.answer if timeout_s is None else timeout_s
    first_s = timeout_s if stream_s is None else stream_s
    first_s = base.first_token if first_s is None else first_s
    return TargetTimeouts(
        connect_s=base.connect,
        first_token_s=FIRST_TOKEN_S if first_s is None else first_s,
        idle_s=base.idle,
        answer_s=answer_s,
        stream_s=base.stream,
        auto=first_s is None,
    )


def _info(reader: Reader, tree: Tree | None) -> Mapping[str, Any]:
    fields = reader.fields(tree, "model_info")
    if fields is None:
        return MappingProxyType({})
    for name, place in fields.places.items():
        # People keep notes of their own here, so a near miss is pointed out and not refused.
        meant = None if name in known("model_info") else nearest(name, known("model_info"))
        if meant is not None:
            reader.findings.warn(place, f"model_info: {shown(name)} is not {meant}; is it meant?")
    values = {name: _info_value(reader, name, each) for name, each in fields.entries.items()}
    return MappingProxyType({name: value for name, value in values.items() if value is not None})


def _info_value(reader: Reader, name: str, tree: Tree) -> Any:
    if isinstance(tree, Leaf):
        if is_price(name) or name in {"max_tokens", "max_input_tokens", "max_output_tokens"}:
            return reader.number(tree, f"model_info.{name}")
        if name == "id":
            return reader.name(tree, "model_info.id")
    return _value(reader, tree, f"model_info.{shown(name)}")
