"""Cost of generating clips, by generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harken.bench import devices, estimate
from harken.bench.costs import Cost, PlannedStage, seconds_by_precision
from harken.bench.work import Counts
from harken.generation.generator import check_generator

#: of a trained generator's parameters and the settings of a sampling: counts of its network, `forward` being one pass
#: of one clip, and passes per clip
Passes = Callable[[Any, Any], tuple[Counts, float]]


def sampling_cost(generator: str, planned: PlannedStage, sampling: Any, clips: int) -> Cost:
    """Cost of `clips` clips, which pass one by one on a thread of this machine and on the planned device."""
    check_generator(generator)
    if estimate.why_not() is not None or generator not in PASSES:
        return Cost()
    counts, passes = PASSES[generator](planned.input("generator").parameters, sampling)
    machine, device, work = devices.this_machine(1), planned.device, counts.forward * (clips * passes)
    return Cost(
        seconds=[machine.seconds(work)],
        device_seconds=[seconds_by_precision(device, work, "fp32")],
        memory=estimate.embedding_memory(counts, machine),
        device_memory=estimate.embedding_memory(counts, device),
        details={"network_parameters": counts.parameters, "clip_flops": counts.forward.flops * passes},
    )


def _small_diffusion(trained: Any, sampling: Any) -> tuple[Counts, float]:
    counts = estimate.count_diffusion(
        trained.architecture(), trained.front_end, trained.training.seconds, trained.training.batch
    )
    return counts, sampling.steps


#: by generator
PASSES: Mapping[str, Passes] = {"small_diffusion": _small_diffusion}
