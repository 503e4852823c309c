"""Full-size steps of the small diffusion model and of Xception, on random weights, with their memory.

    python benchmarks/generation.py [unet|xception ...] [--frames 1024] [--threads 2]

Each network in a separate process. Times are CPU time; memory is the peak of the process after two training steps.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

GIB = 2**20


def unet(frames: int) -> tuple[nn.Module, Callable[[], None], Callable[[], None]]:
    """The network, one forward pass of a clip, and a batch of one both ways."""
    from harken.generation.diffusion_settings import SIZES
    from harken.generation.unet import SpectrogramUNet, diffusion_loss, noise_scheduler

    config = SIZES["small"]
    net, scheduler = SpectrogramUNet(config, 1114), noise_scheduler(config)
    image_B1MF, class_B = torch.randn(1, 1, 128, frames), torch.zeros(1, dtype=torch.long)

    @torch.no_grad()
    def forward() -> None:
        net(image_B1MF, torch.zeros(1), class_B)

    return net, forward, lambda: diffusion_loss(net, scheduler, image_B1MF, class_B).backward()


def xception(frames: int) -> tuple[nn.Module, Callable[[], None], Callable[[], None]]:
    """The network, one forward pass of a clip, and a batch of two both ways."""
    from harken.generation.xception import Xception

    net = Xception(classes=60)
    x_B1MF, class_B = torch.randn(2, 1, 128, frames), torch.zeros(2, dtype=torch.long)

    @torch.no_grad()
    def forward() -> None:
        net.eval()(x_B1MF[:1])

    return net, forward, lambda: F.cross_entropy(net.train()(x_B1MF), class_B).backward()


NETWORKS = {"unet": unet, "xception": xception}


def measure(name: str, frames: int) -> None:
    """Print one line."""
    net, forward, both_ways = NETWORKS[name](frames)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4)
    times = []

    def step() -> None:
        both_ways()
        optimiser.step()
        optimiser.zero_grad()

    for call in (forward, step, step):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB
    print(f"{name}: {parameters / 1e6:.1f} M parameters, forward {times[0]:.1f} s, ", end="")
    print(f"step {times[2]:.1f} s, {memory:.1f} GiB")


def main() -> None:
    """Measure each network in its process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], default=[])
    parser.add_argument("--frames", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.networks or NETWORKS:
        if options.here:
            measure(name, options.frames)
        else:
            words = [name, "--frames", str(options.frames), "--threads", str(options.threads), "--here"]
            subprocess.run([sys.executable, __file__, *words], check=True)


if __name__ == "__main__":
    main()
