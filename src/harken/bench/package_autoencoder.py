"""A system of the official baseline, an autoencoder that scores frames, as the contents of a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.bench.graph import Unit
from harken.bench.made import Made, MadeByRun
from harken.bench.packing import ModelContents, features_of, parameters_of
from harken.bench.stages.embed import form_of
from harken.bench.stages.tables import by_section, read_arrays, read_ids
from harken.core.errors import HarkenError, TooFewError
from harken.core.plugins import is_custom
from harken.data.clips import Clip
from harken.detection.reconstruction_error import ReconstructionError
from harken.embeddings.embedder import spec_as_recorded
from harken.encoders.residuals import Residuals, Statistic
from harken.evaluation.scores import Scores


def autoencoder_contents(
    made: MadeByRun,
    target: Made,
    unit: Unit,
    table: Scores,
    section: str | None,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> ModelContents:
    """The residuals of the run's autoencoder as embeddings, and the score of its `reconstruct` stage as the detector.

    target: what that stage made. Other arguments as of `package`. Held-out scores are the run's; where it has none, the
    scores of the clips that the autoencoder learned from take their place, and a note says so.
    Raises HarkenError for a section, as the autoencoder is one for all, and for a custom front end.
    """
    if section is not None:
        raise HarkenError("its autoencoder is one for all sections", next_step="Leave --section out")
    trained = made.get(target.inputs["autoencoder"][0])
    frames = made.get(target.inputs["frames"][0])
    settings = parameters_of(frames)
    if is_custom(settings.encoder):
        raise HarkenError(
            f"{frames.stage} is custom code, {settings.encoder}, which no model runs", next_step="Package another"
        )
    state = read_arrays(trained.folder / "model.safetensors")
    weights = dense_weights(state)
    parameters = parameters_of(target)
    statistic = _statistic(parameters.mode, parameters.variant)
    rate, channels = form_of(unit.clips, workers)
    front_end_config = {"sample_rate": rate, **settings.config}
    encoder = Residuals(weights, front_end=settings.encoder, front_end_config=front_end_config, statistic=statistic)
    spec = spec_as_recorded(
        encoder, sample_rate=rate, channels=channels, microphones=settings.microphones, weights=weights
    )
    train = table.train
    held_out = dict(zip(train.clip_id, train.score_N.tolist(), strict=True))
    clips = _learned_from(unit, read_ids(frames.folder)[0], held_out)
    features = features_of(clips, spec, weights, workers, progress)
    embeddings_ND = np.stack([clip.embedding for clip in features])
    domains = len(weights["precision"])
    detector = (
        ReconstructionError(squared_length=True, domains=domains) if statistic == "whitened" else ReconstructionError()
    )
    detector.fit(embeddings_ND)
    threshold = json.loads((target.folder / "thresholds.json").read_text())["all sections"]
    note = f"the run decides at {threshold:.4g} (gamma distribution), this model by "
    if held_out:
        detector.train_scores_ = np.array([held_out[clip.clip_id] for clip in clips])
        note += "held-out scores"
    else:
        note += (
            "scores of the recordings that its autoencoder learned from: those of new normal recordings are a little "
            "higher, so expect more false alarms (harken check counts them)"
        )
    quantile = parameters_of(trained).quantile
    return ModelContents(
        spec, weights, detector, clips, features, embeddings_ND, f"{100 * (1 - quantile):.4g}%", (note,)
    )


def dense_weights(state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Arrays of `Residuals` from the state of a fitted `Reconstruction`: each batch normalisation, as it is in
    evaluation, becomes part of the layer before it."""
    from harken.encoders.autoencoder import EPSILON

    weights: dict[str, NDArray[Any]] = {"precision": state["precision_"]}
    number = 0
    for side in ("encoder", "decoder"):
        indices = {int(name.split(".")[2]) for name in state if name.startswith(f"network.{side}.")}
        linear = [index for index in sorted(indices) if state[f"network.{side}.{index}.weight"].ndim == 2]
        for index in linear:
            layer, normal = f"network.{side}.{index}", f"network.{side}.{index + 1}"
            weight_YX = state[f"{layer}.weight"].astype(np.float64)
            bias_Y = state[f"{layer}.bias"].astype(np.float64)
            if f"{normal}.running_var" in state:
                deviation_Y = np.sqrt(state[f"{normal}.running_var"].astype(np.float64) + EPSILON)
                gain_Y = state[f"{normal}.weight"] / deviation_Y
                weight_YX = weight_YX * gain_Y[:, None]
                bias_Y = (bias_Y - state[f"{normal}.running_mean"]) * gain_Y + state[f"{normal}.bias"]
            weights[f"{number}.weight"], weights[f"{number}.bias"] = weight_YX, bias_Y
            number += 1
    return weights


def _statistic(mode: str, variant: str) -> Statistic:
    if mode == "mse":
        return "squared"
    return "whitened" if variant == "published" else "distance"


def _learned_from(unit: Unit, kept: Sequence[str], held_out: Mapping[str, float]) -> list[Clip]:
    """Training clips that the autoencoder learned from, and of which the run has held-out scores, if it has any."""
    usable = set(held_out or kept)
    sections = by_section(unit.clips, split="train")
    clips = [unit.clips[row] for section in sorted(sections) for row in sections[section]]
    learned = [clip for clip in clips if clip.clip_id in usable]
    if len(learned) < 3:
        raise TooFewError(f"{len(learned)} training clips are too few", file=unit.machine, next_step="Train on more")
    return learned
