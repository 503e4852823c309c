"""Verdicts that `harken score` has stored, read again: tables of an archive by day, or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from harken.core.errors import HarkenError, reading
from harken.core.names import shown
from harken.monitor.archive_table import check_tables, key_of, read_rows
from harken.monitor.detector import Detector
from harken.monitor.explain import Explanation
from harken.monitor.verdict import Kind, Verdict

#: two scores of one recording by one model differ by less, relatively: other processors round otherwise
_ROUNDING = 1e-4
_STEP = "Give the folder of harken score --results, or a file that harken score --json has printed"


def stored_verdicts(place: Path) -> Iterator[Verdict]:
    """The verdicts in a folder of tables by day, or a file of JSON lines, in their order, without spectrograms.

    Raises HarkenError for what is neither.
    """
    if not place.is_dir():
        yield from _of_lines(place)
        return
    tables = sorted(place.glob("*.parquet"))
    if tables:
        check_tables()
    if not tables or key_of(tables[0]) is None:
        raise HarkenError("has no results", file=place, next_step=_STEP)
    for table in tables:
        with reading(table, "Judge this day again", errors=(ValueError, KeyError, TypeError)):
            for row in read_rows(table):
                region = {name: row[f"region_{name}"] for name in _REGION}
                yield _verdict({**row, "region": region, "error": {"cause": row["error"]} if row["error"] else None})


def _of_lines(file: Path) -> Iterator[Verdict]:
    with reading(file, _STEP, errors=(ValueError, KeyError, TypeError)), file.open(encoding="utf-8") as lines:
        count = 0
        for line in lines:
            fields = json.loads(line)
            if fields["record"] == "recording":
                count += 1
                yield _verdict(fields)
    if not count:
        raise HarkenError("has no verdicts", file=file, next_step=_STEP)


_REGION = ("low_hz", "high_hz", "start_s", "end_s", "change_db")
_NOTHING_BC = np.empty((0, 0), np.float32)


def _verdict(fields: Mapping[str, Any]) -> Verdict:
    """Of `Verdict.as_json`. Raises KeyError, TypeError or ValueError for other fields."""
    if fields["verdict"] not in get_args(Kind):
        raise ValueError(f"{shown(str(fields['verdict']))!r} is no verdict")
    why, error, explanation = fields["why"], fields["error"], None
    judged = fields["verdict"] != "not judged"
    if judged and why is not None:
        region = fields["region"] or {}
        explanation = Explanation(why, _NOTHING_BC, fields["nearest"] or "", **{n: region.get(n) for n in _REGION})
    path = Path(fields["file"])
    return Verdict(
        path,
        kind=fields["verdict"],
        **{name: fields[name] for name in ("score", "event_score", "p_value", "extrapolated", "decided_by")},
        **{name: fields[name] for name in ("higher_than", "of", "start_s", "end_s", "seconds")},
        tone_score=fields.get("tone_score"),  # Absent in results of earlier versions.
        explanation=explanation,
        warnings=tuple(fields["warnings"] or ()),
        sha256=fields.get("sha256"),
        not_judged=None if judged or error else why,
        error=None if error is None else HarkenError(error["cause"], file=path, next_step=error.get("next_step")),
        segment_scores=tuple(fields.get("segment_scores") or ()),
    )


def judging_again(detector: Detector) -> Callable[[Verdict], Verdict]:
    """A function that gives a stored verdict again with its spectrogram, or as it is where its recording has gone.

    It raises HarkenError where this model, as its alarm is set, does not give that verdict.
    """

    def again(stored: Verdict) -> Verdict:
        for verdict in detector.score_many([stored.path], workers=0, all_formats=True):
            if verdict.error is not None or (verdict.start_s, verdict.end_s) != (stored.start_s, stored.end_s):
                continue
            if not np.isclose(verdict.score or 0.0, stored.score or 0.0, rtol=_ROUNDING):
                raise HarkenError(
                    f"the results are of another model: they have the score {stored.score:.4g}, this one gives "
                    f"{verdict.score:.4g}",
                    file=stored.path,
                    next_step="Give the model that they are of",
                )
            if verdict.kind != stored.kind:
                raise HarkenError(
                    f"the alarm was set otherwise: the results have {stored.kind}, now it is {verdict.kind}",
                    file=stored.path,
                    next_step="Give --false-alarms and --every as then",
                )
            return verdict
        return stored

    return again
