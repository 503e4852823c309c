"""Score and decision files of the challenge: every accepted spelling in, the official one out."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.data.names import parse_name, without_ending
from harken.data.truth import Label, Section, Truth
from harken.data.unpack import unpack

_FILE = re.compile(
    r"(?P<what>anomaly_score|decision_result)_(?:DCASE\d{4}T2)?(?P<machine>.+?)_(?P<word>section|id)_(?P<section>\d+)"
    r"(?:_(?P<domain>source|target))?(?:_test)?(?P<rest>_.+)?\.csv$"
)


@dataclass
class System:
    """Scores (and decisions) of one system: section -> clip name without ending -> number.

    by_domain: its files are one a domain, as in 2021. by_id: its sections are machine IDs, as in 2020.
    """

    name: str
    scores: dict[Section, dict[str, float]] = field(default_factory=dict)
    decisions: dict[Section, dict[str, float]] = field(default_factory=dict)
    by_domain: bool = False
    by_id: bool = False


@dataclass(frozen=True)
class Broken:
    """A system that cannot be read or joined, and why."""

    name: str
    error: HarkenError


def read_systems(path: Path) -> tuple[list[System], list[Broken], Truth | None]:
    """The systems of `path`: a folder of `anomaly_score_*.csv`, a folder or zip of such folders, or one table of
    several systems (`machine,section,file,domain,anomaly,SYSTEM...`; csv, csv.gz, parquet), which holds the truth too.

    A folder with files of several seeds holds several systems. Raises HarkenError when there is no score at all, or
    the only system is broken.
    """
    if path.suffix == ".zip" and path.is_file():
        with tempfile.TemporaryDirectory() as temporary:
            unpack(path, Path(temporary) / "systems")
            return read_systems(Path(temporary) / "systems")
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
            "no anomaly_score_*.csv here or in folders below", file=path, next_step="Name the folder that holds them"
        )
    return systems, broken, None


def read_system_folder(folder: Path, name: str | None = None) -> list[System]:
    """Systems of one folder, one for each suffix of its file names (`_seed13711...`)."""
    systems: dict[str, System] = {}
    sources: dict[tuple[str, str, Section, str], Path] = {}
    for file, match in _score_files(folder):
        rest = match["rest"] or ""
        label = name or folder.absolute().name
        system = systems.setdefault(rest, System(label + rest))
        system.by_domain |= match["domain"] is not None
        system.by_id |= match["word"] == "id"
        section = (match["machine"], match["section"])
        twin = sources.setdefault((rest, match["what"], section, match["domain"] or ""), file)
        if twin is not file:
            raise HarkenError(f"scores the same section as {twin.name}", file=file, next_step="Keep one of them")
        into = system.scores if match["what"] == "anomaly_score" else system.decisions
        rows = into.setdefault(section, {})
        for clip, value in read_rows(file, match["section"], decision=match["what"] == "decision_result").items():
            if clip in rows:
                raise HarkenError(f"{clip} is in another file of this section too", file=file, next_step="Keep one row")
            rows[clip] = value
    return [system for system in systems.values() if system.scores]


def read_rows(file: Path, section: str, *, decision: bool = False) -> dict[str, float]:
    """Rows `clip.wav,number` of one file, clip name without ending -> number.

    Raises HarkenError for a row of another form or section, a clip twice, a score that is not finite, a decision that
    is not 0 or 1.
    """
    rows: dict[str, float] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            lines = list(csv.reader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HarkenError(f"cannot be read ({error})", file=file, next_step="Write it again") from error
    for number, cells in enumerate(lines, start=1):
        if not any(cell.strip() for cell in cells):
            continue
        row = ",".join(cells)[:80]
        if len(cells) != 2:
            raise HarkenError(
                f"line {number} ({row!r}) has {len(cells)} cells", file=file, next_step="Write clip.wav,number"
            )
        clip = without_ending(PurePosixPath(cells[0].strip().replace("\\", "/")).name)
        try:
            value = float(cells[1])
        except ValueError:
            raise HarkenError(
                f"line {number} ({row!r}) has no number", file=file, next_step="Write clip.wav,number, without a header"
            ) from None
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
            raise HarkenError(f"line {number}: {clip} is there twice", file=file, next_step="Keep one row a clip")
        rows[clip] = value
    if not rows:
        raise HarkenError("is empty", file=file, next_step="Write one row a clip")
    return rows


def read_score_table(file: Path) -> tuple[list[System], Truth | None]:
    """Systems of a table with the columns `machine`, `section`, `file`, optionally `domain` and `anomaly` (then the
    table is its own truth), and one column a system. Raises HarkenError for anything else."""
    columns = _columns(file)
    if not {"machine", "section", "file"} <= columns.keys():
        raise HarkenError(
            "is no table of scores: it needs the columns machine, section, file and one a system",
            file=file,
            next_step="Name a folder of anomaly_score_*.csv, or such a table",
        )
    numbers = [section.removeprefix("section_").removeprefix("id_") for section in columns["section"]]
    sections = list(zip(columns["machine"], numbers, strict=True))
    clips = [without_ending(PurePosixPath(clip).name) for clip in columns["file"]]
    truth = None
    if "anomaly" in columns:
        truth = Truth(str(file))
        domains = columns.get("domain") or ["unknown"] * len(clips)
        for section, clip, anomaly, domain in zip(sections, clips, columns["anomaly"], domains, strict=True):
            if clip in truth.labels.get(section, {}):
                raise HarkenError(f"{section[0]}: {clip} is there twice", file=file, next_step="Keep one row a clip")
            truth.add(section, clip, Label(anomaly in ("1", "1.0", "True", "true"), domain))
    systems = []
    for name in columns.keys() - {"machine", "section", "file", "domain", "anomaly"}:
        system = System(name)
        for section, clip, cell in zip(sections, clips, columns[name], strict=True):
            try:
                value = float(cell)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise HarkenError(
                    f"{section[0]}: {clip} has the score {cell!r} of {name}", file=file, next_step="Give a finite one"
                )
            rows = system.scores.setdefault(section, {})
            if clip in rows:
                raise HarkenError(f"{section[0]}: {clip} is there twice", file=file, next_step="Keep one row a clip")
            rows[clip] = value
        systems.append(system)
    if not systems:
        raise HarkenError("has no column with scores", file=file, next_step="Add one column a system")
    return sorted(systems, key=lambda system: system.name), truth


def write_rows(file: Path, rows: Mapping[str, float | int]) -> None:
    """`clip.wav,number` lines without a header, in the order of names; numbers survive reading unchanged."""
    text = "".join(f"{clip}.wav,{value!r}\n" for clip, value in sorted(rows.items()))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text.encode())


def official_name(what: str, section: Section) -> str:
    """`anomaly_score_fan_section_00_test.csv`; what is `anomaly_score` or `decision_result`."""
    return f"{what}_{section[0]}_section_{section[1]}_test.csv"


def _score_files(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    files = sorted(file for file in folder.iterdir() if file.suffix == ".csv") if folder.is_dir() else []
    matches = [(file, _FILE.match(file.name)) for file in files]
    return [(file, match) for file, match in matches if match is not None]


def _columns(file: Path) -> dict[str, list[str]]:
    """A table as text columns."""
    if file.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise HarkenError(f"cannot be read ({error})", file=file, next_step="Write it again") from error
        return {name: [str(value) for value in table.column(name).to_pylist()] for name in table.column_names}
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
        head, *rows = [row for row in csv.reader(io.StringIO(text)) if row]
        return {name: list(cells) for name, cells in zip(head, zip(*rows, strict=True), strict=True)}
    except (OSError, EOFError, ValueError, csv.Error) as error:
        raise HarkenError(
            f"is no table ({error})", file=file, next_step="Name a folder of anomaly_score_*.csv, or a table"
        ) from error
