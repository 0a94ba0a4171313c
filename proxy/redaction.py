"""
What a secret looks like, for whoever shows a text that may hold one. Pure.

A shape more only costs a message its clearness; a shape less can cost a key.
"""

from __future__ import annotations

import re

MESSAGE_LIMIT = 1000  # characters of somebody else's words
MARK = "[redacted]"

_KEYS = r"""
      (?<![A-Za-z])
      (?:sk|pk|rk|gsk|xai|ya29|r8|nvapi|pplx|tgp|fw|csk|ghp|gho|pat|xox[a-z]|whsec)
      [-_.][\w*.\-]{6,}
    | (?<![A-Za-z])hf_[A-Za-z0-9*]{10,}  # not `hf_model_name`
    | \b(?:key-|org-|proj_)[\w*.\-]{6,}
    | AIza[\w\-]{8,}
    | AKIA[A-Z0-9]{8,}
    | (?<![A-Za-z])eyJ[\w\-]{8,}(?:\.[\w\-.]+)?
"""
_IN_TEXT = re.compile(
    rf"""
    {_KEYS}
    | (?i:bearer)\s+\S+
    | (?i:(?:api[-_]?key|token|secret|password|signature)["']?\s*[=:]\s*["']?)[^\s"',;&]+
    | (?i:https?://)\S+
    """,
    re.VERBOSE,
)
# A name has no words around it that would tell; but it is seldom long, and mixed, and random.
_AS_NAME = re.compile(
    rf"""
    {_KEYS}
    | \b(?=[\w.-]*[0-9])(?=[\w.-]*[A-Za-z])[A-Za-z0-9+/=-]{{24,}}
    """,
    re.VERBOSE,
)
_WORDS = ("key", "secret", "token", "password", "credential", "authorization")


def redact(text: str, *, secrets: tuple[str, ...] = ()) -> str:
    """Return `text`, cut, without `secrets` and anything like a key, a token or an address."""
    # The longest first: another may be a part of it.
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MARK)
    text = _IN_TEXT.sub(MARK, text)
    return text if len(text) <= MESSAGE_LIMIT else text[:MESSAGE_LIMIT] + "…"


def looks_secret(name: str) -> bool:
    """Say whether what stands in the place of a name is a key, by its look."""
    return _AS_NAME.search(name) is not None


def is_secret(name: str) -> bool:
    """Say whether the value of a setting of this name should not stand in a file."""
    return name.endswith(("_key", "_token", "password")) or "secret" in name


def may_be_secret(name: str) -> bool:
    """Say whether the value of a setting of this name should reach nobody: a wider question."""
    name = name.lower()
    return any(word in name for word in _WORDS)
