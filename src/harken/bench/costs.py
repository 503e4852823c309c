"""Arguments and result of `Stage.cost`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from harken.audio.header import read_file_header
from harken.bench import devices, estimate
from harken.bench.devices import Device
from harken.bench.expected import expected_seconds, number_of
from harken.bench.work import Counts, Work
from harken.core.errors import AudioError
from harken.data import catalog
from harken.data.clips import Clip
from harken.data.labels import UNUSED, ClassTable
from harken.training.pretrain.settings import PretrainingSpec
from harken.training.settings import TrainingSpec, held_out_clips

#: of a recording: seconds, channels, sampling rate
Form = tuple[float, int, int]


@dataclass
class Cost:
    """Cost of one stage; an empty one is negligible.

    seconds: of each of its tasks on this machine, on as many threads as the stage uses; empty if unknown
    or negligible. device_seconds: of each task on the device of the plan, by precision; `recipe` is what the recipe
    computes in; only precisions that are settings of the stage. memory, device_memory: bytes at the peak. details:
    more of what is known, such as clips and steps.
    """

    seconds: list[float] = field(default_factory=list)
    device_seconds: list[dict[str, float]] = field(default_factory=list)
    memory: float | None = None
    device_memory: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a recipe that is planned.

    parameters: as its class has them. clips: of each of its tasks. inputs: the stages that it reads, by the name of the
    input. classes: of a stage that makes labels. expected: whether the clips are those that were published, of which no
    file can be opened. device: what its times are estimated for, beside this machine.
    """

    parameters: Any
    clips: tuple[tuple[Clip, ...], ...]
    inputs: Mapping[str, tuple[PlannedStage, ...]]
    classes: ClassTable | None
    expected: bool
    device: Device

    def input(self, name: str) -> PlannedStage:
        """A required input of one stage."""
        (stage,) = self.inputs[name]
        return stage

    def clip_count(self) -> int:
        """Number of clips of all tasks."""
        return sum(map(number_of, self.clips))

    def form(self, clips: Sequence[Clip]) -> Form:
        """Seconds, channels and sampling rate of a task's clips: of the first that can be opened, which stands
        for all recordings of a machine; else as published."""
        recorded = None if self.expected else _recorded_form(clips)
        if recorded is not None:
            return recorded
        first = clips[0]
        channels = len(catalog.year(first.year).channels) if first.year in catalog.years() and first.year else 1
        return expected_seconds(first.year, first.machine), channels, 16_000


def _recorded_form(clips: Sequence[Clip]) -> Form | None:
    return next((form for clip in clips[:3] if (form := _file_form(str(clip.path))) is not None), None)


@lru_cache(maxsize=4096)
def _file_form(file: str) -> Form | None:
    try:
        header = read_file_header(file)
    except AudioError:
        return None
    if not header.frames:
        return None
    return header.frames / header.sample_rate, header.channels, header.sample_rate


@dataclass(frozen=True)
class Passed:
    """Clips of a training: with a class (or a second label), trained on and held out; and its steps."""

    usable: int
    trained: int
    held_out: int
    steps: int
    evaluations: int


def passed(training: TrainingSpec, clips: Iterable[Clip], table: ClassTable) -> Passed:
    """Clips and steps of `training.loop.train` with these settings on one device."""
    second = any(loss.target == "mixture" for loss in training.losses) and table.mixture_of is not None
    counts: Counter[int] = Counter()
    for clip in clips:
        label = table.class_of.get(clip.clip_id)
        if label is None or clip.split == "test":
            continue
        if label != UNUSED or (second and (table.mixture_of or {})[clip.clip_id] != UNUSED):
            counts[label] += number_of([clip])
    held = sum(held_out_clips(count, training.held_out) for label, count in counts.items() if label != UNUSED)
    usable = sum(counts.values())
    trained = usable - held
    size = max(1, min(training.batch, trained))
    steps = training.steps_of(trained // size)
    return Passed(usable, trained, held, steps, math.ceil(steps / training.evaluate_every))


def seconds_by_precision(device: Device, work: Work, precision: str) -> dict[str, float]:
    """Seconds by precision that a stage can be set to; `recipe`: with the precision of the recipe."""
    by_precision = {name: device.seconds(work, name) for name in devices.PRECISIONS}
    return {"recipe": device.seconds(work, precision), **by_precision}


def training_cost(
    planned: PlannedStage,
    counts: Counts,
    training: TrainingSpec | PretrainingSpec,
    work: Work,
    *,
    threads: int,
    tasks: int,
    details: Mapping[str, Any],
) -> Cost:
    """Cost of trainings of `work` each, on so many threads of this machine and on the planned device.

    details: further ones, before those of the network and its steps.
    """
    machine, device, step = devices.this_machine(threads), planned.device, estimate.step_work(counts, training)
    return Cost(
        seconds=[machine.seconds(work)] * tasks,
        device_seconds=[seconds_by_precision(device, work, training.precision)] * tasks,
        memory=estimate.training_memory(counts, training, machine),
        device_memory=estimate.training_memory(counts, training, device),
        details={
            **details, "network_parameters": counts.parameters, "threads": threads, "step_flops": step.flops,
            "step_seconds": machine.seconds(step), "precision": training.precision,
        },
    )  # fmt: skip


def embedding_cost(
    planned: PlannedStage,
    counts: Counts,
    passes: Callable[[float], float],
    *,
    all_channels: bool = False,
    precision: str | None = "fp32",
) -> Cost:
    """Cost of clips that pass a network; on this machine one by one, on one thread.

    passes: seconds of a clip -> how many times the work of `counts.forward` is done. all_channels: each of several
    microphones passes. precision: on the device, where many clips pass together; it is not used for None.
    """
    machine, device = devices.this_machine(1), planned.device
    together = estimate.EMBEDDED_TOGETHER
    cost = Cost(
        memory=estimate.embedding_memory(counts, machine),
        device_memory=None if precision is None else estimate.embedding_memory(counts, device, together),
        details={
            "clips": planned.clip_count(), "network_parameters": counts.parameters,
            "clip_flops": counts.forward.flops,
        },
    )  # fmt: skip
    for clips in planned.clips:
        seconds, channels, _ = planned.form(clips)
        times = passes(seconds) * (channels if all_channels else 1)
        count = number_of(clips)
        cost.seconds.append(count * times * machine.seconds(counts.forward))
        if precision is None:
            continue
        cost.device_seconds.append(seconds_by_precision(device, counts.forward * (count * times), precision))
    return cost


def front_end_cost(planned: PlannedStage, encoder: str, config: str) -> Cost:
    """Cost of clips that pass an encoder without a network, on one thread of this machine. config: as JSON."""
    each = estimate.front_end_seconds(encoder, config)
    seconds = [number_of(clips) * each * planned.form(clips)[0] / 10 for clips in planned.clips]
    return Cost(seconds=seconds, details={"clips": planned.clip_count()})
