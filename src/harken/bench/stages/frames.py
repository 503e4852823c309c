"""frames: the frame-level features of every recording."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from harken.audio.decode import decode
from harken.bench.stages.base import Context, Settings, Stage
from harken.bench.stages.embed import recording_form
from harken.bench.stages.tables import Quarantined, write_arrays, write_ids
from harken.core.errors import AudioError, HarkenError
from harken.core.plugins import blamed, code_identity
from harken.core.threads import one_thread
from harken.encoders import create_encoder


class FramesStage(Stage):
    """`frames.safetensors`: frames (all frames, D) float32 of one clip after the other, bounds (clips + 1,);
    `clips.json`: which clips, and those set aside. Two-channel recordings give the frames of the first one."""

    makes = "frames"
    listens = True

    class Parameters(Settings):
        """encoder: one without weights; config: its arguments. channel: which microphone is listened to."""

        encoder: str = "log_mel"
        config: dict[str, Any] = Field(default_factory=dict)
        channel: int = 0

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        return code_identity(parameters.encoder)

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        rate, _ = recording_form(context)
        encoder = create_encoder(parameters.encoder, {"sample_rate": rate, **parameters.config})
        kept, features, aside = [], [], []
        for row, clip in enumerate(context.clips):
            try:
                with blamed(parameters.encoder):
                    features.append(_frames(clip.path, encoder, rate, parameters.channel))
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


def _frames(path: Any, encoder: Any, rate: int, channel: int) -> np.ndarray:
    audio = decode(path)
    if audio.sample_rate != rate:
        raise AudioError(
            f"was recorded at {audio.sample_rate} Hz, most of its machine at {rate} Hz",
            file=path,
            next_step="Resample it",
        )
    if channel >= len(audio.samples_CT):
        raise AudioError(f"has no channel {channel}", file=path, next_step="Choose another channel")
    with one_thread():
        found = encoder.encode(audio.samples_CT[channel : channel + 1])
    return np.asarray(found.features_BLTD[0, 0, : int(found.lengths_B[0])], dtype=np.float32)
