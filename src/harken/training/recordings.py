"""Clips as batches of waveforms, in an order that depends on the seed and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harken.audio.channels import Microphones
from harken.audio.listen import Listening, listen
from harken.audio.shape import fit_length
from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
from harken.training.augment.random_state import rng_for
from harken.training.spectrograms import SpectrogramForm, SpectrogramRows
from harken.training.waveforms import QUOTA_BYTES, KeptWaveforms

Float32 = NDArray[np.float32]


class WaveTransform(Protocol):
    """What is done to a clip's waveform before it is trained on; picklable."""

    def __call__(self, wave_S: Float32, clip: Clip, seed: int, epoch: int) -> Float32: ...


@dataclass(frozen=True)
class Reader:
    """Recordings as they are trained on: mono, at one rate, of one length.

    sample_rate in Hz. seconds: longer ones are cropped, shorter ones repeated; None leaves the length. pad: longer ones
    are truncated, shorter ones padded with silence at their end.
    microphones: which channel is listened to, or what is left of the near one; of `all`, their mean. A recording with
    one channel is taken for the near microphone.
    """

    sample_rate: int
    seconds: float | None
    microphones: Microphones = "near"
    pad: bool = False

    def __call__(self, clip: Clip, rng: np.random.Generator | None = None) -> Float32:
        """(samples,); rng: draws the place of a crop, which otherwise is the beginning.

        Raises AudioError for a recording that cannot be used.
        """
        return self.fitted(self.recording(clip), rng)

    def recording(self, clip: Clip) -> Float32:
        """(samples,) of the whole recording. Raises AudioError for one that cannot be used."""
        settings = Listening(microphones=self.microphones, single_as_near=True, mono=True, sample_rate=self.sample_rate)
        return np.ascontiguousarray(listen(clip.path, settings).wave_CS[0])

    def fitted(self, wave_S: Float32, rng: np.random.Generator | None = None) -> Float32:
        """(samples,) of the whole recording -> (samples,) that are trained on."""
        if self.seconds is None:
            return wave_S
        length = round(self.seconds * self.sample_rate)
        spare = len(wave_S) - length
        start = int(rng.integers(spare + 1)) if rng is not None and spare > 0 and not self.pad else 0
        wave_1S = fit_length(wave_S[None], length, short="pad" if self.pad else "tile", start=start)
        return np.ascontiguousarray(wave_1S[0])


@dataclass(frozen=True)
class Order:
    """Which clips pass when: every epoch all of them once in a new order, but for those that fill no batch.

    clips: their number. batch: clips of all devices together, at most as many as there are.
    """

    clips: int
    batch: int
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= self.clips:
            raise ValueError(f"a batch holds 1 to {self.clips} clips, not {self.batch}")

    @property
    def batches(self) -> int:
        """Of an epoch."""
        return self.clips // self.batch

    def epoch(self, number: int) -> int:
        """Of a batch, both counted from 0."""
        return number // self.batches

    def rows(self, number: int) -> NDArray[np.int64]:
        """(batch,) clips of a batch."""
        shuffled_N = rng_for(self.seed, self.epoch(number), "order").permutation(self.clips)
        start = number % self.batches * self.batch
        return np.asarray(shuffled_N[start : start + self.batch], dtype=np.int64)


@dataclass(frozen=True)
class Batch:
    """number, epoch: counted from 0. rows: of the clips. failed: clips that could not be used, and why; others are in
    their place."""

    number: int
    epoch: int
    rows: NDArray[np.int64]
    wave_BS: Tensor
    failed: dict[str, str]
    spectrograms: SpectrogramRows | None = None


class _Item(NamedTuple):
    """A clip as it is trained on; of one that is a spectrogram, the waveform is silence."""

    row: int
    wave_S: Float32
    spectrogram_FM: Float32 | None
    failed: dict[str, str]


class _Waves(Dataset[_Item]):
    def __init__(
        self,
        clips: Sequence[Clip],
        reader: Reader,
        transform: WaveTransform | None,
        form: SpectrogramForm | None,
        seed: int,
        quota_bytes: int,
    ) -> None:
        self.clips = clips
        self.reader = reader
        self.transform = transform
        self.form = form
        self.seed = seed
        self.kept = KeptWaveforms(quota_bytes)

    def __getitem__(self, place: tuple[int, int]) -> _Item:
        epoch, row = place
        failed: dict[str, str] = {}
        for step in range(len(self.clips)):
            usable = (row + step) % len(self.clips)
            clip = self.clips[usable]
            try:
                if clip.payload == "spectrogram" and self.form is not None:
                    return _Item(usable, np.zeros(self.form.samples, np.float32), self.form.read(clip), failed)
                whole_S = self.kept.get(usable, partial(self.reader.recording, clip))
                wave_S = self.reader.fitted(whole_S, rng_for(self.seed, epoch, clip.clip_id, "crop"))
            except AudioError as error:
                failed[clip.clip_id] = str(error)
                continue
            if self.transform is not None:
                wave_S = self.transform(wave_S, clip, self.seed, epoch)
            return _Item(usable, wave_S, None, failed)
        raise HarkenError("none of the training clips can be used", next_step=next(iter(failed.values())))


def batches(
    clips: Sequence[Clip],
    reader: Reader,
    order: Order,
    *,
    first: int = 0,
    count: int,
    transform: WaveTransform | None = None,
    form: SpectrogramForm | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Batches number `first` to `first + count - 1`; of each, every `world`-th clip from `rank` on.

    form: of clips that are spectrograms, which are not transformed.
    workers: processes that read ahead. What comes does not depend on them, nor on where one begins.
    """
    numbers = range(first, first + count)

    def places() -> Iterator[list[tuple[int, int]]]:
        for number in numbers:
            yield [(order.epoch(number), int(row)) for row in order.rows(number)[rank::world]]

    loader = DataLoader(
        _Waves(clips, reader, transform, form, order.seed, QUOTA_BYTES // max(1, workers)),
        batch_sampler=_Listed(places),  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=list,
        # Its own generator: the global one is not ours to move.
        generator=torch.Generator().manual_seed(0),
    )
    for number, items in zip(numbers, loader, strict=True):
        failed: dict[str, str] = {}
        for item in items:
            failed |= item.failed
        rows = np.array([item.row for item in items], dtype=np.int64)
        wave_BS = torch.from_numpy(np.stack([item.wave_S for item in items]))
        yield Batch(number, order.epoch(number), rows, wave_BS, failed, _spectrograms(items))


def _spectrograms(items: Sequence[_Item]) -> SpectrogramRows | None:
    made = {row: item.spectrogram_FM for row, item in enumerate(items) if item.spectrogram_FM is not None}
    if not made:
        return None
    return SpectrogramRows(torch.tensor(list(made)), torch.from_numpy(np.stack(list(made.values()))))


class _Listed:
    """A sampler of batches that begins anew whenever it is asked."""

    def __init__(self, places: object) -> None:
        self.places = places

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.places()  # type: ignore[operator,no-any-return]
