"""AUC and speed on real machines: each encoder, level-normalised and as recorded, and PyOD in the same run.

    python benchmarks/real_clips.py [--pyod PYTHON]

PYTHON: an interpreter with pyod installed (not a dependency of Harken). The neural encoders need their
weights: `harken weights list`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path

from sklearn.metrics import roc_auc_score

import harken
from harken.core.errors import HarkenError
from harken.monitor.verdict import Verdict
from shared_folder import shared_folder

PYOD_PROGRAM = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
from pyod.models.embedding import EmbeddingOD
train, test, quality = json.loads(sys.stdin.read())
begun = time.time()
model = EmbeddingOD.for_audio(quality=quality)
model.fit(train)
scores = model.decision_function(test)
print(json.dumps([[float(s) for s in scores], time.time() - begun]))
"""


def cases(corpus: Path) -> dict[str, tuple[list[Path], list[Path]]]:
    motors = corpus / "bldc_audio" / "BLDC" / "all"
    return {
        "slider id_00": (
            sorted((corpus / "dcase2020/slider/train").glob("*id_00*")),
            sorted((corpus / "dcase2020/slider/test").glob("*id_00*")),
        ),
        "MIMII fan id_00, 0 dB": (
            sorted((corpus / "mimii_fan_0dB/fan/train").iterdir()),
            sorted((corpus / "mimii_fan_0dB/fan/test").iterdir()),
        ),
        # No healthy recording of motors 1 and 2 is left for the test: motor 3, not in training, is used.
        "BLDC motors 1 and 2, propeller": (
            sorted(motors.glob("section_0[12]_*_normal_*")),
            sorted(motors.glob("section_0[12]_*_anomaly_*propeller*")) + sorted(motors.glob("section_03_*_normal_*")),
        ),
    }


def row(case: str, system: str, scores: list[float], files: list[Path], seconds: float, clips: int) -> None:
    truth = ["anomaly" in file.name for file in files]
    print(f"{case:<32} {system:<44} {roc_auc_score(truth, scores):5.3f} {clips / seconds:9.1f}", flush=True)


def run_pyod(python: str, quality: str, train: list[Path], test: list[Path]) -> tuple[list[float], float]:
    request = json.dumps([[str(p) for p in train], [str(p) for p in test], quality])
    done = subprocess.run([python, "-c", PYOD_PROGRAM], input=request, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    scores, seconds = json.loads(done.stdout.strip().splitlines()[-1])
    return scores, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pyod", help="interpreter with pyod installed")
    python = parser.parse_args().pyod
    print(f"{'recordings':<32} {'system':<44} {'AUC':>5} {'clips/s':>9}   (fit + score, start-up excluded)")
    for case, (train, test) in cases(shared_folder() / "corpus").items():
        for encoder in harken.list_encoders():
            for level in ("normalised", "recorded"):
                begun = time.perf_counter()
                try:
                    states = r"normal_(\d+)" if "BLDC" in case else None
                    detector = harken.Detector.fit(train, encoder=encoder, level=level, states=states)
                except HarkenError as error:
                    print(f"{case:<32} {encoder}: {error}")
                    break
                verdicts: list[Verdict] = list(detector.score_many(test))
                seconds = time.perf_counter() - begun
                scores = [float(verdict.score or 0.0) for verdict in verdicts]
                row(
                    case,
                    f"harken {encoder} {detector.spec.layer}, {level}",
                    scores,
                    test,
                    seconds,
                    len(train + test),
                )
        if python:
            for quality in ("fast", "balanced"):
                try:
                    scores, seconds = run_pyod(python, quality, train, test)
                except RuntimeError as error:
                    print(f"{case:<32} PyOD for_audio({quality}): {error}")
                    continue
                row(case, f"PyOD EmbeddingOD.for_audio, {quality}", scores, test, seconds, len(train + test))


if __name__ == "__main__":
    main()
