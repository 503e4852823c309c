"""Precision of a neural encoder: clips/s, CPU time, memory and cosine similarity.

    python benchmarks/encoders.py [beats] [--batches 1 8] [--rounds 5] [--threads 2] [--tiny]
    python benchmarks/encoders.py --cuda

Weights are random, clips are 10 s. Each case runs in a separate process; the processes alternate, so that they run
under the same load; the fastest round counts. `plain` is BEATs with attention as in its reference: (tokens, clips)
layout, the position bias looked up for every pair of tokens and repeated for every clip and head, logits shifted by
their maximum before scaling, explicit softmax; front end, convolution and feed-forward networks are the same in all
cases. For other encoders, ratios refer to `fp32`. ONNX cases run without torch.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 10.0
CPU_CASES = ("plain", "eager", "fp32", "bf16", "int8", "onnx", "onnx-int8")
CUDA_CASES = ("plain", "eager", "fp32", "bf16")
#: cases of encoders with both kinds of attention
BEATS_ONLY = ("plain", "eager")


# ------------------------------------------------------------ one case, in a separate process


def clips(count: int, rate: int) -> np.ndarray:
    """(count, samples) hums of different machines in noise."""
    rng = np.random.default_rng(0)
    time_S = np.arange(round(SECONDS * rate)) / rate
    signals = []
    for _ in range(count):
        speed, noise = rng.uniform(20, 90), rng.uniform(0.003, 0.05)
        hum = sum(np.sin(2 * np.pi * speed * k * time_S + rng.uniform(0, 6)) / k for k in range(1, 12))
        signals.append(0.1 * hum + noise * rng.normal(size=len(time_S)))
    return np.array(signals, dtype=np.float32)


def plain_attention(block: Any, x_BLD: Any, bias_HLL: Any, padding_BL: Any, attention: str) -> Any:
    """Attention of one block of BEATs as the reference computes it."""
    import torch
    from torch import nn

    x_LBD = x_BLD.transpose(0, 1)
    length, count, width = x_LBD.shape
    heads, size = block.heads, width // block.heads
    # Logits are scaled down, then up again, against overflow in half precision.
    shrink = 32
    bias_NLL = bias_HLL.unsqueeze(0).repeat(count, 1, 1, 1).view(count * heads, length, length)
    q_LBD = block.q_proj(x_LBD) * (size**-0.5 / shrink)
    q_NLE, k_NLE, v_NLE = (
        y_LBD.contiguous().view(length, count * heads, size).transpose(0, 1)
        for y_LBD in (q_LBD, block.k_proj(x_LBD), block.v_proj(x_LBD))
    )
    logits_NLL = torch.bmm(q_NLE, k_NLE.transpose(1, 2))
    logits_NLL = (logits_NLL - logits_NLL.max(dim=-1, keepdim=True)[0]) * shrink
    q_BHLE = q_NLE.view(count, heads, length, size) * (shrink / size**-0.5)
    gates_BHL2 = torch.sigmoid(block.grep_linear(q_BHLE).view(count, heads, length, 2, 4).sum(-1))
    update_BHL1, reset_BHL1 = gates_BHL2.chunk(2, dim=-1)
    gate_BHL1 = update_BHL1 * (reset_BHL1 * block.grep_a - 1.0) + 2.0
    logits_NLL = logits_NLL + gate_BHL1.view(count * heads, length, 1) * bias_NLL
    probability_NLL = nn.functional.softmax(logits_NLL, dim=-1)
    y_LBD = torch.bmm(probability_NLL, v_NLE).transpose(0, 1).contiguous().view(length, count, width)
    return block.out_proj(y_LBD).transpose(0, 1)


def plain_bias(encoder: Any, length: int) -> Any:
    """Position bias of BEATs, looked up for every pair of tokens."""
    import torch

    position_L = torch.arange(length)
    distance_LL = position_L[None] - position_L[:, None]
    half = encoder.buckets // 2
    exact = half // 2
    size_LL = distance_LL.abs()
    far_LL = torch.log(size_LL.float() / exact) / math.log(encoder.max_distance / exact) * (half - exact)
    far_LL = (exact + far_LL.clamp(min=0)).long().clamp(max=half - 1)
    bucket_LL = torch.where(size_LL < exact, size_LL, far_LL) + half * (distance_LL > 0).long()
    table = encoder.relative_attention_bias
    return table(bucket_LL.to(table.weight.device)).permute(2, 0, 1)


def network(name: str, case: str, config: dict[str, Any], device: str) -> tuple[Any, int]:
    """(clips, samples) tensor -> features of the default layer; and the sampling rate."""
    from harken.encoders import create_encoder
    from harken.encoders.precision import apply_precision

    options = {"attention": "eager"} if case in BEATS_ONLY else {}
    encoder: Any = create_encoder(name, {**config, **options})
    encoder.to(device)
    if case == "plain":
        stack = encoder.module.encoder
        stack._position_bias = lambda length: plain_bias(stack, length)
        for block in stack.layers:
            attention = block.self_attn
            attention.forward = lambda *inputs, attention=attention: plain_attention(attention, *inputs)
    module = apply_precision(encoder.module, case if case in ("bf16", "int8") else "fp32")  # type: ignore[arg-type]
    return lambda wave_BS: module(wave_BS, (encoder.default_layer,))[0], encoder.sample_rate


def torch_task(options: argparse.Namespace) -> Callable[[], np.ndarray]:
    import torch

    torch.set_num_threads(options.threads)
    device = "cuda" if options.cuda else "cpu"
    net, rate = network(options.encoder, options.case, options.config, device)
    wave_BS = torch.from_numpy(clips(options.batch, rate)).to(device)

    def task() -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(net(wave_BS).float().mean(dim=1).cpu().numpy())

    return task


def onnx_task(options: argparse.Namespace) -> Callable[[], np.ndarray]:
    from harken.encoders.onnx import OnnxEncoder

    encoder = OnnxEncoder.of_file(options.folder / f"{options.case}.onnx", threads=options.threads)
    wave_BS = clips(options.batch, encoder.sample_rate)
    batches = np.split(wave_BS, options.batch) if encoder.card.clips == 1 else [wave_BS]

    def task() -> np.ndarray:
        return np.concatenate([encoder.run(batch_BS).mean(axis=1) for batch_BS in batches])

    return task


def serve(options: argparse.Namespace) -> None:
    """Answer each input line with the time of one run; at the end of input, write memory and embeddings."""
    from harken.core.errors import HarkenError

    try:
        task = (onnx_task if options.case.startswith("onnx") else torch_task)(options)
        embedding_BD = task()
    except HarkenError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    print(json.dumps({}), flush=True)
    for _ in sys.stdin:
        begun, used = time.perf_counter(), time.process_time()
        embedding_BD = task()
        print(json.dumps({"wall": time.perf_counter() - begun, "cpu": time.process_time() - used}), flush=True)
    np.save(options.folder / f"{options.case}.npy", embedding_BD)
    if options.cuda:
        import torch

        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    print(json.dumps({"peak": peak}), flush=True)


def export(options: argparse.Namespace) -> None:
    """Write the files of the ONNX cases in advance, since exporting needs more memory than running."""
    from harken.core.errors import HarkenError
    from harken.encoders import create_encoder
    from harken.export.onnx import export_onnx

    encoder = create_encoder(options.encoder, options.config)
    for case in ("onnx", "onnx-int8"):
        file = options.folder / f"{case}.onnx"
        begun = time.perf_counter()
        try:
            card = export_onnx(encoder, file, seconds=SECONDS, int8=case == "onnx-int8")
        except HarkenError as error:
            print(f"{case}: {error}", flush=True)
            continue
        print(
            f"{case}: exported in {time.perf_counter() - begun:.0f} s, {file.stat().st_size / 2**20:.0f} MiB, "
            f"differs from torch by {card.max_abs_diff:.2g}, similarity {card.similarity:.6f}",
            flush=True,
        )


# ------------------------------------------------------------ all cases


def start(options: argparse.Namespace, case: str, batch: int, folder: Path) -> subprocess.Popen[str]:
    words = [options.encoder, "--case", case, "--batches", str(batch), "--threads", str(options.threads),
             "--folder", str(folder)]  # fmt: skip
    words += ["--cuda"] * options.cuda + ["--tiny"] * options.tiny
    # Busy-waiting threads would be charged CPU time under load.
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    program = [sys.executable, __file__, *words]
    return subprocess.Popen(program, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def ask(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    return dict(json.loads(child.stdout.readline()))


def table(options: argparse.Namespace, batch: int, folder: Path) -> None:
    cases = [case for case in (CUDA_CASES if options.cuda else CPU_CASES) if options.encoder == "beats" or case not in
             BEATS_ONLY]  # fmt: skip
    cases = [case for case in cases if not case.startswith("onnx") or (folder / f"{case}.onnx").is_file()]
    children, skipped = {}, {}
    for case in cases:
        child = start(options, case, batch, folder)
        assert child.stdout is not None
        ready = json.loads(child.stdout.readline() or '{"error": "ended"}')
        if "error" in ready:
            skipped[case] = ready["error"]
        else:
            children[case] = child
    rounds = [{case: ask(child) for case, child in children.items()} for _ in range(options.rounds)]
    ends = {case: json.loads(child.communicate()[0]) for case, child in children.items()}
    base = "plain" if "plain" in children else "fp32"
    wall = {case: min(found[case]["wall"] for found in rounds) for case in children}
    cpu = {case: min(found[case]["cpu"] for found in rounds) for case in children}
    exact_BD = np.load(folder / "fp32.npy").astype(np.float64)
    memory = "GPU MiB" if options.cuda else "peak RSS MiB"
    print(f"\n{options.encoder}, batch {batch}, {options.threads} threads")
    print(
        f"{'case':<10} {'clips/s':>8} {'x ' + base:>8} {'CPU-s/clip':>11} {'x ' + base:>8} {memory:>13} {'cosine':>10}"
    )
    for case in cases:
        if case in skipped:
            print(f"{case:<10} {skipped[case]}")
            continue
        ours_BD = np.load(folder / f"{case}.npy").astype(np.float64)
        norms_B = np.linalg.norm(ours_BD, axis=1) * np.linalg.norm(exact_BD, axis=1)
        cosine = ((ours_BD * exact_BD).sum(axis=1) / norms_B).min()
        print(
            f"{case:<10} {batch / wall[case]:8.2f} {wall[base] / wall[case]:8.2f} {cpu[case] / batch:11.3f} "
            f"{cpu[base] / cpu[case]:8.2f} {ends[case]['peak']:13.0f} {cosine:10.6f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", nargs="?", default="beats")
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="the configuration of tests")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    batches = options.batches or ([32, 64] if options.cuda else [1, 8])
    options.config = {}
    if options.tiny:
        options.config = getattr(import_module(f"harken.encoders.{options.encoder}"), "TINY", {})
    if options.case == "export":
        export(options)
    elif options.case:
        options.batch = batches[0]
        serve(options)
    else:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            if not options.cuda:
                print(start(options, "export", 1, folder).communicate()[0], end="")
            for batch in batches:
                table(options, batch, folder)


if __name__ == "__main__":
    main()
