"""More clips of one's own machine: a small diffusion model of a folder of recordings, and previews of what it makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harken.audio.header import read_file_header
from harken.audio.write import write_sound
from harken.core.errors import AudioError, HarkenError, did_you_mean
from harken.core.names import shown
from harken.data.clips import Clip, clips_from_files
from harken.encoders.griffin_lim import can_be_heard, sound_of_spectrogram
from harken.encoders.spectrogram_file import SUFFIX, write_spectrogram
from harken.generation.conditions import Condition, ConditionKey, attributes_text, normal_clips
from harken.generation.diffusion_settings import SIZES, DiffusionSpec, FrontEndSpec
from harken.generation.diffusion_training import TrainedDiffusion, train_diffusion
from harken.generation.generator import GeneratedSpectrogram, load_generator, requests_of
from harken.training.steps import Progress

#: longest clip that is learned by default, in seconds
LONGEST = 10.0
#: class of recordings without sub-folders and attributes
ALL = "all"


@dataclass(frozen=True)
class MachineClasses:
    """Recordings of a machine by their class: the name of the sub-folder, else the attributes in their names.

    clips: of all classes. notes: recordings that are left out.
    """

    clips: tuple[Clip, ...]
    notes: tuple[str, ...]

    def key_of(self, name: str | None) -> ConditionKey:
        """The condition of a class; without a name, the only one. Raises HarkenError for a class that there is not."""
        keys = {class_name(key): key for key in normal_clips(self.clips)}
        if name is None and len(keys) == 1:
            return next(iter(keys.values()))
        if name is None or name not in keys:
            listed = ", ".join(map(shown, keys))
            raise HarkenError(
                "the recordings are of several classes" if name is None else f"there is no class {name!r}",
                next_step=f"Name one with --class: {listed}" if name is None else did_you_mean(name, keys),
            )
        return keys[name]


@dataclass(frozen=True)
class Preview:
    """A clip that was generated. spectrogram: what an encoder would learn from. sound: made of it for the ear; None
    where the front end has no preview."""

    spectrogram: Path
    sound: Path | None
    class_name: str
    seed: int


def class_name(key: ConditionKey) -> str:
    """What a class is called."""
    return attributes_text(key.attributes).removeprefix("class=") or ALL


def classes_of_folder(folder: Path, files: Sequence[Path]) -> MachineClasses:
    """Recordings of a folder by the sub-folder that they are in; without any, by the attributes in DCASE names, else
    all alike. Recordings that are named anomalous, or of a test split, are left out.

    Raises HarkenError where none is left.
    """
    machine = folder.resolve().name or "machine"
    clips, left_out = [], 0
    for clip in clips_from_files(files):
        if clip.condition == "anomaly" or clip.split == "test" or clip.kind != "machine":
            left_out += 1
            continue
        below = clip.path.relative_to(folder).parts[:-1]
        attributes = {"class": "/".join(below)} if below else clip.attributes
        clips.append(
            Clip(
                clip.path.relative_to(folder).as_posix(), clip.path, split="train", machine=machine,
                condition="normal", attributes=attributes,
            )
        )  # fmt: skip
    if not clips:
        raise HarkenError("has no normal recordings", file=folder, next_step="Name a folder of normal recordings")
    notes = (f"{left_out} recordings that are named test, anomalous or noise are left out",) if left_out else ()
    return MachineClasses(tuple(clips), notes)


def usual_seconds(clips: Sequence[Clip]) -> float:
    """Median length of recordings, `LONGEST` at most. Raises HarkenError where none can be opened."""
    lengths, reason = [], ""
    for clip in clips:
        try:
            header = read_file_header(str(clip.path))
        except AudioError as error:
            reason = str(error)
            continue
        if header.frames:
            lengths.append(header.frames / header.sample_rate)
    if not lengths:
        raise HarkenError("none of the recordings can be used", next_step=reason or "Check the recordings")
    return min(LONGEST, sorted(lengths)[len(lengths) // 2])


def train_on_folder(
    classes: MachineClasses,
    folder: Path,
    *,
    size: str = "compact",
    encoder: str = "beats",
    steps: int = 2000,
    seconds: float | None = None,
    seed: int = 0,
    progress: Progress = lambda step, steps, loss: None,
) -> TrainedDiffusion:
    """Train a small diffusion model on all classes.

    folder: of the training: one that was interrupted resumes, one that is done is not done again. seconds: of a clip;
    None: see `usual_seconds`. Raises HarkenError where nothing can be learned, and for a folder of another training.
    """
    seconds = usual_seconds(classes.clips) if seconds is None else seconds
    spec = DiffusionSpec(
        steps=steps, batch=8, seconds=seconds, seed=seed, learning_rate=3e-4, warmup=min(200, steps // 10), ema=0.999
    )
    front_end = FrontEndSpec(encoder=encoder)
    return train_diffusion(SIZES[size], front_end, spec, classes.clips, folder, save_every=50, progress=progress)


def generate_clips(
    trained: TrainedDiffusion,
    classes: MachineClasses,
    key: ConditionKey,
    count: int,
    folder: Path,
    *,
    steps: int = 50,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Preview]:
    """Write `count` clips of a class into a folder: spectrograms `CLASS-000.safetensors`, and `CLASS-000.wav`, previews
    by Griffin and Lim. steps: of the sampling."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = load_generator(trained.folder, {"steps": steps}, device=device)
    previews: list[Preview] = []
    name = class_name(key)
    stem = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    for request in requests_of([Condition(key, 0, 0, count)], classes.clips, seed):
        (made,) = generator.generate([request])
        assert isinstance(made, GeneratedSpectrogram)
        place = folder / f"{stem}-{request.number:03d}"
        file = place.with_name(place.name + SUFFIX)
        write_spectrogram(file, made.spectrogram, made.front_end)
        sound = None
        if can_be_heard(made.front_end):
            wave_S = sound_of_spectrogram(made.spectrogram, made.front_end, seed=request.seed % 2**31)
            sound = write_sound(place, wave_S[None], made.front_end.sample_rate, "wav")
        previews.append(Preview(file, sound, name, request.seed))
        progress(len(previews), count)
    return previews
