"""TangoFlux at full size with random weights: one step of fine-tuning with cached latents and without, and one pass of
sampling; CPU time and peak memory of the process.

    python benchmarks/tangoflux.py [--cached] [--adapter RANK] [--recompute] [--seconds 10] [--threads 2]

Without `--cached` the clip passes the autoencoder and its caption the text encoder in the process of the step. Decoding
is left out: it is as long as encoding.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np
import torch

from harken.generation.config import SIZES
from harken.generation.finetuning import ADAPTED, LatentBatch, VelocityStep
from harken.generation.latents import SoundCodec
from harken.generation.tangoflux import TangoFlux
from harken.generation.text import Tokens, text_encoder, text_states
from harken.training.lora import add_lora_to
from harken.training.optimiser import adamw, parameter_groups

GIB = 2**30
#: tokens of a caption
TOKENS = 32


class Clock:
    """CPU seconds and peak memory of named parts."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}
        self.start = time.process_time()

    def lap(self, name: str) -> None:
        """End of a part."""
        now, peak = time.process_time(), 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.rows[name] = {"cpu_seconds": round(now - self.start, 2), "peak_gib": round(peak / GIB, 2)}
        print(json.dumps({name: self.rows[name]}), flush=True)
        self.start = time.process_time()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cached", action="store_true")
    parser.add_argument("--adapter", type=int)
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config, clock = SIZES["full"], Clock()
    rng = np.random.default_rng(0)
    if options.cached:
        latents_TD = rng.standard_normal((config.latents, config.channels), np.float32)
        states_BLD, mask_BL = torch.randn(1, TOKENS, config.text.width), torch.ones(1, TOKENS)
    else:
        codec, encoder = SoundCodec(config), text_encoder(config.text)
        clock.lap("autoencoder and text encoder made")
        latents_TD = codec.encode(0.1 * rng.standard_normal(round(16_000 * options.seconds), np.float32), 16_000)
        clock.lap(f"{options.seconds:g} s of sound encoded, and silence")
        ids_BL = torch.from_numpy(rng.integers(3, 32_000, (1, TOKENS)))
        states_BLD, mask_BL = text_states(encoder, Tokens(ids_BL, torch.ones_like(ids_BL)))
        clock.lap("caption encoded")
    step = VelocityStep(TangoFlux(config))
    if options.adapter is not None:
        add_lora_to(step.net, ADAPTED, options.adapter)
    if options.recompute:
        step.net.transformer.enable_gradient_checkpointing()
    optimiser = adamw(parameter_groups(step.net, learning_rate=1e-4, weight_decay=0.01, layer_decay=1.0))
    print(json.dumps({"parameters": sum(p.numel() for p in step.parameters())}))
    clock.lap("network made")
    latents_BTD = torch.from_numpy(latents_TD[None])
    batch = LatentBatch(
        0, 0, np.zeros(1, np.int64), torch.zeros(1, 0), {}, latents_BTD=latents_BTD,
        noise_BTD=torch.randn_like(latents_BTD), time_B=torch.tensor([0.5]), states_BLD=states_BLD, mask_BL=mask_BL,
        seconds_B=torch.tensor([options.seconds]),
    )  # fmt: skip
    for number in (1, 2):
        step(batch, torch.device("cpu")).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        clock.lap(f"step {number}")
    step.eval()
    with torch.inference_mode():
        step(batch, torch.device("cpu"))
    clock.lap("pass of sampling, half of a guided step")


if __name__ == "__main__":
    main()
