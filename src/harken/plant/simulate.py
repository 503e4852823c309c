"""Writes a simulated plant: list of clips, rendering, file names and attribute tables."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile

from harken.core.errors import HarkenError, did_you_mean
from harken.core.files import write_atomically
from harken.core.tables import csv_line
from harken.plant import room
from harken.plant.bearing import BEARING
from harken.plant.fan import FAN
from harken.plant.gearbox import GEARBOX
from harken.plant.machine import Machine, OperatingRun
from harken.plant.noise import BACKGROUNDS, DEFAULT_BACKGROUND, factory_noise
from harken.plant.pump import PUMP
from harken.plant.signals import Float, Rng, at_level, decibels
from harken.plant.slider import SLIDER
from harken.plant.valve import VALVE

MACHINES = {machine.name: machine for machine in (BEARING, FAN, GEARBOX, PUMP, SLIDER, VALVE)}
SECONDS = (0.5, 60.0)
SAMPLE_RATES = (8_000, 96_000)
NOISE_DB = (-60.0, 60.0)

#: width in dB of the uniform distribution of recording levels, the same for all clips: loudness is uninformative
GAIN_RANGE_DB = 6.0
#: standard deviation in dB of a clip's signal-to-noise ratio around the machine's `snr_db`
SNR_SPREAD_DB = 1.0
#: self-noise of the microphones relative to full scale; also the dither of the 16-bit samples
SELF_NOISE_DB = -84.0
#: largest peak, relative to full scale
CEILING = 0.98

Split = Literal["train", "test", "supplemental"]
Domain = Literal["source", "target"]
Condition = Literal["normal", "anomaly"]
DOMAINS: tuple[Domain, ...] = ("source", "target")
CONDITIONS: tuple[Condition, ...] = ("normal", "anomaly")


@dataclass(frozen=True)
class Item:
    """A clip to be rendered: everything its sound depends on except the seed and the recording set-up."""

    machine: str
    split: Split
    domain: Domain
    condition: Condition
    index: int

    @property
    def series(self) -> str:
        """Name of the sequence of consecutive indices this clip belongs to."""
        return f"{self.machine}/{self.split}/{self.domain}/{self.condition}"


def list_machines() -> tuple[str, ...]:
    """Names of the machine types that can be simulated."""
    return tuple(MACHINES)


def simulate(
    root: Path,
    *,
    machines: Sequence[str] | None = None,
    train_source: int = 990,
    train_target: int = 10,
    test_per_condition: int = 50,
    supplemental: int = 100,
    seconds: float = 10.0,
    sample_rate: int = 16_000,
    far_microphone: bool = False,
    noise_db: float = 0.0,
    hide_attributes: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write a plant below `root` in the layout of the DCASE 2025 Task 2 development set; 16-bit PCM.

    machines: types, default: all of `list_machines()`.
    train_source, train_target, supplemental: clips per machine; test_per_condition: clips per machine, domain and
        condition. With the same seed, a clip does not depend on the number of clips.
    seconds, sample_rate: length of each clip in s, sampling rate in Hz.
    far_microphone: two channels as in 2026, near and far; the near channel equals the only channel without this option.
    noise_db: level in dB of the factory noise relative to each machine's default.
    hide_attributes: machines whose operating conditions are written as `noAttribute`.
    progress: called with (files written, total number of files).

    Returns the recordings, in the order written. Raises HarkenError for unknown machines, invalid
    sizes, and machine folders that are not empty.
    """
    root = Path(root)
    chosen = _machine_names(machines if machines is not None else list_machines())
    if not chosen:
        raise HarkenError("no machine is given", next_step=f"Name some of {', '.join(MACHINES)}")
    hidden = frozenset(_machine_names(hide_attributes))
    sizes = (train_source, train_target, test_per_condition, supplemental)
    _check(sizes, seconds, sample_rate, noise_db, seed)
    if root.exists() and not root.is_dir():
        raise HarkenError("this is a file, not a folder", file=root, next_step="Name a folder")
    for name in chosen:
        folder = root / name
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise HarkenError(
                "the folder is not empty",
                file=folder,
                next_step="Name another folder or remove this one",
            )
    plan = {name: _items(MACHINES[name], *sizes) for name in chosen}
    total = sum(len(items) for items in plan.values())
    written: list[Path] = []
    for name, items in plan.items():
        rows = []
        for item in items:
            attributes = {} if name in hidden else operation(item)
            path = root / relative_path(item, attributes)
            pcm_TC = render(
                item,
                samples=round(seconds * sample_rate),
                rate=sample_rate,
                far_microphone=far_microphone,
                noise_db=noise_db,
                seed=seed,
            )
            buffer = io.BytesIO()
            wavfile.write(buffer, sample_rate, pcm_TC)
            _write(path, buffer.getvalue())
            written.append(path)
            if item.split != "supplemental":
                rows.append((path.relative_to(root).as_posix(), attributes))
            if progress is not None:
                progress(len(written), total)
        # Written last: a machine with this table is complete.
        _write(root / name / "attributes_00.csv", _attributes_csv(rows).encode())
    return written


def operation(item: Item) -> dict[str, str]:
    """Operating condition of a clip, attribute -> value; used in rotation, so that few clips cover all of them."""
    machine = MACHINES[item.machine]
    choices = machine.source if item.domain == "source" else machine.target
    return dict(choices[item.index % len(choices)])


def relative_path(item: Item, attributes: Mapping[str, str]) -> Path:
    """Path below the root by the official naming scheme; empty attributes are written as `noAttribute`."""
    folder = Path(item.machine) / item.split
    if item.split == "supplemental":
        # As published: numbered from 1, with an underscore before the suffix.
        return folder / f"section_00_{MACHINES[item.machine].supplemental}_{item.index + 1:04d}_.wav"
    text = "_".join(f"{key}_{value}" for key, value in attributes.items()) or "noAttribute"
    return folder / f"section_00_{item.domain}_{item.split}_{item.condition}_{item.index:04d}_{text}.wav"


def render(
    item: Item,
    *,
    samples: int,
    rate: int,
    far_microphone: bool = False,
    noise_db: float = 0.0,
    seed: int = 0,
    fault: tuple[str, float] | None = None,
) -> NDArray[np.int16]:
    """Recording of a clip, (S,) or (S, 2) int16; a function of its arguments only.

    fault: name and severity, 0 to 1, in place of those that an anomalous item draws.
    """
    machine = MACHINES[item.machine]
    conditions = operation(item)
    draw_severity, draw_gain = _even_draws(item, seed)
    with_machine = item.split != "supplemental" or machine.supplemental == "machine"
    with_noise = item.split != "supplemental" or machine.supplemental == "noise"
    rng = _rng(seed, item.series, item.index)
    # Rooms need a run-up: their first samples lack the echo of what came before.
    extended = samples + int(room.RESPONSE_S * rate)
    name, severity = (_fault(item, machine), draw_severity) if fault is None else fault
    run = OperatingRun(conditions, name, severity, extended, rate)

    near_CS = np.zeros((1, samples), dtype=np.float32)
    far_CS = np.zeros_like(near_CS)
    to_near_R, to_far_R = _paths(item.machine, conditions.get("mic", "1"), rate, seed)
    if with_machine:
        # Faulty or not, a machine has the same power: faults change the sound, not the level.
        sound_S = at_level(machine.sound(run, _rng(seed, f"unit/{machine.name}"), rng), 0.0)
        near_CS += room.convolve(sound_S, to_near_R[None])
        if far_microphone:
            far_CS += decibels(-room.FAR_LOSS_DB) * room.convolve(sound_S, to_far_R[None])
    if with_noise:
        background = BACKGROUNDS[conditions.get("bkg", DEFAULT_BACKGROUND)]
        level = decibels(noise_db - machine.snr_db + SNR_SPREAD_DB * rng.standard_normal())
        noise_S = level * factory_noise(background, extended, rate, rng)
        pair_CR = room.diffuse_pair(rate, _rng(seed, "hall"))
        near_CS += room.convolve(noise_S, pair_CR[:1])
        if far_microphone:
            far_CS += room.convolve(noise_S, pair_CR[1:])
    sound_CS = np.concatenate([near_CS, far_CS]) if far_microphone else near_CS

    gain = decibels(machine.level_db + GAIN_RANGE_DB * (draw_gain - 0.5))
    # A clip that would exceed full scale gets a lower gain: clipping would be an artefact of the simulation.
    gain = min(gain, CEILING / float(np.max(np.abs(sound_CS))))
    sound_CS *= gain
    hiss = _rng(seed, f"{item.series}/self-noise", item.index)
    sound_CS += decibels(SELF_NOISE_DB) * hiss.standard_normal(sound_CS.shape, dtype=np.float32)
    pcm_TC = np.round(sound_CS.T * 32767.0).astype(np.int16)
    return pcm_TC if far_microphone else pcm_TC[:, 0]


def _fault(item: Item, machine: Machine) -> str | None:
    """Faults in rotation such that each occurs with each operating condition."""
    if item.condition == "normal":
        return None
    count = len(machine.faults)
    cycle = math.lcm(count, len(machine.source if item.domain == "source" else machine.target))
    return machine.faults[(item.index + item.index // cycle) % count]


def _rng(seed: int, purpose: str, index: int = 0) -> Rng:
    """A separate generator per purpose: clips can be rendered in any order and number."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), index])


def _even_draws(item: Item, seed: int) -> tuple[float, float]:
    """Severity and gain, each in 0..1, evenly spread over the clips of a series of any length.

    The R2 sequence (Roberts 2018), a Kronecker sequence on the plastic number, with a random shift: small
    test sets have the same proportions of slight and severe faults, soft and loud recordings, as large ones.
    """
    plastic = 1.324717957244746
    start = _rng(seed, f"{item.series}/even").uniform(size=2)
    severity, gain = (start + item.index * np.array([plastic**-1, plastic**-2])) % 1.0
    return float(severity), float(gain)


def _paths(machine: str, microphone: str, rate: int, seed: int) -> tuple[Float, Float]:
    """Responses (R,) from a machine to its near and far microphone; fixed per microphone position."""
    rng = _rng(seed, f"microphone/{machine}/{microphone}")
    near_R = room.response(room.NEAR_M, room.NEAR_DRR_DB, rate, rng)
    return near_R, room.response(room.FAR_M, room.FAR_DRR_DB, rate, rng)


def _items(
    machine: Machine, train_source: int, train_target: int, test_per_condition: int, supplemental: int
) -> list[Item]:
    """All clips of a machine, in the order of the official listing."""
    items = [Item(machine.name, "train", "source", "normal", n) for n in range(train_source)]
    items += [Item(machine.name, "train", "target", "normal", n) for n in range(train_target)]
    for domain in DOMAINS:
        for condition in CONDITIONS:
            items += [Item(machine.name, "test", domain, condition, n) for n in range(test_per_condition)]
    return items + [Item(machine.name, "supplemental", "source", "normal", n) for n in range(supplemental)]


def _attributes_csv(rows: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    """`file_name,d1p,d1v,d2p,d2v...`: name and value of each attribute; only `file_name` if hidden."""
    count = max((len(attributes) for _, attributes in rows), default=0)
    lines = [["file_name", *(f"d{n}{suffix}" for n in range(1, count + 1) for suffix in "pv")]]
    lines += [[name, *(cell for pair in attributes.items() for cell in pair)] for name, attributes in rows]
    return "".join(f"{csv_line(cells)}\n" for cells in lines)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def _machine_names(names: Sequence[str]) -> list[str]:
    """The names without duplicates; HarkenError for an unknown machine."""
    if isinstance(names, str):
        names = [names]
    for name in names:
        if name not in MACHINES:
            hint = did_you_mean(name, MACHINES, f"The machines are {', '.join(MACHINES)}")
            raise HarkenError(f"unknown machine {name!r}", next_step=hint)
    return list(dict.fromkeys(names))


def _check(sizes: tuple[int, int, int, int], seconds: float, rate: int, noise_db: float, seed: int) -> None:
    """HarkenError for invalid sizes; the comparisons refuse NaN too."""
    names = ("train_source", "train_target", "test_per_condition", "supplemental")
    for name, size, least in zip(names, sizes, (1, 0, 1, 0), strict=True):
        if size < least:
            raise HarkenError(f"{name} is {size}", next_step=f"Give at least {least}")
    for name, value, low, high in (
        ("clip length in seconds", seconds, *SECONDS),
        ("sampling rate in Hz", rate, *SAMPLE_RATES),
        ("noise level in dB", noise_db, *NOISE_DB),
    ):
        if not low <= value <= high:
            raise HarkenError(f"{value} is not a valid {name}", next_step=f"Give {low} to {high}")
    if seed < 0:
        raise HarkenError(f"the seed is {seed}", next_step="Give a whole number >= 0")
