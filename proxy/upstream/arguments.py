"""
A Call and a Target as the arguments of `litellm.acompletion`.

LiteLLM is handed an allow-list and nothing else. For a provider that speaks OpenAI's format the
whole body travels in an `extra_body` built here, so what the caller sent beats what LiteLLM would
make of it. For any other provider the parameters are LiteLLM's to translate; those of OpenAI's that
the target does not know are dropped and named, and on a foreign target all others too.
"""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType
from typing import Any

from proxy.parameters import EXTRAS, OPENAI
from proxy.redaction import may_be_secret
from proxy.types import Call, Json, Target

# Providers whose wire is OpenAI's own: the body goes out and comes back as it is.
NATIVE = frozenset({"openai", "azure", "custom_openai", "litellm_proxy", "hosted_vllm"})

# Never LiteLLM's: it reads its own controls out of `metadata`, and writes the others itself.
OURS = frozenset({"model", "messages", "stream", "stream_options", "metadata"})
# Where LiteLLM sends an `extra_body` as a field of that name. A contract test tries the others.
UNMERGED = frozenset(
    {"anthropic", "bedrock", "text-completion-codestral", "vertex_ai", "vertex_ai_beta"}
)
# What OpenAI assumes where nothing is said: dropping it changes nothing, so nobody is told.
DEFAULTS: Mapping[str, Any] = {
    "frequency_penalty": 0, "logit_bias": {}, "logprobs": False, "metadata": {},
    "modalities": ["text"], "n": 1, "parallel_tool_calls": True, "presence_penalty": 0,
    "response_format": {"type": "text"}, "service_tier": "auto", "stop": [], "store": False,
    "top_logprobs": 0, "verbosity": "medium",
}  # fmt: skip

# Asked with a key as `api-key`, or with a token where the file has one of these.
AZURES = frozenset({"azure", "azure_text"})
AZURE_CREDENTIALS = ("azure_ad_token", "azure_client_secret", "azure_password", "client_secret")
# A fixed number, because it is part of LiteLLM's client cache key; the attempt's own clock decides.
TIMEOUT_S = 86_400.0
# Anthropic's API reference: temperature ranges from 0 to 1, where OpenAI's goes to 2.
COOL_PROVIDERS = frozenset({"anthropic", "bedrock", "vertex_ai", "databricks"})

TARGETS = 1024  # of which it is remembered what every call to them has in common
HEADERS = ("extra_headers", "headers", "default_headers")


@dataclass(frozen=True, slots=True)
class Written:
    """What LiteLLM is called with, and what the caller is to be told about it."""

    arguments: Mapping[str, Any] = field(repr=False)
    native: bool  # the answer's bytes are the provider's own
    dropped: tuple[str, ...]
    secrets: tuple[str, ...] = field(repr=False)
    # Which a request has, or has not, whoever wrote it.
    headers: Mapping[str, str | None] = field(repr=False)


def write_arguments(litellm: ModuleType, target: Target, call: Call, *, foreign: bool) -> Written:
    """Return what to call LiteLLM with; `foreign`: the caller wrote for another provider."""
    native = target.provider in NATIVE and "mock_response" not in target.params
    body = _filled(target, call)
    for path in target.params.get("additional_drop_params") or ():
        _take_out(path, body)
    drop = target.drop_params is True or (foreign and target.drop_params is not False)
    dropped: list[str] = []
    if drop or not native:
        dropped += _drop(litellm, target, call, body, native=native, foreign=foreign, drop=drop)
    place = {k: v for k, v in target.params.items() if k not in ("extra_body", "drop_params")}
    arguments: dict[str, Any] = {
        **place,
        "model": f"{target.provider}/{target.model}",
        "max_retries": 0,
        "timeout": TIMEOUT_S,
        # Its MCP gateway looks at every tool, and needs a package that does not come with it.
        "_skip_mcp_handler": True,
        **(_as_sent(target, call, body) if native else _translated(target, call, body)),
    }
    if call.stream:
        arguments["stream"] = True
    if drop and not native:
        arguments["drop_params"] = True
    return Written(arguments, native, tuple(dropped), secrets_of(target), headers_of(target))


def _filled(target: Target, call: Call) -> dict[str, Any]:
    """Return the body, and under it what the file says for a body that leaves it out."""
    defaults = dict(target.defaults)
    if not call.stream:
        defaults.pop("stream_options", None)  # refused by OpenAI where nothing is streamed
    limits = {"max_tokens", "max_completion_tokens"}
    if limits & call.body.keys():
        defaults = {name: value for name, value in defaults.items() if name not in limits}
    return {**defaults, **call.body}


def _take_out(path: str, body: dict[str, Any]) -> None:
    """Take a field out of `body`: one of its own, or a path of LiteLLM's, `tools[*].strict`."""
    name = re.split(r"[.\[]", path, maxsplit=1)[0]
    if name in ("model", "messages") or name not in body:
        return
    if name == path:
        del body[name]
        return
    # It copies what it is given, so only the field itself: the body is the caller's.
    paths = importlib.import_module("litellm.litellm_core_utils.dot_notation_indexing")
    body[name] = paths.delete_nested_value({name: body[name]}, path).get(name)


def _as_sent(target: Target, call: Call, body: Json) -> Json:
    sent = {name: value for name, value in body.items() if name != "model"}
    options = sent.get("stream_options")
    if call.stream and (options is None or isinstance(options, dict)):
        # The usage is a fact to settle with; a chunk that nobody asked for is dropped again.
        sent["stream_options"] = {**(options or {}), "include_usage": True}
    return {
        # LiteLLM and the SDK below it would read every message; the body's own take their place.
        "messages": [],
        "extra_body": {**sent, **(target.params.get("extra_body") or {})},
        # Else it asks some models through OpenAI's other API, and the answer is another one.
        "_skip_responses_api_bridge": True,
    }


def _translated(target: Target, call: Call, body: Json) -> Json:
    known = OPENAI | EXTRAS
    heard = {n: v for n, v in body.items() if n in known and v is not None}
    # LiteLLM edits in place what it is given; the next target must see it as it was sent.
    arguments = copy.deepcopy({"messages": body["messages"], **heard})
    if call.stream:
        arguments["stream_options"] = {"include_usage": True}
    extra = target.params.get("extra_body") or {}
    if target.provider in UNMERGED:
        return {**arguments, **extra}
    sent = {n: v for n, v in body.items() if n not in known and (n not in OURS or n == "metadata")}
    if sent or extra:
        arguments["extra_body"] = {**sent, **extra}
    return arguments


def _drop(
    litellm: ModuleType,
    target: Target,
    call: Call,
    body: dict[str, Any],
    *,
    native: bool,
    foreign: bool,
    drop: bool,
) -> Iterator[str]:
    """Take out of `body`, and name, what the target would not understand; clamp what it would."""
    known = _known(litellm, target, native=native)
    # LiteLLM refuses to translate what the target has no word for, at home as elsewhere.
    openai_s = drop or (not native and target.drop_params is not False)
    for name in [name for name in body if name not in known]:
        # What is not OpenAI's is the target's to judge, unless it was written for another.
        ours_to_judge = openai_s if name in OPENAI else drop and foreign
        unheard = ours_to_judge and name in call.body
        says_nothing = body[name] is None or body[name] == DEFAULTS.get(name)
        if unheard or not (native or (_has_way(litellm, target, name) and not says_nothing)):
            del body[name]
            if not says_nothing and name in call.body:
                yield name
    if drop:
        yield from _clamp(litellm, target, body)


def _has_way(litellm: ModuleType, target: Target, name: str) -> bool:
    """Say whether LiteLLM brings a field of this name to a target that it translates for."""
    if name == "metadata":
        return target.provider in litellm.openai_compatible_providers
    return name in OPENAI or name in EXTRAS or target.provider not in UNMERGED


@lru_cache(maxsize=TARGETS)
def _known(litellm: ModuleType, target: Target, *, native: bool) -> frozenset[str]:
    """Return the fields of a body that the target is known to understand."""
    supported = litellm.get_supported_openai_params(
        model=target.model, custom_llm_provider=target.provider
    )
    allowed = target.params.get("allowed_openai_params") or ()
    always = OURS if native else OURS - {"metadata"}
    return frozenset({*(supported or OPENAI), *allowed, *always, *(("user",) if native else ())})


def _clamp(litellm: ModuleType, target: Target, body: dict[str, Any]) -> Iterator[str]:
    temperature = body.get("temperature")
    if (
        target.provider in COOL_PROVIDERS
        and isinstance(temperature, int | float)
        and temperature > 1
    ):
        body["temperature"] = 1.0
        yield "temperature"
    limit = _output_limit(litellm, target)
    for name in ("max_tokens", "max_completion_tokens"):
        if limit is not None and isinstance(value := body.get(name), int) and value > limit:
            body[name] = limit
            yield name


def _output_limit(litellm: ModuleType, target: Target) -> int | None:
    """Return the most tokens that the model is known to write; None when nobody knows."""
    for facts in (
        target.info,
        litellm.model_cost.get(f"{target.provider}/{target.model}", {}),
        litellm.model_cost.get(target.model, {}),
    ):
        if isinstance(limit := facts.get("max_output_tokens"), int):
            return limit
    return None


@lru_cache(maxsize=TARGETS)
def headers_of(target: Target) -> Mapping[str, str | None]:
    """
    Return the headers that say who is asking, as the file has them.

    Where the file is silent, LiteLLM and OpenAI's SDK look for them in the environment: for an
    organization, and for a token of Azure's even beside a key.
    """
    params = target.params
    written = {name.lower() for kind in HEADERS for name in params.get(kind) or ()}
    headers = {
        "openai-organization": params.get("organization"),
        "openai-project": params.get("project"),
    }
    if target.provider in AZURES and not any(name in params for name in AZURE_CREDENTIALS):
        headers |= {"authorization": None, "api-key": params.get("api_key")}
    return {name: value for name, value in headers.items() if name not in written}


@lru_cache(maxsize=TARGETS)
def secrets_of(target: Target) -> tuple[str, ...]:
    """Return every text of the file that must not reach a caller, at any depth."""
    return tuple(_secrets_in(target.params))


def _secrets_in(place: Json) -> Iterator[str]:
    for name, value in place.items():
        if name in HEADERS and isinstance(value, Mapping):
            # Whatever they are called, a gateway in between may take any of them for its key.
            yield from (each for text in value.values() for each in _long(text))
        elif may_be_secret(name):
            yield from _texts(value)
        else:
            yield from (each for inner in _mappings(value) for each in _secrets_in(inner))


def _texts(value: object) -> Iterator[str]:
    match value:
        case Mapping():
            yield from (text for each in value.values() for text in _texts(each))
        case list() | tuple():
            yield from (text for each in value for text in _texts(each))
        case _:
            yield from _long(value)


def _mappings(value: object) -> Iterator[Json]:
    match value:
        case Mapping():
            yield value
        case list() | tuple():
            yield from (inner for each in value for inner in _mappings(each))
        case _:
            pass


def _long(value: object) -> Iterator[str]:
    """Yield a text long enough to be a secret, and what follows a scheme such as `Basic`."""
    if isinstance(value, str):
        yield from {text for text in (value, value.rpartition(" ")[2]) if len(text) >= 8}
