"""`ssl_verify`: whose certificates a target may show."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

from proxy.config.remarks import shown
from proxy.config.sections import SWITCHES, Reader
from proxy.config.source import Tree
from proxy.types import ANYBODY, Trust

LARGEST_BYTES = 4 * 1024 * 1024  # the list of a whole distribution is a twentieth of that
UNCHECKED = (
    "certificates are not checked, so that whoever is on the way can read the key and all that is "
    "said; name the file of the authority instead"
)


def read_trust(
    reader: Reader, tree: Tree | None, what: str, *, above: Trust | None = None
) -> Trust | None:
    """Return whom to trust, None being the usual; `above` is what holds where nothing stands."""
    value = reader.scalar(tree, what)
    if tree is None or value is None or value == "":
        return above
    said = value if isinstance(value, bool) else SWITCHES.get(str(value).lower())
    if said is None:
        return _authorities(reader, tree, what, str(value))
    if said:
        return None
    reader.findings.warn(tree.place, f"{what} is false: {UNCHECKED}")
    return ANYBODY


def _authorities(reader: Reader, tree: Tree, what: str, name: str) -> Trust | None:
    """Return those of a file, which is read again when it changes; None after an error."""
    path = Path(name)
    reader.secrets.files[path] = None
    try:
        # The text is kept, so that a file which is gone later takes no target with it.
        text = _read(path)
        ssl.create_default_context(cadata=text)
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "it holds no certificate"
        if isinstance(error, ssl.SSLError):
            reason = "it holds no certificate"
        said = f"{what}: {_shown(path)} cannot be used: {reason.lower()}"
        reader.findings.error(tree.place, said)
        return None
    digest = hashlib.sha256(text.encode()).hexdigest()
    reader.secrets.contents[path] = digest
    return Trust(digest, text)


def _shown(path: Path) -> str:
    """Return the path, however long, unless a part of it looks like a key."""
    parts = [shown(part) for part in path.parts]
    return str(path) if parts == list(path.parts) else parts[-1]


def _read(path: Path) -> str:
    # A pipe or a device would keep the load waiting for ever.
    if path.exists() and not path.is_file():
        raise ValueError(path)
    with path.open("rb") as file:
        raw = file.read(LARGEST_BYTES + 1)
    if len(raw) > LARGEST_BYTES:
        raise ValueError(path)
    text = raw.decode("ascii", "replace")
    if not text.strip():
        raise ValueError(path)
    return text
