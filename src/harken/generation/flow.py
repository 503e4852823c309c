"""Rectified flow: the loss of a training, and sampling from noise or from a noisy reference.

    x_s = (1 - s) x_0 + s noise,    velocity = noise - x_0

Liu et al., "Flow Straight and Fast", ICLR 2023; Esser et al., "Scaling Rectified Flow Transformers", ICML 2024, section
3.1 (times of a logit-normal distribution).
"""

from __future__ import annotations

import torch
from torch import Tensor

from harken.core.errors import HarkenError
from harken.generation.libraries import diffusers
from harken.generation.tangoflux import Conditioning, TangoFlux
from harken.generation.tangoflux_settings import levels

#: noise levels of a training
TIMES = 1000


def times_of(uniform_B: Tensor) -> Tensor:
    """Noise levels s in (0, 1] of draws in [0, 1), on the scale of `TIMES` levels; small draws are much noise."""
    scheduler = diffusers().FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMES, shift=1.0)
    sigmas = scheduler.sigmas.to(uniform_B.device)
    index_B = (uniform_B * TIMES).long().clamp(max=TIMES - 1)
    time_B: Tensor = sigmas[index_B]
    return time_B


def logit_normal(count: int, generator: torch.Generator) -> Tensor:
    """(count,) draws for `times_of`: of most, half of the noise is there."""
    return torch.sigmoid(torch.randn(count, generator=generator))


def noisy_at(latents_BTD: Tensor, noise_BTD: Tensor, time_B: Tensor) -> Tensor:
    """Latents at noise levels s."""
    s_B11 = time_B[:, None, None]
    return (1 - s_B11) * latents_BTD + s_B11 * noise_BTD


def flow_loss(velocity_BTD: Tensor, latents_BTD: Tensor, noise_BTD: Tensor) -> Tensor:
    """Mean squared error of velocities."""
    return torch.nn.functional.mse_loss(velocity_BTD, noise_BTD - latents_BTD)


def sample(
    net: TangoFlux,
    noise_BTD: Tensor,
    condition: Conditioning,
    unconditional: Conditioning,
    *,
    steps: int,
    guidance: float,
    reference_BTD: Tensor | None = None,
    start: float = 1.0,
) -> Tensor:
    """Latents of a condition by Euler steps; with classifier-free guidance (Ho and Salimans, 2022):

        velocity = v(unconditional) + guidance (v(condition) - v(unconditional))

    reference_BTD: latents of sounds to start from, which get a share `start` of noise (Meng et al., "SDEdit", ICLR
    2022): the closer to 0 it is, the closer to them the result; at 1 nothing of them is left. Raises HarkenError for
    `start` outside (0, 1] and, below 1, without reference.
    """
    if start < 1 and reference_BTD is None:
        raise HarkenError("s0 below 1 needs a reference to start from", next_step="Give a reference, or s0 = 1")
    scheduler = diffusers().FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMES, shift=1.0)
    scheduler.set_timesteps(sigmas=levels(steps, start), device=noise_BTD.device)
    clips = len(noise_BTD)
    x_BTD = noise_BTD
    if start < 1:
        assert reference_BTD is not None
        x_BTD = noisy_at(reference_BTD, noise_BTD, torch.full((clips,), start, device=noise_BTD.device))
    both = Conditioning(*(torch.cat(pair) for pair in zip(unconditional, condition, strict=True)))
    for timestep in scheduler.timesteps:
        if guidance == 1:
            velocity_BTD = net(x_BTD, (timestep / TIMES).expand(clips), condition)
        else:
            without, given = net(torch.cat([x_BTD, x_BTD]), (timestep / TIMES).expand(2 * clips), both).chunk(2)
            velocity_BTD = without + guidance * (given - without)
        x_BTD = scheduler.step(velocity_BTD, timestep, x_BTD, return_dict=False)[0]
    return x_BTD
