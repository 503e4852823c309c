"""autoencoder: the official baseline's network, trained on the frames of one machine."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np

from harken.bench import devices, estimate
from harken.bench.costs import Cost, PlannedStage
from harken.bench.expected import number_of
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.tables import by_section, read_arrays, read_row_of, write_arrays
from harken.core.errors import HarkenError, TooFewError
from harken.core.extras import require_packages
from harken.core.json_text import json_text
from harken.training.settings import STACK, VALIDATION


class AutoencoderStage(Stage):
    """`model.safetensors`: the state of a fitted `Reconstruction`; `held_out.json`: mode -> training clip -> score, see
    `Reconstruction.held_out_`."""

    version = 2
    makes = "autoencoder"
    inputs: ClassVar = {"frames": Input("frames")}
    seeded = True

    class Parameters(Settings):
        """See `Reconstruction`; epochs, batch and learning_rate are the published ones."""

        variant: Literal["published", "paper"] = "published"
        epochs: int = 100
        batch: int = 256
        learning_rate: float = 1e-3
        quantile: float = 0.9

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        require_packages(("torch",), "autoencoders")
        return {}

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Cost of all steps on stacked frames, of the size and number that the encoder makes."""
        frames = planned.input("frames").parameters
        cost, total = Cost(), 0
        for clips in planned.clips:
            count = number_of(clip for clip in clips if clip.split == "train" and clip.kind == "machine")
            seconds, _, rate = planned.form(clips)
            config = {"sample_rate": rate, **frames.config}
            samples = int(seconds * config["sample_rate"])
            per_clip, bands = estimate.frame_shape(frames.encoder, json_text(config), samples)
            vectors = count * max(1, per_clip - STACK + 1)
            steps = parameters.epochs * math.ceil((1 - VALIDATION) * vectors / parameters.batch)
            total += steps
            if estimate.why_not() is not None:
                continue
            machine = devices.this_machine(1)
            each = machine.seconds(estimate.autoencoder_step(STACK * bands, parameters.batch))
            # Held-out clips pass without gradients.
            cost.seconds.append(1.05 * steps * each)
            arrays = 2 * 4.0 * vectors * bands
            cost.memory = max(cost.memory or 0.0, machine.runtime_bytes + arrays)
        cost.details = {"steps": total, "batch": parameters.batch, "accumulation": 1, "classes": None}
        return cost

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        from harken.detection.reconstruction import Reconstruction

        folder = context.folder("frames")
        arrays = read_arrays(folder / "frames.safetensors")
        row_of = read_row_of(folder)
        rows = [
            (row_of[clip.clip_id], clip.domain, clip.clip_id)
            for section in by_section(context.clips, split="train").values()
            for clip in (context.clips[row] for row in section)
            if clip.clip_id in row_of
        ]
        if not rows:
            raise TooFewError(
                "there are no training clips", file=context.clips[0].machine, next_step="Download its training data"
            )
        model = Reconstruction(seed=context.seed, **parameters.model_dump())
        try:
            model.fit(
                [frames_of(arrays, row) for row, *_ in rows],
                [domain for _, domain, _ in rows],
                progress=lambda epoch, epochs, *_: context.progress(epoch, epochs),
                checkpoint=context.scratch / "training.safetensors",
            )
        except ValueError as error:
            raise HarkenError(
                str(error), file=context.clips[0].machine, next_step="Check its training clips"
            ) from error
        write_arrays(context.out / "model.safetensors", **model.state())
        held_out = {
            mode: {
                clip_id: score
                for (*_, clip_id), score in zip(rows, scores.tolist(), strict=True)
                if math.isfinite(score)
            }
            for mode, scores in model.held_out_.items()
        }
        (context.out / "held_out.json").write_text(json_text(held_out))


def frames_of(arrays: dict[str, Any], row: int) -> np.ndarray:
    """(frames, D) of one clip of `frames.safetensors`."""
    return arrays["frames"][int(arrays["bounds"][row]) : int(arrays["bounds"][row + 1])]
