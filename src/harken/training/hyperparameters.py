"""Hyper-parameters for the HParams page of TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harken.core.extras import need
from harken.core.flat import flat_values


def hyperparameters_summary(settings: Mapping[str, Any], name: str) -> Any:
    """Summary of a run by which TensorBoard lists nested settings beside the scalars of its folder.

    name: of the run in the list. The columns of the page are those of all runs below its folder.
    """
    need("tensorboard", "logs")
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    return hparams_pb({key: _value(value) for key, value in flat_values(settings).items()}, trial_id=name)


def _value(value: Any) -> bool | int | float | str:
    """Numbers and texts as they are, all others as JSON."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value, ensure_ascii=False)
