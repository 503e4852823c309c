"""Official rule of each year's task: metrics per section, and their summary as one score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from harken.data.catalog import Metric
from harken.data.truth import Section
from harken.evaluation.metrics import SectionResult, auc, harmonic_mean, official_score, partial_auc, section_result

Numbers = dict[str, float]


@dataclass(frozen=True)
class SectionScores:
    """Scores (N,) of one section joined with their labels, sorted by clip name.

    domain_N: 0 source, 1 target, -1 unknown. decisions_N: None for systems without decisions.
    """

    machine: str
    section: str
    names: tuple[str, ...]
    scores_N: NDArray[np.float64]
    anomaly_N: NDArray[np.bool_]
    domain_N: NDArray[np.int64]
    decisions_N: NDArray[np.bool_] | None = None

    @property
    def key(self) -> Section:
        """(machine, section)."""
        return self.machine, self.section


def section_numbers(rule: Metric, section: SectionScores) -> Numbers:
    """Official metrics of one section by the rule of a year. Raises ValueError where a class is missing.

    domain_generalization (2022-2026): `auc_source`, `auc_target` (normal clips of a domain, all anomalies), `pauc`.
    domain_adaptation (2021): `auc_` and `pauc_source`, `_target`, each within its domain, and their mean as `pauc`.
    machine_id (2020): `auc`, `pauc`.
    """
    anomaly, scores, domain = section.anomaly_N, section.scores_N, section.domain_N
    if rule == "domain_generalization":
        if (domain < 0).any():
            raise ValueError("the domain of some clips is unknown")
        return asdict(section_result(anomaly, domain == 1, scores))
    if rule == "domain_adaptation":
        numbers = {}
        for name, value in (("source", 0), ("target", 1)):
            inside = domain == value
            if not inside.any():
                raise ValueError(f"there are no {name} clips")
            numbers[f"auc_{name}"] = auc(anomaly[inside], scores[inside])
            numbers[f"pauc_{name}"] = partial_auc(anomaly[inside], scores[inside])
        return {**numbers, "pauc": harmonic_mean([numbers["pauc_source"], numbers["pauc_target"]])}
    return {"auc": auc(anomaly, scores), "pauc": partial_auc(anomaly, scores)}


def summary(rule: Metric, numbers: Sequence[tuple[Section, Numbers]], *, by_rows: bool = False) -> Numbers:
    """Official score of a system and its components; sections in the evaluators' order (machine, then section).

    domain_generalization: harmonic mean over all metrics of all sections. domain_adaptation: the same over AUC and
    pAUC of each machine, domain and section. machine_id: arithmetic means over the IDs of a machine, then over
    machines, of AUC and pAUC; the score is the mean of the two (the challenge itself ranked by average rank).
    by_rows: see `official_score`.
    """
    rows = [row for _, row in numbers]
    if rule == "domain_generalization":
        return {
            "official_score": official_score([SectionResult(**row) for row in rows], by_rows=by_rows),
            "auc_source": harmonic_mean([row["auc_source"] for row in rows]),
            "auc_target": harmonic_mean([row["auc_target"] for row in rows]),
            "pauc": harmonic_mean([row["pauc"] for row in rows]),
        }
    if rule == "domain_adaptation":
        pairs = [
            [row[f"auc_{domain}"], row[f"pauc_{domain}"]]
            for machine in dict.fromkeys(key[0] for key, _ in numbers)
            for domain in ("source", "target")
            for key, row in numbers
            if key[0] == machine
        ]
        return {
            "official_score": harmonic_mean(np.ravel(pairs)),
            "auc_source": harmonic_mean([row["auc_source"] for row in rows]),
            "auc_target": harmonic_mean([row["auc_target"] for row in rows]),
            "pauc": harmonic_mean([pauc for _, pauc in pairs]),
        }
    machines = machine_means(numbers)
    means = [float(np.mean([machine[name] for machine in machines.values()])) for name in ("auc", "pauc")]
    return {"official_score": float(np.mean(means)), "auc": means[0], "pauc": means[1]}


def machine_means(numbers: Sequence[tuple[Section, Numbers]]) -> dict[str, Numbers]:
    """Arithmetic mean over the sections of each machine."""
    means: dict[str, Numbers] = {}
    for machine in dict.fromkeys(key[0] for key, _ in numbers):
        rows = [row for key, row in numbers if key[0] == machine]
        means[machine] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return means


def within_domain(section: SectionScores) -> Numbers:
    """AUC and pAUC of normal clips and anomalies of the same domain, and over all clips, where both classes exist.

    Not official since 2022, hence their distinct names.
    """
    numbers: Numbers = {}
    for name, inside in (
        ("source_within_domain", section.domain_N == 0),
        ("target_within_domain", section.domain_N == 1),
        ("all", np.ones(len(section.names), dtype=bool)),
    ):
        anomaly = section.anomaly_N[inside]
        if anomaly.any() and not anomaly.all():
            numbers[f"auc_{name}"] = auc(anomaly, section.scores_N[inside])
            numbers[f"pauc_{name}"] = partial_auc(anomaly, section.scores_N[inside])
    return numbers
