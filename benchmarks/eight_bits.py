"""ONNX files of BEATs in 8 bits, one thread, a clip of 10 s at a time: CPU time, and cosine of mean features to fp32.

    python benchmarks/eight_bits.py [--depth 3] [--rounds 4]

As exported (a scale per channel, 7 bits), with all 8 bits, and with the graph optimised by onnxruntime.transformers;
torch beside it. Weights are random.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.optimizer import optimize_model

from harken.encoders import create_encoder
from harken.export.onnx import export_onnx

Run = Callable[[], np.ndarray]


def session(file: Path, wave_BS: np.ndarray) -> Run:
    """The file in one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    running = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = running.get_inputs()[0].name
    return lambda: np.asarray(running.run(None, {name: wave_BS})[0])


def eight_bits(source: Path, file: Path) -> None:
    """Products with large matrices of weights in 8 bits, with a scale per channel."""
    graph = onnx.load(source)
    del graph.graph.value_info[:]
    onnx.save(graph, source)
    large = {each.name for each in graph.graph.initializer if len(each.dims) == 2 and min(each.dims) >= 256}
    nodes = [node.name for node in graph.graph.node if node.op_type == "MatMul" and large & set(node.input)]
    more = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantize_dynamic(
        source, file, nodes_to_quantize=nodes, per_channel=True, weight_type=QuantType.QInt8, extra_options=more
    )


def cases(folder: Path, depth: int) -> dict[str, Run]:
    """What is compared, by name."""
    encoder = create_encoder("beats", {"depth": depth})
    wave_BS = np.random.default_rng(0).normal(scale=0.1, size=(1, 160_000)).astype(np.float32)
    single, exported = folder / "fp32.onnx", folder / "int8.onnx"
    export_onnx(encoder, single, seconds=10.0)
    export_onnx(encoder, exported, seconds=10.0, int8=True)
    runs = {"ONNX Runtime": session(single, wave_BS), "int8 as exported": session(exported, wave_BS)}
    optimised = folder / "optimised.onnx"
    optimize_model(str(single), "bert", num_heads=12, hidden_size=768, opt_level=0).save_model_to_file(str(optimised))
    runs["optimised graph"] = session(optimised, wave_BS)
    for name, source in (("int8 with all 8 bits", single), ("int8 with all 8 bits, optimised graph", optimised)):
        eight_bits(source, folder / "8.onnx")
        runs[name] = session(folder / "8.onnx", wave_BS)
    for precision in ("fp32", "bf16", "int8"):
        torch.manual_seed(0)
        again = create_encoder("beats", {"depth": depth})
        again.set_precision(precision)
        runs[f"torch {precision}"] = lambda again=again: again.encode(wave_BS).features_BLTD[0, -1]  # type: ignore[misc]
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4)
    words = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        runs = cases(Path(place), words.depth)
    least, means = dict.fromkeys(runs, np.inf), {}
    for _ in range(words.rounds):
        for name, run in runs.items():
            begun = time.process_time()
            features = run()
            least[name] = min(least[name], time.process_time() - begun)
            means[name] = features.reshape(-1, features.shape[-1]).mean(axis=0)
    reference_D = means["ONNX Runtime"]
    print(f"{'':<40}{'ms':>6}{'x fp32':>8}{'cosine':>10}")
    for name, mean_D in means.items():
        cosine = float(mean_D @ reference_D / np.linalg.norm(mean_D) / np.linalg.norm(reference_D))
        print(f"{name:<40}{1e3 * least[name]:>6.0f}{least['ONNX Runtime'] / least[name]:>8.2f}{cosine:>10.6f}")


if __name__ == "__main__":
    main()
