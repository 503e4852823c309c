"""A model against recordings of known condition: false alarms, faults found, and what separates them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.detection.rates import one_in
from harken.evaluation.metrics import auc
from harken.monitor.detector import Detector
from harken.monitor.verdict import LEARNED, Verdict

#: rates that a check tells about besides the model's
RATES = (0.05, 0.01, 0.001)
#: faults that are ranked so well are missed for want of normal recordings, not of a difference
_RANKED_WELL = 0.9


@dataclass(frozen=True)
class AtRate:
    """Single recordings that alarm at a rate. rate: false alarms per normal recording that it is set for.
    faults: faulty recordings that raise an alarm."""

    rate: float
    false_alarms: int
    faults: int


@dataclass(frozen=True, eq=False)
class Check:
    """One model on normal and faulty recordings.

    normal, faulty: recordings judged. not_judged: recordings that were not. learned: recordings judged that the model
    learned from, whose held-out scores count. auc: of the scores; nan without one of the
    two. at: first at the model's rate, then at `RATES`. suspect: faults above every normal recording learned from.
    change_after: faulty recordings, in the order given, until a lasting change is reported; None where it is not.
    false_changes: lasting changes reported among the normal ones. separates: where faults differ most, in words.
    missing: what the model lacks where it ranks the faults well and most of them raise no alarm, in words; else None.
    """

    normal: int
    faulty: int
    not_judged: int
    learned: int
    auc: float
    at: tuple[AtRate, ...]
    suspect: int
    change_after: int | None
    false_changes: int
    separates: str
    missing: str | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON-able fields."""
        return {
            "normal": self.normal,
            "faulty": self.faulty,
            "not_judged": self.not_judged,
            "learned": self.learned,
            "auc": None if np.isnan(self.auc) else self.auc,
            "at": [{"rate": row.rate, "false_alarms": row.false_alarms, "found": row.faults} for row in self.at],
            "faults_above_all_learned": self.suspect,
            "change_after": self.change_after,
            "false_changes": self.false_changes,
            "separates": self.separates,
            "missing": self.missing,
        }


def check(
    detector: Detector,
    normal: Iterable[Path],
    faulty: Iterable[Path],
    *,
    store: str | Path | None = None,
    workers: int | None = None,
    all_formats: bool = False,
) -> Check:
    """Judge recordings of known condition.

    Raises HarkenError for a recording that is called both normal and faulty, and where none of them can be judged.
    """
    normal, faulty = list(normal), list(faulty)
    both = {path.resolve() for path in normal} & {path.resolve() for path in faulty}
    if both:
        others = f", like {len(both) - 1} others" if len(both) > 1 else ""
        raise HarkenError(
            f"is given as normal and as faulty{others}",
            file=min(both),
            next_step="Keep recordings of faults in a folder of their own",
        )
    judged = [
        list(detector.score_many(paths, store=store, workers=workers, all_formats=all_formats))
        for paths in (normal, faulty)
    ]
    fine, bad = ([verdict for verdict in verdicts if verdict.kind != "not judged"] for verdicts in judged)
    if not fine and not bad:
        first = next((verdict for verdicts in judged for verdict in verdicts), None)
        cause = f"; the first: {first.error or first.not_judged}" if first is not None else ""
        raise HarkenError(
            f"no recording could be judged{cause}", next_step="Check with recordings that the model takes"
        )
    fine_N, bad_N = (np.array([verdict.score for verdict in verdicts], dtype=np.float64) for verdicts in (fine, bad))
    rows = [AtRate(detector.alarm.rate, *(sum(v.kind == "alarm" for v in verdicts) for verdicts in (fine, bad)))]
    for rate in RATES:
        rows.append(AtRate(rate, *(sum((v.p_value or 0) <= rate for v in verdicts) for verdicts in (fine, bad))))
    highest = float(detector.calibration.scores[-1])
    truth = [False] * len(fine) + [True] * len(bad)
    ranked = auc(truth, np.concatenate([fine_N, bad_N])) if fine and bad else float("nan")
    return Check(
        normal=len(fine),
        faulty=len(bad),
        not_judged=sum(map(len, judged)) - len(fine) - len(bad),
        learned=sum(LEARNED in verdict.warnings for verdict in [*fine, *bad]),
        auc=ranked,
        at=tuple(rows),
        suspect=int((bad_N > highest).sum()),
        change_after=next(iter(_reports(detector, bad)), None),
        false_changes=len(_reports(detector, fine)),
        separates=_separates(detector, fine, bad),
        missing=_missing(detector, ranked, rows[0], len(bad)),
    )


def table(checks: Sequence[Check], names: Sequence[str]) -> list[str]:
    """Lines of text that compare models, one column each."""
    labels = ["the model's rate", *map(one_in, RATES)]
    cells = [["", *names], ["AUC", *(f"{check.auc:.3f}" for check in checks)]]
    cells += [
        [f"at {label}: false alarms", *(f"{check.at[row].false_alarms} of {check.normal}" for check in checks)]
        for row, label in enumerate(labels)
    ]
    cells += [
        [f"at {label}: faults found", *(f"{check.at[row].faults} of {check.faulty}" for check in checks)]
        for row, label in enumerate(labels)
    ]
    cells.append(["the model's rate", *(one_in(check.at[0].rate) for check in checks)])
    cells.append(["faults above all learned", *(f"{check.suspect} of {check.faulty}" for check in checks)])
    cells.append(
        [
            "faulty until a lasting change",
            *("-" if check.change_after is None else f"{check.change_after} recordings" for check in checks),
        ]
    )
    cells.append(["lasting changes among normal", *(str(check.false_changes) for check in checks)])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _reports(detector: Detector, verdicts: Sequence[Verdict]) -> list[int]:
    """Numbers, from 1, of the recordings with which a lasting change is reported."""
    sequence = detector.sequence()
    changes = [sequence.update(verdict) for verdict in verdicts]
    return [count for count, change in enumerate(changes, start=1) if change is not None and change.state == "began"]


def _missing(detector: Detector, ranked: float, at: AtRate, faulty: int) -> str | None:
    """What is to be done about faults that are ranked well and found at the model's rate in less than half."""
    if not ranked >= _RANKED_WELL or 2 * at.faults >= faulty:
        return None
    scores = detector.calibration.scores
    learned = "segments" if detector.training.segments else "recordings"
    return (
        f"{faulty - at.faults} of {faulty} faults raise no alarm although they score above normal recordings "
        f"(AUC {ranked:.3f}): the {len(scores)} {learned} learned from, each judged by the others, score up to "
        f"{scores[-1]:.4g} (half of them to {np.median(scores):.4g}), and the alarm is above {detector.threshold:.4g}. "
        "What is missing is normal sound: fit again to more of it, of several days, with the normal recordings of this "
        "check, too"
    )


def _separates(detector: Detector, fine: Sequence[Verdict], bad: Sequence[Verdict]) -> str:
    """Where faulty recordings differ from normal ones, relative to how these differ among themselves."""
    if not fine or not bad:
        return "nothing to compare"
    fine_NB, bad_NB = (np.stack([_per_band(verdict) for verdict in verdicts]) for verdicts in (fine, bad))
    spread_B = np.maximum(fine_NB.std(axis=0), 0.5)
    change_B = bad_NB.mean(axis=0) - fine_NB.mean(axis=0)
    band = int(np.argmax(np.abs(change_B) / spread_B))
    hz = detector.band_centres_hz
    return (
        f"most near {hz[band]:.0f} Hz: faulty recordings are {change_B[band]:+.1f} dB against the normal ones, which "
        f"vary by {fine_NB[:, band].std():.1f} dB"
    )


def _per_band(verdict: Verdict) -> NDArray[np.float64]:
    assert verdict.sketch_db is not None
    level_B: NDArray[np.float64] = verdict.sketch_db.mean(axis=1, dtype=np.float64)
    # Recordings are aligned by their median band: loudness is no difference of sound.
    return level_B - np.median(level_B)
