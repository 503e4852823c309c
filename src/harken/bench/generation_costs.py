"""Cost of generating clips, by generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from harken.bench import devices, estimate
from harken.bench.costs import Cost, PlannedStage, seconds_by_precision
from harken.bench.kept_counts import kept_counts
from harken.bench.work import Counts
from harken.generation.generator import check_generator
from harken.generation.tangoflux_settings import FinetuningSpec, TangoFluxSampling, levels
from harken.generation.tangoflux_weights import config_for

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


def count_tangoflux(weights: str | None, size: str, training: FinetuningSpec) -> Counts:
    """See `tangoflux_counting.count_finetuning`. Equal questions are answered from the user's cache."""
    config = config_for(weights, size)

    def count() -> Counts:
        from harken.bench import tangoflux_counting

        return tangoflux_counting.count_finetuning(config, training)

    shaping = training.model_dump(mode="json", include={"batch", "adapter", "recompute", "precision"})
    return kept_counts({"tangoflux": config.model_dump(mode="json"), "training": shaping}, count)


def count_codec(weights: str | None, size: str, seconds: float) -> tuple[Counts, Counts]:
    """See `tangoflux_counting.count_codec`: of encoding a clip, and of decoding one."""
    config = config_for(weights, size)

    def count(decoding: bool) -> Counts:
        from harken.bench import tangoflux_counting

        return tangoflux_counting.count_codec(config, seconds, decoding=decoding)

    question = {"tangoflux_codec": config.model_dump(mode="json"), "seconds": seconds}
    encoding, decoding = (
        kept_counts({**question, "decoding": decoding}, partial(count, decoding)) for decoding in (False, True)
    )
    return encoding, decoding


def _tangoflux(parameters: Any, sampling: TangoFluxSampling) -> tuple[Counts, float]:
    """Of a clip of 10 s: encoded where it starts from a reference, two passes per guided step, decoded."""
    counts = count_tangoflux(parameters.weights, parameters.size, parameters.training)
    encoding, decoding = count_codec(parameters.weights, parameters.size, 10.0)
    passes = len(levels(sampling.steps, sampling.s0)) * (1 if sampling.guidance == 1 else 2)
    work = counts.forward * passes + decoding.forward + encoding.forward * (sampling.s0 < 1)
    live = max(2 * counts.forward_live, encoding.forward_live, decoding.forward_live)
    return replace(counts, parameters=counts.parameters + encoding.parameters, forward=work, forward_live=live), 1.0


#: by generator
PASSES: Mapping[str, Passes] = {"small_diffusion": _small_diffusion, "tangoflux": _tangoflux}
