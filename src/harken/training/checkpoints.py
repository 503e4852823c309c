"""Files of trainings: checkpoints (models with their losses) and states for resuming.

Safetensors files, written atomically.
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
from torch import nn

from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.training.arrays import Arrays, load_module, module_arrays, over, under
from harken.training.model_spec import ModelSpec
from harken.training.models import ASDModel, build_model
from harken.weights.serialise import serialised


@dataclass(frozen=True)
class ModelCheckpoint:
    """A model at a training step.

    metadata: step, signals of its evaluation, digest of the training.
    """

    spec: ModelSpec
    arrays: dict[str, NDArray[Any]]
    metadata: dict[str, Any]

    def model(self) -> ASDModel:
        """The model in evaluation mode. Raises WeightsError if the spec names weights that are missing."""
        return build_model(self.spec, arrays=under(self.arrays, "model"))


@dataclass(frozen=True)
class Start:
    """A checkpoint from which another training starts.

    labels_sha256: digest of the classes of its training (`training.json`); if they are the same, the parameters of the
    losses are reused too.
    """

    file: Path
    labels_sha256: str | None = None

    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def model(self) -> ASDModel:
        """The network with merged adapters. Raises HarkenError for a file that is not a checkpoint."""
        model = read_checkpoint(self.file).model()
        model.merge_adapters()
        return model

    def load_losses(self, losses: nn.Module) -> None:
        """Load the parameters of losses if all names and shapes agree; otherwise change nothing."""
        arrays = under(read_checkpoint(self.file).arrays, "losses")
        shapes = {name: np.shape(array) for name, array in module_arrays(losses).items()}
        if shapes == {name: np.shape(array) for name, array in arrays.items()}:
            load_module(losses, arrays)


@dataclass(frozen=True)
class PretrainedStart:
    """Encoders that were pre-trained, from which a training starts.

    spec: of its model, whose branches have the sizes of these encoders. files: weights by the number of the branch.
    """

    spec: ModelSpec
    files: Mapping[int, Path]
    #: its losses begin anew
    labels_sha256: None = None

    def digest(self) -> str:
        """SHA-256 of the files."""
        return hashlib.sha256(b"".join(file.read_bytes() for _, file in sorted(self.files.items()))).hexdigest()

    def model(self) -> ASDModel:
        """A network of the same encoders without adapters. Raises WeightsError for other files."""
        branches = [branch.model_copy(update={"adapter": None, "frozen": False}) for branch in self.spec.branches]
        for number, file in self.files.items():
            branches[number] = branches[number].model_copy(update={"weights": str(file)})
        return build_model(self.spec.model_copy(update={"branches": tuple(branches)}))

    def load_losses(self, losses: nn.Module) -> None:
        """Nothing: there are none."""


def write_arrays(file: Path, arrays: Arrays, metadata: Mapping[str, Any]) -> None:
    """Write arrays and metadata (JSON values) as safetensors, atomically and without copies of the arrays."""
    write_atomically(file, serialised(arrays, {"harken": json_text(metadata, sort_keys=True)}))


def read_arrays(file: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """(arrays, metadata) of `write_arrays`. Raises HarkenError for anything else."""
    try:
        with safe_open(file, framework="numpy") as opened:
            metadata = json.loads((opened.metadata() or {})["harken"])
            return {name: opened.get_tensor(name) for name in opened.keys()}, metadata  # noqa: SIM118
    except FileNotFoundError as error:
        raise HarkenError("there is no such file", file=file, next_step="Check the path") from error
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise HarkenError(f"is not a checkpoint of a training ({error})", file=file, next_step="Delete it") from error


def write_checkpoint(file: Path, model: ASDModel, losses: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write the trained parameters of the model and its losses; see `ASDModel.state`."""
    arrays = {**over(model.shared_state(), "model"), **over(module_arrays(losses), "losses")}
    write_arrays(file, arrays, {**metadata, "model": model.spec.model_dump(mode="json")})


def read_checkpoint(file: Path) -> ModelCheckpoint:
    """Read a checkpoint. Raises HarkenError for any other file."""
    arrays, metadata = read_arrays(file)
    try:
        spec = ModelSpec.model_validate(metadata.pop("model"))
    except (KeyError, ValidationError) as error:
        raise HarkenError("is not a checkpoint of a model", file=file, next_step="Use another file") from error
    return ModelCheckpoint(spec, arrays, metadata)
