"""frames: the frame-level features of every recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from harken.audio.channels import Microphones
from harken.audio.listen import Listening, listen
from harken.bench.costs import Cost, PlannedStage, front_end_cost
from harken.bench.stages.base import Context, Settings, Stage
from harken.bench.stages.embed import recording_form
from harken.bench.stages.tables import Quarantined, write_arrays, write_ids
from harken.core.errors import AudioError, HarkenError, settings_of
from harken.core.json_text import json_text
from harken.core.plugins import code_identity, located_errors
from harken.core.threads import one_thread
from harken.encoders import create_encoder
from harken.encoders.base import Encoder


class FramesStage(Stage):
    """`frames.safetensors`: frames (all frames, D) float32 of one clip after the other, bounds (clips + 1,);
    `clips.json`: which clips, and those set aside. Several channels are mixed to one."""

    makes = "frames"
    listens = True

    class Parameters(Settings):
        """encoder: one without weights; config: its arguments. microphones: which channels are listened to."""

        encoder: str = "log_mel"
        config: dict[str, Any] = Field(default_factory=dict)
        microphones: Microphones = "near"

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        return code_identity(parameters.encoder)

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Measured on noise."""
        return front_end_cost(planned, parameters.encoder, json_text(parameters.config))

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        rate, _ = recording_form(context)
        with settings_of(parameters.encoder, "Correct config of the frames stage"):
            encoder = create_encoder(parameters.encoder, {"sample_rate": rate, **parameters.config})
        listening = Listening(
            recorded_rate=rate, microphones=parameters.microphones, mono=True, sample_rate=encoder.sample_rate
        )
        kept, features, aside = [], [], []
        for row, clip in enumerate(context.clips):
            try:
                with located_errors(parameters.encoder):
                    features.append(_frames(clip.path, encoder, listening))
                kept.append(clip.clip_id)
            except AudioError as error:
                aside.append(Quarantined(clip.clip_id, str(error)))
            context.progress(row + 1, len(context.clips))
        if not features:
            raise HarkenError(
                "none of its recordings can be used", file=context.clips[0].machine, next_step=aside[0].reason
            )
        bounds = np.concatenate([[0], np.cumsum([len(frames) for frames in features])])
        write_arrays(context.out / "frames.safetensors", frames=np.concatenate(features), bounds=bounds)
        write_ids(context.out, kept, aside)


def _frames(path: Path, encoder: Encoder, listening: Listening) -> np.ndarray:
    """(frames, D) float32 of one recording. Raises AudioError for what cannot be used."""
    with one_thread():
        encoded = encoder.encode(listen(path, listening).wave_CS)
    return np.asarray(encoded.features_BLTD[0, 0, : int(encoded.lengths_B[0])], dtype=np.float32)
