"""What `harken score` says at its default on real machines: verdicts, and lasting changes in the order of the files.

python benchmarks/verdicts.py
"""

from __future__ import annotations

from pathlib import Path

from sklearn.metrics import roc_auc_score

from harken.detection.rates import one_in
from harken.monitor.detector import Detector
from shared_folder import shared_folder

#: name, folder below corpus, pattern of the normal recordings learned from, of groups to judge, of operating states
CASES: list[tuple[str, str, str, dict[str, str], str | None]] = [
    (
        "DCASE 2020 slider id_00",
        "dcase2020",
        "**/slider/train/*id_00*",
        {"normal": "**/slider/test/normal_id_00*", "faulty": "**/slider/test/anomaly_id_00*"},
        None,
    ),
    (
        "MIMII fan id_00, 0 dB",
        "mimii_fan_0dB",
        "**/train/*",
        {"normal": "**/test/normal*", "faulty": "**/test/*anomaly*"},
        None,
    ),
    (
        "BLDC, healthy recordings of three motors",
        "bldc_audio",
        "**/*_normal_*healthy*",
        {"propeller": "**/*propeller*", "bearing": "**/*bearing*"},
        r"section_(\d+)",
    ),
]


def files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def main() -> None:
    print("machine; recordings judged: normal / suspect / alarm / not judged, recordings until a lasting change")
    for name, part, normal, groups, states in CASES:
        folder = shared_folder() / "corpus" / part
        detector = Detector.fit(files(folder, normal), states=states)
        count = len(detector.training.names)
        print(f"{name}: learned from {count}, alarm at {one_in(detector.alarm.rate)} recordings")
        scores: dict[str, list[float]] = {}
        for group, pattern in groups.items():
            verdicts = list(detector.score_many(files(folder, pattern)))
            sequence = detector.sequence()
            rings = [number for number, verdict in enumerate(verdicts, start=1) if sequence.update(verdict)]
            kinds = [sum(v.kind == kind for v in verdicts) for kind in ("normal", "suspect", "alarm", "not judged")]
            print(f"    {group:<10} {' / '.join(map(str, kinds)):<20} change after {rings[0] if rings else '-'}")
            scores[group] = [verdict.score for verdict in verdicts if verdict.score is not None]
        fine = scores.get("normal", list(detector.training.scores_N))
        for group in scores.keys() - {"normal"}:
            area = roc_auc_score([0] * len(fine) + [1] * len(scores[group]), fine + scores[group])
            print(f"    {group:<10} AUC {area:.3f}" + ("" if "normal" in scores else " (against held-out scores)"))


if __name__ == "__main__":
    main()
