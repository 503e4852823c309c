"""Trainings on disk: checkpoints, which are models with their losses, and states, from which a training goes on.

Safetensors files throughout, written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.training.arrays import Arrays, load_module, module_arrays, over, under
from harken.training.model_spec import ModelSpec
from harken.training.models import ASDModel, build_model


@dataclass(frozen=True)
class Checkpoint:
    """A model as it was at a step.

    about: step, signals of its evaluation, digest of the training.
    """

    spec: ModelSpec
    arrays: dict[str, NDArray[Any]]
    about: dict[str, Any]

    def model(self) -> ASDModel:
        """The model, in evaluation mode. Raises WeightsError where the spec names weights that are missing."""
        return build_model(self.spec).load_state(under(self.arrays, "model"))


@dataclass(frozen=True)
class Start:
    """A checkpoint that another training begins with.

    labels_sha256: digest of the classes that it was trained to tell apart (`training.json`): where they are the same,
    what the losses have learned is taken over too.
    """

    file: Path
    labels_sha256: str | None = None

    def digest(self) -> str:
        """sha256 of the file."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def model(self) -> ASDModel:
        """The network, its adapters merged. Raises HarkenError for a file that is no checkpoint."""
        model = read_checkpoint(self.file).model()
        model.merge_adapters()
        return model

    def load_losses(self, losses: nn.Module) -> None:
        """Take over what losses of the same kinds have learned; others stay as they are."""
        arrays = under(read_checkpoint(self.file).arrays, "losses")
        shapes = {name: np.shape(array) for name, array in module_arrays(losses).items()}
        if shapes == {name: np.shape(array) for name, array in arrays.items()}:
            load_module(losses, arrays)


def write_arrays(file: Path, arrays: Arrays, about: Mapping[str, Any]) -> None:
    """about: anything that JSON can say."""
    # Not `ascontiguousarray`, which makes vectors of scalars.
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_atomically(file, save(whole, metadata={"harken": json.dumps(about, sort_keys=True)}))


def read_arrays(file: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """What `write_arrays` wrote. Raises HarkenError for anything else."""
    try:
        with safe_open(file, framework="numpy") as opened:
            about = json.loads((opened.metadata() or {})["harken"])
            return {name: opened.get_tensor(name) for name in opened.keys()}, about  # noqa: SIM118
    except FileNotFoundError as error:
        raise HarkenError("there is no such file", file=file, next_step="Check the path") from error
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise HarkenError(f"is no checkpoint of a training ({error})", file=file, next_step="Delete it") from error


def write_checkpoint(file: Path, model: ASDModel, losses: nn.Module, about: Mapping[str, Any]) -> None:
    """What learned of the model and its losses; see `ASDModel.state`."""
    arrays = {**over(model.state(), "model"), **over(module_arrays(losses), "losses")}
    write_arrays(file, arrays, {**about, "model": model.spec.model_dump(mode="json")})


def read_checkpoint(file: Path) -> Checkpoint:
    """Raises HarkenError for a file that is no checkpoint."""
    arrays, about = read_arrays(file)
    try:
        spec = ModelSpec.model_validate(about.pop("model"))
    except (KeyError, ValidationError) as error:
        raise HarkenError("is no checkpoint of a model", file=file, next_step="Name another") from error
    return Checkpoint(spec, arrays, about)
