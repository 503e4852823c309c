"""Embedding on a Ray cluster and in local processes: time, and speed-up of two workers over one.

Clips are simulated, the encoder is a full-size architecture with random weights, the store is empty at each start;
outputs are compared. On one machine the nodes are local processes with a shared disk and a fast network: this
measures the overhead of Ray and shards, not a data centre. Time is measured from when tasks can be submitted.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from harken.bench.executor import _Run
from harken.bench.graph import make_tasks, make_units
from harken.bench.jobs import Executor
from harken.bench.local import LocalProcesses
from harken.bench.ray_cluster import RayCluster
from harken.bench.recipe import load_recipe
from harken.bench.run import load_clips
from harken.bench.workspace import Workspace
from harken.encoders import create_encoder
from harken.plant.simulate import simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--encoder", default="efficientat")
    parser.add_argument("--rounds", type=int, default=1, help="number of rounds; the fastest is shown")
    chosen = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    cores = len(os.sched_getaffinity(0))
    print(f"{chosen.clips} clips of {chosen.seconds:g} s, {chosen.encoder}; {cores} cores, {platform.machine()}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        weights = root / "weights.safetensors"
        save_file(dict(create_encoder(chosen.encoder, {"seed": 0}).weights()), weights)
        simulate(
            root / "plant", machines=["fan"], train_source=chosen.clips - 12, train_target=4, test_per_condition=2,
            supplemental=0, seconds=chosen.seconds,
        )  # fmt: skip
        changes = {"encoder": chosen.encoder, "stages.embed.weights": str(weights)}
        recipe = load_recipe("training_free", changes=changes)
        times: dict[str, float] = {}
        made: set[str] = set()
        for number in range(chosen.rounds):
            for where in ("local", "Ray"):
                for count in (1, 2):
                    name = f"{where}, {count}"
                    took, digest = measure(recipe, root, root / f"{name} {number}", where, count)
                    times[name] = min(took, times.get(name, took))
                    made.add(digest)
        print(f"{'workers':<12}{'seconds':>8}{'clips/s':>9}{'of one':>8}{'of local, 1':>13}")
        for name, took in times.items():
            one = times[f"{name.split(',')[0]}, 1"] / took
            rate = chosen.clips / took
            print(f"{name:<12}{took:>8.1f}{rate:>9.1f}{one:>8.2f}{times['local, 1'] / took:>13.2f}")
        print("the same bytes" if len(made) == 1 else "NOT the same bytes")


def measure(recipe: Any, root: Path, place: Path, where: str, count: int) -> tuple[float, str]:
    """Seconds of the embed stage, and a digest of its output."""
    clips, _ = load_clips(root / "plant")
    (unit,) = make_units(clips)
    tasks = {name: task for name, task in make_tasks(recipe, [unit]).items() if task.kind == "embed"}
    workspace = Workspace(place)
    if where == "local":
        return timed(tasks, workspace, LocalProcesses(count))
    import logging

    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for _ in range(count):
        cluster.add_node(num_cpus=1, object_store_memory=100 * 1024 * 1024)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        return timed(tasks, workspace, RayCluster())
    finally:
        ray.shutdown()
        cluster.shutdown()


def timed(tasks: Any, workspace: Workspace, executor: Executor) -> tuple[float, str]:
    with closing(executor.open(tasks, workspace)) as pool:
        run = _Run(tasks, workspace, pool, lambda event: None)
        began = time.monotonic()
        run.loop()
        took = time.monotonic() - began
    if run.failures:
        raise run.failures[0].error
    return took, hashlib.sha256("".join(made.digest for made in run.objects.values()).encode()).hexdigest()


if __name__ == "__main__":
    main()
