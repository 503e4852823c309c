"""Score and decision files of the challenge: every accepted spelling in, the official one out."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harken.core.errors import HarkenError, reading, writing
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.core.names import alike, joined, why_no_file_name
from harken.core.numbers import read_number
from harken.core.tables import csv_line, read_csv
from harken.data.cells import SEPARATORS, read_clip
from harken.data.names import parse_name
from harken.data.truth import Section, Truth
from harken.data.unpack import unpack
from harken.evaluation.score_tables import read_score_table
from harken.evaluation.scores import (
    UNDECIDED,
    Layout,
    ScoreRow,
    Scores,
    Split,
    is_table_of_scores,
    merged_marks,
    read_scores,
)

_FILE = re.compile(
    r"(?P<what>anomaly_score|decision_result|train_score)_(?:DCASE\d{4}T2)?(?P<machine>.+?)_(?P<word>section|id)_"
    r"(?P<section>\d+)(?:_(?P<domain>source|target))?(?:_test)?(?P<rest>_.+)?\.csv$"
)
#: beside score files: their marks and the digest of their inputs
MARKS = "marks.json"


@dataclass(frozen=True)
class Broken:
    """A system that cannot be read or joined, and why."""

    name: str
    error: HarkenError


def read_systems(path: Path) -> tuple[list[Scores], list[Broken], Truth | None]:
    """The systems of `path`: a folder of `anomaly_score_*.csv`, a folder or zip of such folders, `scores.parquet` of a
    run, or one table of several systems (`machine,section,file,domain,anomaly,SYSTEM...`; csv, csv.gz, parquet), which
    contains the truth.

    A folder with files of several seeds holds several systems. Raises HarkenError without any scores, or when the only
    system is broken.
    """
    if path.suffix == ".zip" and path.is_file():
        with tempfile.TemporaryDirectory() as temporary:
            unpack(path, Path(temporary) / "systems")
            return read_systems(Path(temporary) / "systems")
    if path.suffix == ".parquet" and is_table_of_scores(path):
        return [replace(table, system=_full_name(table)) for table in read_scores(path)], [], None
    if path.is_file():
        systems, truth = read_score_table(path)
        return systems, [], truth
    if not path.is_dir():
        raise HarkenError("there is no such file or folder", file=path, next_step="Check the path")
    if _score_files(path):
        return read_system_folder(path), [], None
    folders = sorted({file.parent for file in path.rglob("anomaly_score_*.csv")})
    systems, broken = [], []
    for folder in folders:
        name = folder.relative_to(path).as_posix()
        try:
            systems += read_system_folder(folder, name)
        except HarkenError as error:
            broken.append(Broken(name, error))
    if not systems and broken:
        raise broken[0].error
    if not systems:
        raise HarkenError(
            "no anomaly_score_*.csv in it or in folders below", file=path, next_step="Give the folder that holds them"
        )
    return systems, broken, None


def _full_name(table: Scores) -> str:
    seed = f"seed {table.seed}" if table.seed is not None else ""
    return ", ".join(filter(None, (table.set, table.system, seed)))


@dataclass
class _Files:
    """Contents of the score files of one system: section -> clip as named in its row -> number."""

    scores: dict[Section, dict[str, float]] = field(default_factory=dict)
    decisions: dict[Section, dict[str, float]] = field(default_factory=dict)
    train: dict[Section, dict[str, float]] = field(default_factory=dict)
    layout: Layout = "section"

    def rows(self) -> list[ScoreRow]:
        rows = []
        splits: tuple[tuple[Split, dict[Section, dict[str, float]]], ...] = (
            ("test", self.scores),
            ("train", self.train),
        )
        for split, sections in splits:
            for (machine, section), clips in sections.items():
                decisions = self.decisions.get((machine, section), {}) if split == "test" else {}
                for clip, score in clips.items():
                    decision = int(decisions.get(clip, UNDECIDED))
                    where = f"{machine}/section_{section}/{split}/{clip}"
                    rows.append(ScoreRow(where, f"{clip}.wav", machine, section, split, score, decision))
        return rows


def read_system_folder(folder: Path, name: str | None = None) -> list[Scores]:
    """Systems of one folder, one for each suffix of its file names (`_seed13711...`), with the marks of `marks.json`
    and, where present, the held-out scores of `train_score_<machine>_section_<nn>.csv`."""
    systems: dict[str, _Files] = {}
    sources: dict[tuple[str, str, Section, str], Path] = {}
    for file, match in _score_files(folder):
        suffix = match["rest"] or ""
        system = systems.setdefault(suffix, _Files())
        if match["domain"] is not None:
            system.layout = "domain"
        elif match["word"] == "id":
            system.layout = "id"
        section = (joined(match["machine"]), match["section"])
        earlier = sources.setdefault((suffix, match["what"], section, match["domain"] or ""), file)
        if earlier is not file:
            raise HarkenError(f"scores the same section as {earlier.name}", file=file, next_step="Keep one of them")
        kinds = {"anomaly_score": system.scores, "decision_result": system.decisions, "train_score": system.train}
        rows = kinds[match["what"]].setdefault(section, {})
        for clip, value in read_rows(file, match["section"], decision=match["what"] == "decision_result").items():
            if clip in rows:
                raise HarkenError(f"{clip} is in another file of this section too", file=file, next_step="Keep one row")
            rows[clip] = value
    fields = _read_marks(folder / MARKS)
    label = name or folder.absolute().name
    tables = []
    for suffix, files in systems.items():
        if not files.scores:
            continue
        for key, decided in files.decisions.items():
            unscored = decided.keys() - files.scores.get(key, {}).keys()
            if unscored:
                raise HarkenError(
                    f"{key[0]} section {key[1]} has decisions for clips without a score: {min(unscored)}",
                    file=folder, next_step="Give each test clip one row",
                )  # fmt: skip
        tables.append(Scores.of_rows(files.rows(), label + suffix, layout=files.layout, **fields))
    return tables


def read_rows(file: Path, section: str, *, decision: bool = False) -> dict[str, float]:
    """Rows `clip.wav,number` of one file, clip name without suffix -> number.

    Raises HarkenError for a row of another form or section, a repeated clip, a score that is not finite, and a decision
    that is not 0 or 1.
    """
    rows: dict[str, float] = {}
    for number, cells in read_csv(file):
        row = ",".join(cells)[:80]
        if len(cells) != 2:
            raise HarkenError(f"line {number} ({row!r}) has {len(cells)} cells", file=file, next_step=SEPARATORS)
        try:
            clip = read_clip(cells[0])
        except ValueError as error:
            raise HarkenError(f"line {number} ({row!r}): {error}", file=file, next_step=SEPARATORS) from None
        try:
            value = read_number(cells[1])
        except ValueError:
            raise HarkenError(
                f"line {number} ({row!r}) has no number", file=file,
                next_step="Write clip.wav,number with a decimal point, without a header",
            ) from None  # fmt: skip
        if not math.isfinite(value):
            raise HarkenError(
                f"line {number}: the score of {clip} is {value}", file=file, next_step="Scores are finite"
            )
        if decision and value not in (0.0, 1.0):
            raise HarkenError(f"line {number}: {clip} has the decision {value}", file=file, next_step="Decide 0 or 1")
        name = parse_name(clip)
        if name is not None and name.section != section:
            raise HarkenError(
                f"line {number}: {clip} is of section {name.section}", file=file, next_step="Move the row"
            )
        if clip in rows:
            raise HarkenError(f"line {number}: {clip} occurs twice", file=file, next_step="Keep one row per clip")
        rows[clip] = value
    if not rows:
        raise HarkenError("is empty", file=file, next_step="Write one row per clip")
    return rows


def score_files(scores: Scores, *, train: bool = True) -> dict[str, bytes]:
    """File name -> contents in the official layout: `anomaly_score_*` and `decision_result_*` of every section with
    decisions; `train_score_*` with the held-out scores, and `marks.json`. Without `train` the official files alone, and
    `marks.json` only where there is a mark.

    Raises HarkenError where a name of a machine cannot be part of that of a file, or two are one on some systems."""
    files: dict[str, bytes] = {}
    for key in scores.sections():
        for kind, rows in (("anomaly_score", scores.by_name(key)), ("decision_result", scores.decisions(key))):
            for name, inside in _by_domain(official_name(kind, key), rows, scores.layout).items():
                if inside:
                    files[name] = rows_as_bytes(inside)
    if train:
        for key in scores.sections("train"):
            files[f"train_score_{key[0]}_section_{key[1]}.csv"] = rows_as_bytes(scores.by_name(key, "train"))
    reason = next(filter(None, map(why_no_file_name, files)), None)
    pair = alike(files)
    if reason is not None or pair is not None:
        names = ", ".join(sorted({repr(machine) for machine, _ in scores.sections()}))
        cause = reason or "gives two names of files that are one where case does not count"
        raise HarkenError(f"one of the machines {names[:200]} {cause}", next_step="Rename the machine")
    if train or scores.marks:
        record: dict[str, Any] = {"marks": dict(scores.marks), "digest": scores.digest, "fitted_on": scores.fitted_on}
        files[MARKS] = (json_text(record, indent=1) + "\n").encode()
    return files


def write_score_files(scores: Scores, folder: Path) -> list[str]:
    """Write the files of `score_files`; returns their names. Raises HarkenError where they cannot be written."""
    files = score_files(scores)
    with writing(folder, "Choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomically(folder / name, data)
    return sorted(files)


def rows_as_bytes(rows: Mapping[str, float | int]) -> bytes:
    """`clip.wav,number` lines without a header, in the order of names; numbers survive reading unchanged.

    Raises HarkenError for a name that is not valid text.
    """
    text = "".join(csv_line((f"{clip}.wav", value)) + "\n" for clip, value in sorted(rows.items()))
    try:
        return text.encode()
    except UnicodeEncodeError:
        name = next(clip for clip in rows if not clip.isprintable())
        raise HarkenError(f"the name {name!r} is not valid text", next_step="Rename the recording") from None


def official_name(kind: str, section: Section) -> str:
    """`anomaly_score_fan_section_00_test.csv`; kind: `anomaly_score` or `decision_result`."""
    return f"{kind}_{section[0]}_section_{section[1]}_test.csv"


def _by_domain(file_name: str, rows: Mapping[str, float | int], layout: Layout) -> dict[str, dict[str, float | int]]:
    """One file, or one per domain as in 2021."""
    if layout != "domain":
        return {file_name: dict(rows)}
    files: dict[str, dict[str, float | int]] = {}
    for clip, value in rows.items():
        name = parse_name(clip)
        domain = name.domain if name is not None else "unknown"
        file = file_name.replace("_test.csv", f"_{domain}_test.csv") if domain != "unknown" else file_name
        files.setdefault(file, {})[clip] = value
    return files


def _read_marks(file: Path) -> dict[str, Any]:
    """Marks, digest and `fitted_on` of `marks.json`; empty without the file."""
    if not file.is_file():
        return {}
    with reading(file, "Write the scores again"):
        data = json.loads(file.read_text(encoding="utf-8"))
    marks = data.get("marks", {}) if isinstance(data, dict) else None
    if not isinstance(marks, dict) or not all(isinstance(reason, str) for reason in marks.values()):
        raise HarkenError(
            "does not map marks to reasons", file=file, next_step='Write {"marks": {"tuned on test": "why"}}'
        )
    fitted_on = data.get("fitted_on", "section")
    if fitted_on not in ("section", "machine"):
        raise HarkenError(f"is fitted on {fitted_on!r}", file=file, next_step="Write section or machine")
    return {"marks": merged_marks([marks]), "digest": str(data.get("digest", "")), "fitted_on": fitted_on}


def _score_files(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    files = sorted(file for file in folder.iterdir() if file.suffix == ".csv") if folder.is_dir() else []
    matches = [(file, _FILE.match(file.name)) for file in files]
    return [(file, match) for file, match in matches if match is not None]
