"""Clips as a generator learns from them, latents and states of their captions, computed once and kept in files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harken.audio.listen import Listening, listen
from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
from harken.generation.captions import caption
from harken.generation.sound_generator import SoundGenerator
from harken.generation.text import TextStates
from harken.training.checkpoints import read_arrays, write_arrays

Float32 = NDArray[np.float32]

#: as a clip is listened to: the near microphone, at its own rate
LISTENING = Listening(microphones="near", single_as_near=True, mono=True)


class EncodedClip(NamedTuple):
    """latents_TD: see `SoundCodec.encode`. seconds: of the clip."""

    latents_TD: Float32
    seconds: float


class EncodedClips:
    """Latents of clips, each in a file that is made when it is first asked for, and states of all captions.

    folder: for the files; those of other weights are not used. Afterwards neither text encoder nor autoencoder are
    needed. quarantined: clips that could not be used, and why.
    """

    def __init__(self, generator: SoundGenerator, clips: Sequence[Clip], folder: Path) -> None:
        self.folder, self.generator = folder, generator
        self.quarantined: dict[str, str] = {}
        self.clips = sorted(clips, key=lambda clip: clip.clip_id)
        captions = sorted({caption(clip) for clip in self.clips})
        self.caption_of = {clip.clip_id: captions.index(caption(clip)) for clip in self.clips}
        self.states, self.empty = self._states(captions)

    def encode(self, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Clip]:
        """Make the files of all clips; those that can be used."""
        usable = []
        for number, clip in enumerate(self.clips):
            try:
                self.read(clip)
                usable.append(clip)
            except HarkenError as error:
                self.quarantined[clip.clip_id] = str(error)
            progress(number + 1, len(self.clips))
        return usable

    def read(self, clip: Clip) -> EncodedClip:
        """Latents of a clip. Raises AudioError for one that cannot be read, HarkenError for a silent one."""
        file = self.folder / f"{_name(self.generator.digest, clip.clip_id)}.safetensors"
        if not file.is_file():
            sound = listen(clip.path, LISTENING)
            try:
                latents_TD = self.generator.codec.encode(sound.wave_CS[0], sound.sample_rate)
            except HarkenError as error:
                raise AudioError(error.cause, file=clip.path, next_step=error.next_step) from None
            self.folder.mkdir(parents=True, exist_ok=True)
            write_arrays(file, {"latents_TD": latents_TD}, {"seconds": sound.seconds})
        arrays, metadata = read_arrays(file)
        return EncodedClip(arrays["latents_TD"], float(metadata["seconds"]))

    def _states(self, captions: Sequence[str]) -> tuple[TextStates, TextStates]:
        """Of all captions in order, and of the empty one."""
        file = self.folder / f"captions-{_name(self.generator.digest, *captions)}.safetensors"
        if not file.is_file():
            states, empty = self.generator.caption_states(captions)
            self.folder.mkdir(parents=True, exist_ok=True)
            arrays = {
                "states_BLD": states.states_BLD, "mask_BL": states.mask_BL,
                "empty_BLD": empty.states_BLD, "empty_mask_BL": empty.mask_BL,
            }  # fmt: skip
            write_arrays(file, {name: tensor.numpy() for name, tensor in arrays.items()}, {"captions": list(captions)})
        stored, _ = read_arrays(file)
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in stored.items()}
        return (
            TextStates(tensors["states_BLD"], tensors["mask_BL"]),
            TextStates(tensors["empty_BLD"], tensors["empty_mask_BL"]),
        )


def _name(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode(errors="surrogatepass")).hexdigest()[:24]
