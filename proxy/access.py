"""
Who is asking, and what they may ask for. Pure.

Keys are known by their SHA-256 only, as LiteLLM hashes its own. What a stranger can time is
therefore the look-up of a digest, over which they have no control: no key is ever compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from proxy.cache_key import tenant_of
from proxy.errors import KeyRejected, ModelForbidden, ModelUnknown
from proxy.snapshot import Snapshot
from proxy.types import Caller

ANONYMOUS = Caller("anonymous")

_NOBODY = Caller("nobody", expires_at=0.0)  # whose key opens nothing
_SHOWN = 200  # characters of a name that are repeated to whoever sent it
_COMPARED = 500  # configured names that an unknown one is compared with


def find_caller(callers: Mapping[str, Caller], key: bytes, *, wall_s: float) -> Caller:
    """
    Return whose key this is; ANONYMOUS where no keys are configured.

    Raises KeyRejected, in the same words and after the same work for a key that is missing,
    malformed, unknown or expired.
    """
    if not callers:
        return ANONYMOUS
    caller = callers.get(hashlib.sha256(key).hexdigest(), _NOBODY)
    if caller.expires_at is not None and caller.expires_at <= wall_s:
        raise KeyRejected("no valid API key: it is missing, unknown or expired")
    return caller


def tenant_for(caller: Caller, snapshot: Snapshot) -> str:
    """Return who shares with a caller what is kept: answers, and conversations at providers."""
    scope = snapshot.caching.scope_of(caller.name)
    return tenant_of(scope, key=caller.name, team=caller.team)


def check_model(caller: Caller, model: str) -> None:
    """Return when the caller may ask this model, known or not. Raises ModelForbidden naming it."""
    if not caller.may_ask(model):
        raise ModelForbidden(f"this key may not use the model `{_shown(model)}`", param="model")


def model_unknown(caller: Caller, model: str, names: Iterable[str]) -> ModelUnknown:
    """Return the error for a model without a ring, with the nearest names the caller may ask."""
    allowed = [name for name in names if caller.may_ask(name)][:_COMPARED]
    nearest = get_close_matches(_shown(model), allowed, n=3)
    hint = f"; did you mean {' or '.join(f'`{name}`' for name in nearest)}?" if nearest else ""
    return ModelUnknown(f"the model `{_shown(model)}` does not exist{hint}", param="model")


def _shown(model: str) -> str:
    return model if len(model) <= _SHOWN else f"{model[:_SHOWN]}…"
