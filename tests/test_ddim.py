"""The small diffusion model's noise and sampling against numbers of the published scheduler."""

from __future__ import annotations

import json
from typing import Any

import pytest
import safetensors.torch
import torch

from conftest import SHARED, needs
from harken.generation.diffusion_settings import SIZES, DdimSampling, DiffusionConfig
from harken.generation.libraries import diffusers
from harken.generation.unet import SpectrogramUNet, diffusion_loss, noise_scheduler, sample

GOLDEN = SHARED / "golden" / "ddim"
pytestmark = needs("diffusers")
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden numbers of DDIM here")


def cases() -> list[str]:
    file = GOLDEN / "ddim_seed11.json"
    return sorted(json.loads(file.read_text())["cases"]) if file.is_file() else []


def golden(case: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    arrays = safetensors.torch.load_file(GOLDEN / "ddim_seed11.safetensors")
    settings = json.loads((GOLDEN / "ddim_seed11.json").read_text())["cases"][case]
    prefix = f"{case}."
    return settings, {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}


@needs_golden
@pytest.mark.parametrize("case", cases())
def test_noise_and_steps_are_those_of_the_published_scheduler(case: str) -> None:
    settings, numbers = golden(case)
    scheduler = diffusers().DDIMScheduler(**settings)
    close = {"atol": 1e-4, "rtol": 0}
    torch.testing.assert_close(scheduler.alphas_cumprod.float(), numbers["alphas_cumprod"].float(), **close)
    noisy = scheduler.add_noise(numbers["x0"], numbers["noise"], numbers["t_add"].long())
    torch.testing.assert_close(noisy, numbers["noisy"], **close)
    velocity = scheduler.get_velocity(numbers["x0"], numbers["noise"], numbers["t_add"].long())
    torch.testing.assert_close(velocity, numbers["velocity"], **close)
    scheduler.set_timesteps(len(numbers["timesteps"]))
    assert scheduler.timesteps.tolist() == numbers["timesteps"].tolist()
    for eta in ("0.0", "0.7"):
        x = numbers[f"eta{eta}.start"]
        for number, step in enumerate(scheduler.timesteps):
            noise = numbers[f"eta{eta}.variance_noise"][number] if eta != "0.0" else None
            output = numbers[f"eta{eta}.model_outputs"][number]
            done = scheduler.step(output, step, x, eta=float(eta), variance_noise=noise)
            x = done.prev_sample
            torch.testing.assert_close(x, numbers[f"eta{eta}.samples"][number], **close)
            torch.testing.assert_close(done.pred_original_sample, numbers[f"eta{eta}.pred_original"][number], **close)


@needs_golden
def test_the_default_course_of_the_noise_is_the_published_one() -> None:
    _, numbers = golden("linear_eps_lead")
    scheduler = noise_scheduler(SIZES["small"])
    assert torch.equal(scheduler.alphas_cumprod, numbers["alphas_cumprod"])
    assert not scheduler.config.clip_sample


class Oracle(torch.nn.Module):
    """Knows the spectrogram that a noisy one was made of, and says its noise, or velocity."""

    def __init__(self, net: SpectrogramUNet, truth_B1MF: torch.Tensor) -> None:
        super().__init__()
        self.net, self.truth_B1MF, self.config = net, truth_B1MF, net.config
        self.spectrogram = net.spectrogram
        self.alphas = noise_scheduler(net.config).alphas_cumprod

    def forward(self, noisy_B1MF: torch.Tensor, step_B: torch.Tensor, class_B: torch.Tensor) -> torch.Tensor:
        alpha_B111 = self.alphas[step_B.long()][:, None, None, None]
        noise_B1MF = (noisy_B1MF - alpha_B111.sqrt() * self.truth_B1MF) / (1 - alpha_B111).sqrt()
        if self.config.prediction == "epsilon":
            return noise_B1MF
        return alpha_B111.sqrt() * noise_B1MF - (1 - alpha_B111).sqrt() * self.truth_B1MF


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_network_that_knows_the_truth_has_no_loss_and_samples_it(prediction: str) -> None:
    config = DiffusionConfig.model_validate({**SIZES["tiny"].model_dump(), "prediction": prediction})
    net = SpectrogramUNet(config, 3)
    net.mean.fill_(-2.0)
    net.deviation.fill_(3.0)
    truth_BFM = 3 * torch.randn(2, 21, 30) - 2
    oracle = Oracle(net, net.image(truth_BFM))
    class_B = torch.tensor([0, 2])
    torch.manual_seed(1)
    assert float(diffusion_loss(oracle, noise_scheduler(config), oracle.truth_B1MF, class_B)) < 1e-8
    drawn_BFM = sample(oracle, (21, 30), class_B, [1, 2], DdimSampling(steps=10))  # type: ignore[arg-type]
    torch.testing.assert_close(drawn_BFM, truth_BFM, atol=0.05, rtol=0)


def test_a_clip_depends_on_its_seed_and_class_alone() -> None:
    torch.manual_seed(0)
    net = SpectrogramUNet(SIZES["tiny"], 3).eval()
    settings = DdimSampling(steps=2, eta=1.0)

    def drawn(label: int, seed: int) -> torch.Tensor:
        torch.rand(3)
        return sample(net, (16, 24), torch.tensor([label]), [seed], settings)

    assert torch.equal(drawn(0, 5), drawn(0, 5))
    assert not torch.equal(drawn(0, 5), drawn(0, 6))
    assert not torch.equal(drawn(0, 5), drawn(1, 5))
