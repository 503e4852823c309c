"""What `harken score` says at its default on real machines: verdicts, and lasting changes in the order of the files;
and bearings run to failure, learned from the first quarter of their life.

python benchmarks/verdicts.py
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from harken.audio.decode import decode
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


def bearings() -> None:
    """Vibration of bearings run to failure: shares of life in %, and the level as recorded beside it."""
    print(
        "bearing; level: first alarm, first suspect; alarms before 30 %; first recording 8 dB above those learned from"
    )
    for folder in sorted((shared_folder() / "corpus/femto").iterdir()):
        recordings = files(folder, "stream/*")
        life = [int(re.findall(r"life(\d+)", file.name)[0]) for file in recordings]
        learned = [file for file, share in zip(recordings, life, strict=True) if share < 25]
        later = [(file, share) for file, share in zip(recordings, life, strict=True) if share >= 25]
        usual_db = np.mean([level_db(file) for file in learned])
        louder = [share for file, share in later if level_db(file) > usual_db + 8]
        for level in ("normalised", "recorded"):
            detector = Detector.fit(learned, level=level)
            kinds = [(detector.score(file).kind, share) for file, share in later]
            alarms = [share for kind, share in kinds if kind == "alarm"]
            notable = [share for kind, share in kinds if kind in ("alarm", "suspect")]
            early = sum(share < 30 for share in alarms)
            print(
                f"{folder.name} {level:<11} {_first(alarms):>4} {_first(notable):>4}  {early} of "
                f"{sum(share < 30 for _, share in later)}  {_first(louder):>4}"
            )


def level_db(file: Path) -> float:
    """RMS level over all channels, dBFS."""
    return float(10 * np.log10(np.mean(decode(file).samples_CS.astype(np.float64) ** 2)))


def _first(shares: list[int]) -> str:
    return f"{shares[0]} %" if shares else "-"


if __name__ == "__main__":
    main()
    bearings()
