"""All detectors on the twelve-machine bed and on ToyCar id_04; false-alarm rates of the default detector.

python benchmarks/detectors.py [--seeds 5] [--first-seed 0] [--only WORD ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from beds import Bed, machines, toycar
from harken.detection import DEFAULT_DETECTOR, create_detector
from harken.detection.calibration import Calibration
from harken.evaluation.metrics import SectionResult, official_score, section_result
from shared_folder import shared_folder

GENREP: dict[str, object] = {"domain_wise": True, "source_neighbours": 16, "target_neighbours": 9}
BEAM16: dict[str, object] = {"bands": 16, "neighbours": 16, "space": "whitened"}
DEFAULT_AND_BEAM = [DEFAULT_DETECTOR, {"detector": "beam", "parameters": BEAM16}]

# Name shown, detector, parameters, whether domains are given.
ROWS = [
    ("1-NN, standardised", "knn", {}, True),
    ("1-NN, cosine", "knn", {"metric": "cosine"}, True),
    ("5-NN", "knn", {"neighbours": 5}, True),
    ("1-NN, two banks", "knn", {"banks": "separate"}, True),
    ("local density a=1, standardised", "local_density", {"exponent": 1.0, "space": "standard"}, True),
    ("local density a=auto, standardised", "local_density", {"space": "standard"}, True),
    ("1-NN, whitened", "local_density", {"exponent": 0.0}, True),
    ("local density a=1, whitened", "local_density", {"exponent": 1.0}, True),
    ("DEFAULT: local density a=auto, whitened", "local_density", {}, True),
    ("default, without domain labels", "local_density", {}, False),
    ("mahalanobis, selective", "mahalanobis", {}, True),
    ("gmm", "gmm", {}, True),
    ("lof", "lof", {}, True),
    ("k-means", "kmeans", {}, True),
    ("1-NN, SMOTE of the target", "knn", {"oversample": "smote"}, True),
    ("1-NN, two banks, SMOTE", "knn", {"oversample": "smote", "banks": "separate"}, True),
    ("1-NN, bank of centres + target", "knn", {"bank": "kmeans"}, True),
    ("1-NN, bank of target", "knn", {"bank": "target"}, True),
    ("ldn K=16, raw cosine, as published", "ldn", {"space": "raw", "metric": "cosine"}, True),
    ("ldn K=1, whitened", "ldn", {"neighbours": 1}, True),
    ("ldn K=16, whitened", "ldn", {}, True),
    ("ldn K=auto, whitened", "ldn", {"neighbours": "auto"}, True),
    ("ldn difference, whitened", "ldn", {"form": "difference"}, True),
    ("ldn SMOTE, whitened", "ldn", {"oversample": "smote"}, True),
    ("ldn centres + target, whitened", "ldn", {"bank": "kmeans"}, True),
    ("ldn domain-wise 16/9, whitened (GenRep)", "ldn", GENREP, True),
    ("varmin, whitened", "varmin", {}, True),
    ("varmin, one domain, whitened", "varmin", {"domain_wise": False}, True),
    ("beam 8 bands, standardised", "beam", {}, True),
    ("beam 8 bands max, standardised", "beam", {"view": "max"}, True),
    ("beam 8 bands dual, standardised", "beam", {"view": "dual"}, True),
    ("beam 8 bands, whitened", "beam", {"space": "whitened"}, True),
    ("beam 16 bands, ldn, whitened", "beam", BEAM16, True),
    ("fusion min: 1-NN, mahalanobis, ldn", "fusion", {}, True),
    ("fusion mean: 1-NN, mahalanobis, ldn", "fusion", {"rule": "mean"}, True),
    ("fusion min: default, beam 16 ldn", "fusion", {"members": DEFAULT_AND_BEAM}, True),
    ("fusion mean: default, beam 16 ldn", "fusion", {"members": DEFAULT_AND_BEAM, "rule": "mean"}, True),
]
# Rows whose gain over 1-NN is shown with its interval.
COMPARED = [
    ("the default", DEFAULT_DETECTOR, {}),
    ("beam 16 bands, ldn, whitened", "beam", BEAM16),
    ("fusion mean: default, beam 16 ldn", "fusion", {"members": DEFAULT_AND_BEAM, "rule": "mean"}),
]


def evaluate(bed: Bed, name: str, parameters: dict[str, object], labelled: bool) -> SectionResult:
    detector = create_detector(name, parameters).fit(bed.train, bed.train_domain if labelled else None)
    return section_result(bed.anomaly, bed.domain == "target", detector.score(bed.test))


def accuracy_table(
    beds: dict[int, list[Bed]], only: Sequence[str] = (), progress: Callable[[str], None] = print
) -> None:
    """only: rows whose title contains one of these words; empty: all rows."""
    progress(
        f"{'detector':<42} {f'seed {min(beds)}':>7} {'mean':>7} {'source':>7} {'target':>7} {'pAUC':>7} {'ToyCar':>7}"
    )
    car = toycar(shared_folder())
    for title, name, parameters, labelled in ROWS:
        if only and not any(word in title for word in only):
            continue
        by_seed = [[evaluate(bed, name, parameters, labelled) for bed in beds[seed]] for seed in beds]
        official = [official_score(results) for results in by_seed]
        all_results = [result for results in by_seed for result in results]
        means = np.mean([(r.auc_source, r.auc_target, r.pauc) for r in all_results], axis=0)
        toy = create_detector(name, parameters).fit(car.train)
        toy_auc = roc_auc_score(car.anomaly, toy.score(car.test))
        progress(
            f"{title:<42} {official[0]:7.4f} {np.mean(official):7.4f} "
            + " ".join(f"{value:7.3f}" for value in means)
            + f" {toy_auc:7.4f}"
        )


def calibration_table(beds: list[Bed]) -> None:
    rates = (0.01, 0.02, 0.05, 0.1)
    print(f"\nfalse alarms of the default at rates of {', '.join(f'{rate:.0%}' for rate in rates)}")
    print(f"{'machine':<14} {'same conditions (6 dB)':>30} {'shifted (0 dB)':>34}")
    inside = dict.fromkeys(rates, 0)
    for bed in beds:
        detector = create_detector(DEFAULT_DETECTOR).fit(bed.train, bed.train_domain)
        calibration = Calibration.fit(detector.train_scores_)
        scores = detector.score(bed.test)
        cells = []
        for domain in ("source", "target"):
            normals = scores[~bed.anomaly & (bed.domain == domain)]
            for rate in rates:
                alarms = int((normals > calibration.threshold(rate)).sum())
                low, high = binom.interval(0.99, len(normals), rate)
                if domain == "source":
                    inside[rate] += int(low <= alarms <= high)
                cells.append(f"{alarms / len(normals):7.1%}")
        print(f"{bed.name:<14} " + " ".join(cells[:4]) + "   " + " ".join(cells[4:]))
    counts = ", ".join(f"{rate:.0%}: {count}/12" for rate, count in inside.items())
    print(f"inside the 99 % binomial interval of the rate, same conditions: {counts}")


def bootstrap(beds: list[Bed], draws: int = 200) -> None:
    """Gains over 1-NN, resampling machines, and test clips within label and domain."""
    print("\ngain over 1-NN, 95 % bootstrap interval")
    plain = [create_detector("knn").fit(bed.train).score(bed.test) for bed in beds]
    for title, name, parameters in COMPARED:
        rng = np.random.default_rng(0)
        compared = [create_detector(name, parameters).fit(bed.train, bed.train_domain).score(bed.test) for bed in beds]
        pairs = list(zip(beds, plain, compared, strict=True))
        gains = []
        for _ in range(draws):
            results: tuple[list[SectionResult], list[SectionResult]] = ([], [])
            for index in rng.integers(0, len(pairs), len(pairs)):
                bed, *scores = pairs[index]
                groups = [
                    np.flatnonzero((bed.anomaly == a) & (bed.domain == d)) for a in (0, 1) for d in ("source", "target")
                ]
                rows = np.concatenate([rng.choice(group, len(group)) for group in groups])
                for collected, values in zip(results, scores, strict=True):
                    collected.append(section_result(bed.anomaly[rows], bed.domain[rows] == "target", values[rows]))
            gains.append(official_score(results[1]) - official_score(results[0]))
        low, high = np.percentile(gains, [2.5, 97.5])
        print(f"{title:<42} {np.mean(gains):+.3f} [{low:+.3f}, {high:+.3f}]")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="rows whose title contains one of these; no other tables")
    options = parser.parse_args()
    folder = shared_folder()
    first = options.first_seed
    all_beds = {seed: list(machines(folder, seed)) for seed in range(first, first + options.seeds)}
    accuracy_table(all_beds, options.only)
    if not options.only:
        calibration_table(all_beds[first])
        bootstrap(all_beds[first])
