"""Speed of the DCASE bench: evaluating systems and indexing names, each compared with a simple script in the same run.

python benchmarks/dcase.py [--names 100000]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harken.data.index import index
from harken.data.table import write_table
from harken.evaluation.bootstrap import bootstrap
from harken.evaluation.evaluate import evaluate
from harken.evaluation.evaluator import evaluator_numbers
from harken.evaluation.score_files import rows_as_bytes
from shared_folder import shared_folder


def timed(action: Callable[[], Any], repeat: int = 3) -> tuple[float, Any]:
    """Shortest of several times in seconds, and the last result."""
    best, result = np.inf, None
    for _ in range(repeat):
        start = time.perf_counter()
        result = action()
        best = min(best, time.perf_counter() - start)
    return best, result


def write_system(folder: Path, rng: np.random.Generator) -> None:
    """1,600 clips: eight machines of 200, labels in the names, with decisions."""
    for machine in range(8):
        scores = {
            f"section_00_{domain}_test_{condition}_{n:04d}_a_1": float(rng.normal())
            for domain in ("source", "target")
            for condition in ("normal", "anomaly")
            for n in range(50)
        }
        (folder / f"anomaly_score_machine{machine}_section_00_test.csv").write_bytes(rows_as_bytes(scores))
        decided = {clip: int(score > 1) for clip, score in scores.items()}
        (folder / f"decision_result_machine{machine}_section_00_test.csv").write_bytes(rows_as_bytes(decided))


def plain_evaluator(folder: Path) -> float:
    """The official rule as in the evaluators, without pandas, with scikit-learn for each area."""
    from scipy.stats import hmean
    from sklearn.metrics import roc_auc_score

    numbers = []
    for file in sorted(folder.glob("anomaly_score_*.csv")):
        with file.open(newline="") as handle:
            rows = sorted(csv.reader(handle))
        score = np.array([float(row[1]) for row in rows])
        anomaly = np.array(["anomaly" in row[0] for row in rows])
        target = np.array(["target" in row[0] for row in rows])
        numbers.append(roc_auc_score(anomaly[~target | anomaly], score[~target | anomaly]))
        numbers.append(roc_auc_score(anomaly[target | anomaly], score[target | anomaly]))
        numbers.append(roc_auc_score(anomaly, score, max_fpr=0.1))
        roc_auc_score(anomaly, score)
        for domain in (~target, target):
            roc_auc_score(anomaly[domain], score[domain])
            roc_auc_score(anomaly[domain], score[domain], max_fpr=0.1)
    return float(hmean(numbers))


def plain_index(root: Path) -> list[dict[str, object]]:
    """As in a simple script: every path, split at underscores."""
    rows = []
    for path in sorted(root.rglob("*.wav")):
        words = path.stem.split("_")
        values = (str(path), path.parent.parent.name, path.parent.name, words[1], words[2], words[4], words[6:])
        rows.append(
            dict(zip(("path", "machine", "split", "section", "domain", "condition", "rest"), values, strict=True))
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=100_000)
    count = parser.parse_args().names
    rows: list[tuple[str, float, float | None]] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_system(root / "system", np.random.default_rng(0))
        ours, done = timed(lambda: evaluate(root / "system"))
        plain, score = timed(lambda: plain_evaluator(root / "system"))
        assert abs(done.results[0].official_score - score) < 1e-15
        rows.append(("evaluate one system of 1,600 clips, after start-up", ours, plain))
        rows.append(("  its 1,000-fold bootstrap interval", timed(lambda: bootstrap(done.results[0]))[0], None))
        further, _ = timed(lambda: evaluator_numbers(done.results[0]), 1)
        rows.append(("  the evaluators' further numbers, with jackknife", further, None))
        command = [sys.executable, "-m", "harken.cli.main", "evaluate", str(root / "system"), "--json"]
        cold, _ = timed(lambda: subprocess.run(command, check=True, capture_output=True))
        rows.append(("harken evaluate of it, from a cold start", cold, None))
        with gzip.open(shared_folder() / "golden" / "names" / "dcase_2025_2026.csv.gz", "rt", newline="") as handle:
            names = [(row["year"], row["path"]) for row in csv.DictReader(handle)]
        tree = root / "tree"
        for number in range(count):
            year, path = names[number % len(names)]
            file = tree / f"copy{number // len(names)}" / f"dcase{year}t2" / "raw" / path
            if number % len(names) == 0 or not file.parent.is_dir():
                file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        ours, (clips, _) = timed(lambda: index(tree))
        plain, listed = timed(lambda: plain_index(tree))
        assert len(clips) == len(listed) == count
        rows.append((f"index {count} real names", ours, plain))
        rows.append(("  write the clips table", timed(lambda: write_table(clips, root / "t.parquet"))[0], None))
    print(f"{'':<58}{'seconds':>9}{'script':>11}{'ratio':>8}")
    for name, seconds, beside in rows:
        comparison = f"{beside:>11.3f}{beside / seconds:>8.1f}" if beside is not None else ""
        print(f"{name:<58}{seconds:>9.3f}{comparison}")


if __name__ == "__main__":
    main()
