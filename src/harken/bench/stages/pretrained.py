"""Encoders that pretrain stages have made, as weights of the stages that read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harken.bench.costs import PlannedStage
from harken.core.errors import HarkenError
from harken.encoders.registry import encoder_class
from harken.training.model_spec import PRETRAINED, BranchSpec, ModelSpec

if TYPE_CHECKING:
    from harken.training.checkpoints import PretrainedStart

#: of what a pretrain stage makes
ENCODER_FILE = "encoder.safetensors"


def encoder_file(folders: Sequence[Path], encoder: str) -> Path:
    """The weights of an encoder among those of the stages that are read. Raises HarkenError unless there is one."""
    made_by = {folder: _encoder_of(folder) for folder in folders}
    matching = [folder for folder, name in made_by.items() if name == encoder]
    if len(matching) != 1:
        shown = ", ".join(sorted(made_by.values())) or "none"
        raise HarkenError(
            f"weights: {PRETRAINED} of {encoder} need one pretrain stage of that encoder, and {shown} can be read",
            next_step="Name the stage under from, or name weights",
        )
    return matching[0] / ENCODER_FILE


def _encoder_of(folder: Path) -> str:
    return str(json.loads((folder / "training.json").read_text())["training"]["student"]["encoder"])


def pretrained_start(model: ModelSpec, folders: Sequence[Path]) -> tuple[ModelSpec, PretrainedStart | None]:
    """A model whose branches name the sizes of pre-trained encoders, and what it begins with; None where no branch is
    pre-trained by a stage. Raises HarkenError for a stage that no branch uses, and as `encoder_file`."""
    from harken.encoders.checkpoints import load
    from harken.training.checkpoints import PretrainedStart

    branches, files = [], {}
    for number, branch in enumerate(model.branches):
        if branch.weights == PRETRAINED:
            files[number] = encoder_file(folders, branch.encoder)
            config = {**load(files[number]).config, **branch.config}
            branch = branch.model_copy(update={"weights": None, "size": "full", "config": config})
        branches.append(branch)
    unused = [folder for folder in folders if folder / ENCODER_FILE not in files.values()]
    if unused:
        raise HarkenError(
            f"no branch begins with the {_encoder_of(unused[0])} that a stage has pre-trained",
            next_step=f"Write weights: {PRETRAINED} in its branch, or leave the stage out of from",
        )
    spec = model.model_copy(update={"branches": tuple(branches)})
    return spec, PretrainedStart(spec, files) if files else None


def planned_student(planned: PlannedStage, encoder: str) -> dict[str, Any]:
    """Fields of a `BranchSpec` that a pre-trained encoder will be like: weights, size and config, for counting."""
    for stage in planned.inputs.get("encoder", ()):
        student = stage.parameters
        if student.encoder == encoder:
            if student.weights == PRETRAINED:
                return {**planned_student(stage, encoder), "config": student.config}
            if student.size in ("tiny", "full"):
                return {"weights": student.weights, "size": student.size, "config": student.config}
            # A name of the encoder's own. Its class takes torch.
            config = {**encoder_class(encoder).sizes.get(student.size, {}), **student.config}
            return {"weights": student.weights, "size": "full", "config": config}
    return {"weights": None}


def planned_model(model: ModelSpec, planned: PlannedStage) -> ModelSpec:
    """A model for counting, with the sizes of the encoders that pretrain stages will make."""
    return model.model_copy(update={"branches": tuple(_planned_branch(branch, planned) for branch in model.branches)})


def _planned_branch(branch: BranchSpec, planned: PlannedStage) -> BranchSpec:
    if branch.weights != PRETRAINED:
        return branch
    student = planned_student(planned, branch.encoder)
    config = {**student.get("config", {}), **branch.config}
    return branch.model_copy(update={**student, "config": config})
