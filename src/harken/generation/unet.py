"""The U-Net of the small diffusion model, the course of its noise, and its sampling; all of them diffusers'."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harken.generation.diffusion_settings import DdimSampling, DiffusionConfig
from harken.generation.libraries import diffusers
from harken.generation.standardised import StandardisedNet


class SpectrogramUNet(StandardisedNet):
    """(clips, 1, bins, frames) noisy spectrograms, their steps and classes -> noise or velocity of the same shape."""

    def __init__(self, config: DiffusionConfig, classes: int) -> None:
        """Raises HarkenError without diffusers."""
        super().__init__()
        self.config = config
        attends = [level in config.attention for level in range(len(config.channels))]
        self.unet = diffusers().UNet2DModel(
            in_channels=1,
            out_channels=1,
            block_out_channels=config.channels,
            layers_per_block=config.layers,
            down_block_types=["AttnDownBlock2D" if attending else "DownBlock2D" for attending in attends],
            up_block_types=["AttnUpBlock2D" if attending else "UpBlock2D" for attending in reversed(attends)],
            attention_head_dim=config.head_width,
            norm_num_groups=config.groups,
            dropout=config.dropout,
            num_class_embeds=classes,
            num_train_timesteps=config.noise_steps,
        )

    def forward(self, noisy_B1MF: Tensor, step_B: Tensor, class_B: Tensor) -> Tensor:
        """The prediction. step_B: of the noise, 0 is the least. class_B: indices."""
        output: Tensor = self.unet(noisy_B1MF, step_B, class_labels=class_B, return_dict=False)[0]
        return output

    def image(self, spectrogram_BFM: Tensor) -> Tensor:
        """(clips, frames, bins) -> (clips, 1, bins, frames), standardised and padded to sizes that can be halved."""
        x_B1MF = self.standardised(spectrogram_BFM)
        unit = self.config.unit
        bins, frames = -x_B1MF.shape[2] % unit, -x_B1MF.shape[3] % unit
        return F.pad(x_B1MF, (0, frames, 0, bins), mode="replicate") if bins or frames else x_B1MF

    def spectrogram(self, image_B1MF: Tensor, shape: tuple[int, ...]) -> Tensor:
        """What `image` was made of. shape: (frames, bins) of the spectrograms."""
        frames, bins = shape
        x_BFM = image_B1MF[:, 0, :bins, :frames].transpose(1, 2)
        return x_BFM * self.deviation + self.mean


def noise_scheduler(config: DiffusionConfig, sampling: DdimSampling = DdimSampling()) -> Any:
    """diffusers' `DDIMScheduler`. Values are clipped where the sampling says so only: standardised log-mels are not
    within [-1, 1], at which the library's default clips."""
    return diffusers().DDIMScheduler(
        num_train_timesteps=config.noise_steps,
        beta_schedule=config.noise_schedule,
        prediction_type=config.prediction,
        clip_sample=sampling.limit is not None,
        clip_sample_range=sampling.limit or 1.0,
        timestep_spacing=sampling.spacing,
    )


def diffusion_loss(net: nn.Module, scheduler: Any, image_B1MF: Tensor, class_B: Tensor) -> Tensor:
    """Mean squared error of the predicted noise, or velocity, at steps drawn evenly (Ho et al., NeurIPS 2020, eq. 14).

    Noise and steps are drawn from the CPU's generator, whatever the device.
    """
    step_B = torch.randint(scheduler.config.num_train_timesteps, (len(image_B1MF),)).to(image_B1MF.device)
    noise_B1MF = torch.randn(image_B1MF.shape).to(image_B1MF)
    prediction_B1MF = net(scheduler.add_noise(image_B1MF, noise_B1MF, step_B), step_B, class_B)
    target_B1MF = noise_B1MF
    if scheduler.config.prediction_type == "v_prediction":
        target_B1MF = scheduler.get_velocity(image_B1MF, noise_B1MF, step_B)
    return F.mse_loss(prediction_B1MF.float(), target_B1MF.float())


@torch.no_grad()
def sample(
    net: SpectrogramUNet, shape: tuple[int, ...], class_B: Tensor, seeds: list[int], sampling: DdimSampling
) -> Tensor:
    """(clips, frames, bins) drawn by DDIM. shape: (frames, bins). class_B, seeds: of each clip; a clip's noise depends
    on its seed alone."""
    frames, bins = shape
    unit, device = net.config.unit, class_B.device
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise() -> Tensor:
        size = (1, bins + -bins % unit, frames + -frames % unit)
        return torch.stack([torch.randn(size, generator=generator) for generator in generators]).to(device)

    scheduler = noise_scheduler(net.config, sampling)
    scheduler.set_timesteps(sampling.steps)
    x_B1MF = noise()
    for step in scheduler.timesteps:
        prediction_B1MF = net(x_B1MF, step.to(device).expand(len(x_B1MF)), class_B)
        drawn_B1MF = noise() if sampling.eta else None
        x_B1MF = scheduler.step(prediction_B1MF, step, x_B1MF, eta=sampling.eta, variance_noise=drawn_B1MF).prev_sample
    return net.spectrogram(x_B1MF, shape)
