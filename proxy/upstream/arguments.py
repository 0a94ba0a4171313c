"""
A Call and a Target as the arguments of a function of LiteLLM's: `acompletion` and its like.

LiteLLM is handed an allow-list and nothing else. For a provider that speaks OpenAI's format the
whole body travels in an `extra_body` built here, so what the caller sent beats what LiteLLM would
make of it. For any other provider the parameters are LiteLLM's to translate; those of OpenAI's that
the target does not know are dropped and named, and on a foreign target all others too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType
from typing import Any

from proxy.errors import UpstreamFailure
from proxy.parameters import EXTRAS, OPENAI
from proxy.retry import Kind
from proxy.types import Call, Json, Surface, Target
from proxy.upstream.completions_as_chats import drop_unheard
from proxy.upstream.fields import (
    NATIVE,
    OURS,
    TARGETS,
    UNMERGED,
    drop,
    drops,
    filled,
    take_out,
    words_of,
)
from proxy.upstream.history import spoken
from proxy.upstream.judge import choices_of_call
from proxy.upstream.secrets import HEADERS, secrets_of

CHAT = "acompletion"
MODERATE = "amoderation"
SPEAK = "aspeech"  # in its place one of ours asks
# What LiteLLM calls each surface.
FUNCTIONS: Mapping[Surface, str] = {
    Surface.CHAT: CHAT,
    Surface.COMPLETIONS: "atext_completion",
    Surface.EMBEDDINGS: "aembedding",
    Surface.MODERATIONS: MODERATE,
    Surface.IMAGES: "aimage_generation",
    Surface.RERANK: "arerank",
    Surface.SPEECH: SPEAK,
    Surface.TRANSCRIPTIONS: "atranscription",
}
# What of a body LiteLLM has a word for; it takes anything else for a setting of its own, or drops
# it without saying so.
WORDS: Mapping[Surface, frozenset[str]] = {
    Surface.SPEECH: frozenset({"input", "instructions", "response_format", "speed", "voice"}),
    Surface.TRANSCRIPTIONS: frozenset(
        {"language", "prompt", "response_format", "temperature", "timestamp_granularities"}
    ),
    Surface.TRANSLATIONS: frozenset(),
}
# What is seen to here, whatever LiteLLM makes of it.
OWN_WORDS: Mapping[Surface, frozenset[str]] = {
    Surface.SPEECH: frozenset({"stream_format"}),
    Surface.TRANSCRIPTIONS: frozenset({"response_format"}),
}
# Asked with a key as `api-key`, or with a token where the file has one of these.
AZURES = frozenset({"azure", "azure_text"})
AZURE_CREDENTIALS = ("azure_ad_token", "azure_client_secret", "azure_password", "client_secret")
# A fixed number, because it is part of LiteLLM's client cache key; the attempt's own clock decides.
TIMEOUT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Written:
    """What LiteLLM is called with, and what the caller is to be told about it."""

    function: str
    arguments: Mapping[str, Any] = field(repr=False)
    native: bool  # the answer's bytes are the provider's own
    dropped: tuple[str, ...]
    secrets: tuple[str, ...] = field(repr=False)
    # Which a request has, or has not, whoever wrote it.
    headers: Mapping[str, str | None] = field(repr=False)


def write_arguments(litellm: ModuleType, target: Target, call: Call, *, foreign: bool) -> Written:
    """Return what to call LiteLLM with; `foreign`: the caller wrote for another provider."""
    if call.surface in WORDS:
        return _write_sound(litellm, target, call)
    if call.surface is not Surface.CHAT:
        return _write_other(litellm, target, call, foreign=foreign)
    native = _is_openai_s(target)
    body = filled(target, call)
    for path in target.params.get("additional_drop_params") or ():
        take_out(path, body)
    dropping = drops(target, foreign=foreign)
    dropped: list[str] = []
    if dropping or not native:
        words = words_of(litellm, target, native=native)
        dropped += drop(
            words, target, call, body, native=native, foreign=foreign, dropping=dropping
        )
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
    if dropping and not native:
        arguments["drop_params"] = True
    secrets, headers = secrets_of(target), headers_of(target)
    return Written(CHAT, arguments, native, tuple(dropped), secrets, headers)


def _write_other(litellm: ModuleType, target: Target, call: Call, *, foreign: bool) -> Written:
    """Return what to call LiteLLM with where it has a function for the surface."""
    place = {k: v for k, v in target.params.items() if k not in ("extra_body", "drop_params")}
    function, body, dropped = FUNCTIONS[call.surface], filled(target, call), list[str]()
    for path in target.params.get("additional_drop_params") or ():
        take_out(path, body)
    native = _is_openai_s(target)
    if not native:
        dropped += drop_unheard(litellm, target, call, body, foreign=foreign)
    body |= target.params.get("extra_body") or {}
    said = {name: value for name, value in body.items() if name not in OURS and value is not None}
    arguments: dict[str, Any] = {
        # LiteLLM edits in place what it is given; the next target must see it as it was sent.
        **copy.deepcopy(said),
        **place,
        "model": f"{target.provider}/{target.model}",
        "max_retries": 0,
        "timeout": TIMEOUT_S,
        # What it has no word for at this provider it would refuse.
        "drop_params": target.drop_params is not False,
        "allowed_openai_params": list(said) if target.provider in NATIVE else [],
    }
    if call.stream:
        arguments |= {"stream": True, "stream_options": {"include_usage": True}}
    if arguments["drop_params"]:
        dropped += _unheard(litellm, target, call)
    secrets, headers = secrets_of(target), headers_of(target)
    if call.stream and not native and _texts_asked_for(call) > 1:
        message = "LiteLLM mixes the choices of a streamed text up"
        raise UpstreamFailure(message, kind=Kind.DIALECT)
    return Written(function, arguments, native, tuple(dict.fromkeys(dropped)), secrets, headers)


def _write_sound(litellm: ModuleType, target: Target, call: Call) -> Written:
    """Return what to call LiteLLM with where it takes nothing but what it has a word for."""
    function = FUNCTIONS.get(call.surface)
    if function is None:
        raise UpstreamFailure(f"LiteLLM has no {call.surface.value}", kind=Kind.DIALECT)
    if "mock_response" in target.params:
        # LiteLLM knows no mock of sound: it would ask the provider after all.
        raise UpstreamFailure("a mock neither speaks nor listens", kind=Kind.DIALECT)
    place = {k: v for k, v in target.params.items() if k not in ("extra_body", "drop_params")}
    body = {**call.body, **(target.params.get("extra_body") or {})}
    for path in target.params.get("additional_drop_params") or ():
        take_out(path, body)
    # In a form a list has another name.
    said = {name.removesuffix("[]"): value for name, value in body.items() if name not in OURS}
    words = _words_of(litellm, target, call)
    unheard = tuple(name for name in said if name not in words | OWN_WORDS[call.surface])
    if unheard and target.drop_params is False:
        message = f"LiteLLM has no word for {unheard[0]!r} at this provider"
        raise UpstreamFailure(message, kind=Kind.DIALECT)
    arguments = {
        **{name: value for name, value in said.items() if name in words},
        **place,
        **_file_of(call),
        "model": f"{target.provider}/{target.model}",
        "max_retries": 0,
        "timeout": TIMEOUT_S,
    }
    native, secrets = _is_openai_s(target), secrets_of(target)
    return Written(function, arguments, native, unheard, secrets, headers_of(target))


def _words_of(litellm: ModuleType, target: Target, call: Call) -> frozenset[str]:
    """Return what the target's provider has a word for, of all that LiteLLM has one for."""
    words = WORDS[call.surface]
    if call.surface is not Surface.TRANSCRIPTIONS or target.provider in NATIVE:
        return words
    if target.provider == "groq":
        return words & set(litellm.GroqSTTConfig().get_supported_openai_params_stt())
    provider = litellm.LlmProviders(target.provider)
    find = litellm.ProviderConfigManager.get_provider_audio_transcription_config
    rules = find(model=target.model, provider=provider)
    return words if rules is None else words & set(rules.get_supported_openai_params(target.model))


def _file_of(call: Call) -> Json:
    """Return the recording as LiteLLM takes it, whole: it reads all of it more than once."""
    if call.upload is None:
        return {}
    part = next(part for part in call.upload.parts if part.name == "file")
    return {"file": (part.filename, b"".join(part.spool.pieces()), part.content_type)}


def _texts_asked_for(call: Call) -> int:
    """Return how many choices an older completion has: as many for each prompt."""
    prompt = call.body.get("prompt")
    many = isinstance(prompt, list) and not all(isinstance(each, int) for each in prompt)
    return choices_of_call(call) * (len(prompt) if many and isinstance(prompt, list) else 1)


def _is_openai_s(target: Target) -> bool:
    """Say whether what the target answers is OpenAI's own format."""
    return target.provider in NATIVE and "mock_response" not in target.params


def _unheard(litellm: ModuleType, target: Target, call: Call) -> Iterator[str]:
    """Yield the parameters that LiteLLM drops on this surface for this provider."""
    if call.stream and call.surface is Surface.COMPLETIONS and not _is_openai_s(target):
        yield from (name for name in ("logprobs",) if call.body.get(name) is not None)
    if call.surface is not Surface.EMBEDDINGS or target.provider in NATIVE:
        return
    known = litellm.get_supported_openai_params(
        model=target.model, custom_llm_provider=target.provider, request_type="embeddings"
    )
    # The encoding is ours to see to, whatever the provider sends.
    asked = call.body.keys() - set(known or ())
    yield from (name for name in ("dimensions", "user") if name in asked)


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
    arguments = copy.deepcopy({"messages": spoken(body["messages"]), **heard})
    if call.stream:
        arguments["stream_options"] = {"include_usage": True}
    extra = target.params.get("extra_body") or {}
    if target.provider in UNMERGED:
        return {**arguments, **extra}
    sent = {n: v for n, v in body.items() if n not in known and (n not in OURS or n == "metadata")}
    if sent or extra:
        arguments["extra_body"] = {**sent, **extra}
    return arguments


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
