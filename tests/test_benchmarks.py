"""Benchmarks run and print their tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["detectors.py", "--seeds", "1"], "DEFAULT"),
        (["against_1nn.py", "--seeds", "1", "--sizes", "20"], "shift, N=20"),
        (["calibration.py", "--runs", "2"], "gaussian"),
        (["alarms.py", "--seeds", "1", "--sizes", "20"], "counts only"),
        (["episodes.py", "--seeds", "1", "--sizes", "60"], "CUSUM"),
        (["machine_type.py"], "spectral"),
        (["real_clips.py"], "slider id_00"),
        (["fuzz.py", "--files", "300"], "mutated recordings"),
        (["service.py", "--kills", "3", "--seconds", "3", "--sensors", "10"], "store: ok"),
        (["kills.py", "--kills", "2", "--seconds", "1"], "two writers of one model: 2 kills, 2 intact, 0 broken"),
        (["faults.py", "--only", "02"], "holds 0.25 s more than its header states"),
        (["throughput.py", "--clips", "1", "40", "--learned", "10"], "learned from"),
        (["peers.py", "--sizes", "5"], "harken spectral"),
        (["dcase.py", "--names", "2000"], "index 2000 real names"),
        (["sensors.py", "--clips", "1"], "not judged"),
        (["lengths.py", "--simulated", "--splits", "1", "--real-seconds", "5"], "slider id_00"),
        (["two_microphones.py", "--machines", "fan", "--test", "5"], "cancelled"),
        (["encoders.py", "--tiny", "--batches", "1", "--rounds", "1"], "onnx-int8"),
        (["ensemble.py", "--only", "grid"], "grid on the best"),
        (["finetuning.py", "kills", "--kills", "2"], "2 kills: the same bits"),
        (["pretraining.py", "curve", "--seeds", "1", "--steps", "4"], "class token, %"),
        (
            [
                "generated_detection.py",
                "--plants",
                "0",
                "--steps",
                "2",
                "--diffusion-steps",
                "2",
                "--tangoflux-steps",
                "2",
            ],
            "further real clips",
        ),
        (["toycar_cnn.py", "--seeds", "1", "--epochs", "1"], "random weights"),
        (["toycar.py", "--epochs", "2"], "1-NN"),
        (["gpu.py", "--device", "cpu", "--tiny", "--encoders", "eat"], "peak of bf16 products"),
        (["training_steps.py", "--encoders", "dual_branch", "--steps", "4"], "dual_branch"),
        (["large_banks.py", "--sizes", "1000", "--dimensions", "136"], "fit CPU-s"),
        (["separation.py", "--steps", "3"], "slider, with noise"),
        (["generation.py", "xception", "--frames", "32"], "20.9 M parameters"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_it_runs(shared: Path, words: list[str], expected: str) -> None:
    environment = {**os.environ, "HARKEN_SHARED": str(shared)}
    program = [sys.executable, str(ROOT / "benchmarks" / words[0]), *words[1:]]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
