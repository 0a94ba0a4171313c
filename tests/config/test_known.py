"""The tables of names are those of the installed LiteLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from proxy.config.names import known

# Importing LiteLLM takes seconds and changes the process, so another process asks it.
ASK = """
import inspect, json, litellm
from litellm.constants import DEFAULT_CHAT_COMPLETION_PARAM_VALUES, OPENAI_CHAT_COMPLETION_PARAMS
from litellm.proxy._types import ConfigGeneralSettings
from litellm.types.router import LiteLLM_Params, LiteLLMParamsTypedDict, ModelInfo
from litellm.types.utils import all_litellm_params

settings = (bool, int, float, str, list, dict, type(None))
json.dump({
    "litellm_params": [
        *all_litellm_params, *LiteLLM_Params.model_fields, *LiteLLMParamsTypedDict.__annotations__,
        *OPENAI_CHAT_COMPLETION_PARAMS, *DEFAULT_CHAT_COMPLETION_PARAM_VALUES,
    ],
    "router_settings": list(litellm.Router.get_valid_args()),
    "general_settings": list(ConfigGeneralSettings.model_fields),
    "model_info": list(ModelInfo.model_fields),
    "providers": [getattr(provider, "value", provider) for provider in litellm.provider_list],
    "litellm_settings": [
        name for name, value in vars(litellm).items()
        if name.islower() and isinstance(value, settings)
    ],
}, open(1, "w"))
"""


@pytest.fixture(scope="module")
def installed() -> dict[str, list[str]]:
    environ = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK], env=environ, capture_output=True, check=True
    )
    found: dict[str, list[str]] = json.loads(answer.stdout)
    return found


@pytest.mark.parametrize(
    "section",
    [
        "litellm_params",
        "router_settings",
        "general_settings",
        "model_info",
        "providers",
        "litellm_settings",
    ],
)
def test_every_name_that_litellm_knows_stands_in_the_table(
    installed: dict[str, list[str]], section: str
) -> None:
    public = {name for name in installed[section] if not name.startswith("_")}
    # What no file can set: arguments of its own functions, and a list that it computes.
    assert public - known(section) <= {"self", "rust", "provider_list"}
