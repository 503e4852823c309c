"""Kinds of stages, registered here by explicit name."""

from __future__ import annotations

from importlib import import_module

from harken.bench.stages.base import Context, Input, Stage, match_inputs
from harken.core.errors import HarkenError, did_you_mean
from harken.core.plugins import is_custom, load_class

__all__ = ["Context", "Input", "Stage", "list_stages", "match_inputs", "stage_class"]

# Module and class, imported on use.
_STAGES = {
    "autoencoder": ("harken.bench.stages.autoencoder", "AutoencoderStage"),
    "combine": ("harken.bench.stages.combine", "CombineStage"),
    "concatenate": ("harken.bench.stages.concatenate", "ConcatenateStage"),
    "detect": ("harken.bench.stages.detect", "DetectStage"),
    "embed": ("harken.bench.stages.embed", "EmbedStage"),
    "embed_trained": ("harken.bench.stages.embed_trained", "EmbedTrainedStage"),
    "finetune_tangoflux": ("harken.bench.stages.finetune_tangoflux", "FinetuneTangoFluxStage"),
    "frames": ("harken.bench.stages.frames", "FramesStage"),
    "generate": ("harken.bench.stages.generate", "GenerateStage"),
    "generation_report": ("harken.bench.stages.generation_report", "GenerationReportStage"),
    "import_clips": ("harken.bench.stages.import_clips", "ImportClipsStage"),
    "labels": ("harken.bench.stages.labels", "LabelsStage"),
    "mix": ("harken.bench.stages.mix", "MixStage"),
    "pretrain": ("harken.bench.stages.pretrain", "PretrainStage"),
    "pseudo_labels": ("harken.bench.stages.pseudo_labels", "PseudoLabelsStage"),
    "rare_conditions": ("harken.bench.stages.rare_conditions", "RareConditionsStage"),
    "reconstruct": ("harken.bench.stages.reconstruct", "ReconstructStage"),
    "remix": ("harken.bench.stages.remix", "RemixStage"),
    "screen": ("harken.bench.stages.screen", "ScreenStage"),
    "separate": ("harken.bench.stages.separate", "SeparateStage"),
    "train": ("harken.bench.stages.train", "TrainStage"),
    "train_classifier": ("harken.bench.stages.train_classifier", "TrainClassifierStage"),
    "train_diffusion": ("harken.bench.stages.train_diffusion", "TrainDiffusionStage"),
    "train_separator": ("harken.bench.stages.train_separator", "TrainSeparatorStage"),
}


def list_stages() -> tuple[str, ...]:
    """Names of all kinds of stages."""
    return tuple(sorted(_STAGES))


def stage_class(name: str) -> type[Stage]:
    """The class of a kind, or of a custom one, `file.py:Class`; HarkenError, naming the nearest, for an unknown one."""
    if is_custom(name):
        return load_class(name, Stage)  # type: ignore[type-abstract]
    if name not in _STAGES:
        hint = did_you_mean(name, list_stages())
        raise HarkenError(f"there is no kind of stage {name!r}", next_step=hint)
    module, attribute = _STAGES[name]
    cls: type[Stage] = getattr(import_module(module), attribute)
    return cls
