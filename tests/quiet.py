"""LiteLLM in a test's own process."""

from __future__ import annotations

import importlib
import os
import warnings
from types import ModuleType

from proxy.upstream.sdk import SETTINGS


def imported(name: str = "litellm") -> ModuleType:
    """
    Return LiteLLM, or a module of it, imported with the settings that the service has for it.

    It warns while it is imported, and a warning is an error in a test: in the thread that a service
    imports it in, that would leave one half of it to all the tests that follow.
    """
    for variable, value in SETTINGS.items():
        os.environ.setdefault(variable, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)
