"""The libraries that networks of generation are built with, kept away from the network."""

from __future__ import annotations

import os
from types import ModuleType

from harken.core.extras import need


def diffusers() -> ModuleType:
    """The package diffusers. Raises HarkenError with the install command without it."""
    _stay_offline()
    return need("diffusers", "generators of sound")


def transformers() -> ModuleType:
    """The package transformers. Raises HarkenError with the install command without it."""
    _stay_offline()
    return need("transformers", "generators of sound")


def _stay_offline() -> None:
    """Weights come from Harken's own cache: no library may ask a server for them, nor try again for half a minute."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[variable] = "1"
    # It is read once, by whoever imports it first.
    constants = need("huggingface_hub.constants", "generators of sound")
    constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
