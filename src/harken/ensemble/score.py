"""A bag applied to scores: score files of the ensemble in the official layout, decisions where they can be made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harken.core.errors import HarkenError
from harken.core.threads import one_thread
from harken.data.names import parse_name
from harken.data.truth import Section
from harken.detection.calibration import Calibration, parse_rate
from harken.ensemble.bag import Bag, Members, leaf_names
from harken.ensemble.bundles import Bundles
from harken.ensemble.member import Member
from harken.ensemble.mix import mix
from harken.evaluation.score_files import official_name, write_rows


def apply(
    bag: Bag,
    members: Sequence[Member] | None = None,
    *,
    bundles: Bundles | None = None,
    data_set: str | None = None,
) -> Member:
    """The ensemble's scores of what `members` scored, which are found by their names; without any, of what the paths in
    the bag hold. bundles: for members that are bundles. data_set: of runs, instead of the one that the bag names.

    Raises HarkenError for members that are not there, differ in their clips or cannot be normalised.
    """
    if members is not None:
        for name, count in leaf_names(bag).items():
            if count > 1:
                raise HarkenError(
                    f"{count} members of the bag are called {name}", next_step="Name them apart to apply it to others"
                )
    with one_thread():
        return mix(bag, Members(members, bundles, data_set))


def write_scores(member: Member, folder: Path, *, false_alarms: str = "10%") -> list[str]:
    """Write `anomaly_score_*.csv` and, where scores of training clips are known by name, `train_score_*.csv`, so that
    the ensemble can be a member itself; returns the names of the files.

    `decision_result_*.csv`: by a threshold that so many of the training clips exceed; where their scores are not known,
    by the members' weighted vote; not at all where they made no decisions.
    Raises HarkenError where other score files lie in the folder.
    """
    rate = parse_rate(false_alarms, clip_seconds=10.0)
    files: dict[str, dict[str, float | int]] = {}
    for key, part in sorted(member.sections.items()):
        scores = dict(zip(part.clips, part.scores_N.tolist(), strict=True))
        decisions: dict[str, int] = {}
        if part.train is not None:
            alarm_N = part.scores_N > Calibration.fit(part.train.scores_T).threshold(rate)
            decisions = dict(zip(part.clips, alarm_N.astype(int).tolist(), strict=True))
            if part.train.names is not None:
                rows = dict(zip(part.train.names, part.train.scores_T.tolist(), strict=True))
                files[f"train_score_{key[0]}_section_{key[1]}.csv"] = dict(rows)
        elif part.decisions_N is not None:
            decisions = dict(zip(part.clips, part.decisions_N.astype(int).tolist(), strict=True))
        for what, of in (("anomaly_score", scores), ("decision_result", decisions)):
            for name, inside in _by_domain(what, key, dict(of), member.by_domain).items():
                if inside:
                    files[name] = inside
    strange = [file.name for file in folder.glob("*_score_*.csv") if file.name not in files] if folder.is_dir() else []
    if strange:
        raise HarkenError(f"holds other scores already ({min(strange)})", file=folder, next_step="Name another folder")
    try:
        for name, rows in files.items():
            write_rows(folder / name, rows)
    except OSError as error:
        raise HarkenError(
            f"cannot be written ({error.strerror})", file=folder, next_step="Name another folder"
        ) from None
    return sorted(files)


def _by_domain(what: str, key: Section, rows: dict[str, float | int], apart: bool) -> dict[str, dict[str, float | int]]:
    """One file, or one a domain as in 2021."""
    whole = official_name(what, key)
    if not apart:
        return {whole: rows}
    found: dict[str, dict[str, float | int]] = {}
    for clip, value in rows.items():
        name = parse_name(clip)
        domain = name.domain if name is not None else "unknown"
        file = whole.replace("_test.csv", f"_{domain}_test.csv") if domain != "unknown" else whole
        found.setdefault(file, {})[clip] = value
    return found
