"""Ground truth of test clips: the evaluators' folders, the published lists, or the names themselves."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from harken.core.errors import HarkenError
from harken.data import catalog
from harken.data.clips import Clip
from harken.data.names import Name, parse_name, without_ending

#: machine, section
Section = tuple[str, str]

_GROUND_TRUTH = re.compile(
    r"ground_truth_(?P<machine>.+?)_(?:section|id)_(?P<section>\d+)(?:_(?P<domain>source|target))?(?:_test)?\.csv$"
)


@dataclass(frozen=True)
class Label:
    """domain is `unknown` where a year knows no domains or the truth is silent."""

    anomaly: bool
    domain: str = "unknown"


@dataclass
class Truth:
    """Labels by section and clip name (without ending).

    aliases: labelled name -> the name under which the clip was published. errata: machine -> why its labels in this
    source must not be used. official: it is the ground truth of an official evaluator.
    """

    source: str
    labels: dict[Section, dict[str, Label]] = field(default_factory=dict)
    aliases: dict[Section, dict[str, str]] = field(default_factory=dict)
    errata: dict[str, str] = field(default_factory=dict)
    official: bool = False

    def add(self, section: Section, name: str, label: Label) -> None:
        """Raises HarkenError for a clip that is there with another label."""
        known = self.labels.setdefault(section, {}).setdefault(name, label)
        if known != label:
            raise HarkenError(
                f"{section[0]} section {section[1]}: {name} has two different labels", file=self.source,
                next_step="Mend the truth",
            )  # fmt: skip

    def published_name(self, section: Section, name: str) -> str:
        """The name under which a clip was published; labelled names are mapped back where the truth knows them."""
        if name in self.labels.get(section, {}):
            return name
        return self.aliases.get(section, {}).get(name, name)


def read_truth(path: Path) -> Truth:
    """Labels below `path`: a folder with `ground_truth_data/` (and `ground_truth_domain/`,
    `ground_truth_attributes/`) of the official evaluators, an `eval_data_list*.csv`, or a clips table.

    Raises HarkenError when there is nothing of the kind, or it contradicts itself.
    """
    if path.is_dir():
        data = path / "ground_truth_data"
        if data.is_dir():
            return _read_folders(path)
        if path.name == "ground_truth_data":
            return _read_folders(path.parent)
        lists = sorted(path.glob("eval_data_list*.csv"))
        if len(lists) == 1:
            return _read_list(lists[0])
        raise HarkenError(
            "no ground truth here",
            file=path,
            next_step="Name the folder that holds ground_truth_data, or one eval_data_list.csv",
        )
    if not path.exists():
        raise HarkenError("there is no such file or folder", file=path, next_step="Check the path")
    if path.suffix == ".parquet":
        from harken.data.table import read_table

        return truth_of_clips(read_table(path), str(path))
    return _read_list(path)


def truth_of_clips(clips: Iterable[Clip], source: str) -> Truth:
    """Labels of the test clips of a table, as far as it knows them."""
    truth = Truth(source)
    for clip in clips:
        if clip.split == "test" and clip.condition != "unknown":
            name = without_ending(clip.path.name)
            truth.add((clip.machine, clip.section), name, Label(clip.condition == "anomaly", clip.domain))
    return truth


def label_of_name(name: Name | None) -> Label | None:
    """What a labelled name says; None when it does not say whether the clip is normal."""
    if name is None or name.condition == "unknown":
        return None
    return Label(name.condition == "anomaly", name.domain)


def _read_folders(root: Path) -> Truth:
    truth = Truth(str(root), official=True)
    anomalies = dict(_tables(root / "ground_truth_data"))
    domains = dict(_tables(root / "ground_truth_domain"))
    names = dict(_tables(root / "ground_truth_attributes"))
    if not anomalies:
        raise HarkenError(
            "holds no ground_truth_*.csv", file=root / "ground_truth_data", next_step="Fetch the evaluator again"
        )
    for file, rows in anomalies.items():
        match = _match(file)
        section = (match["machine"], match["section"])
        of_domain = {clip: value for clip, (value, *_) in domains.get(file, {}).items()}
        if of_domain and of_domain.keys() != rows.keys():
            raise HarkenError(
                "lists other clips than ground_truth_data", file=root / "ground_truth_domain" / file,
                next_step="Fetch the evaluator again",
            )  # fmt: skip
        for clip, (value, *_) in rows.items():
            if value not in ("0", "1", "0.0", "1.0"):
                raise HarkenError(
                    f"{clip} has the label {value!r}", file=root / "ground_truth_data" / file,
                    next_step="It must be 0 (normal) or 1 (anomaly)",
                )  # fmt: skip
            name = parse_name(clip)
            domain = match["domain"] or (name.domain if name else "unknown")
            if clip in of_domain:
                domain = {"0": "source", "1": "target"}.get(of_domain[clip][:1], "unknown")
            truth.add(section, clip, Label(value[0] == "1", domain))
        for clip, labelled in names.get(file, {}).items():
            for alias in labelled:
                truth.aliases.setdefault(section, {})[without_ending(alias)] = clip
    return truth


def _tables(folder: Path) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """File name -> (clip name without ending -> the other cells) of each table in a folder."""
    for file in sorted(folder.glob("ground_truth_*.csv")) if folder.is_dir() else ():
        if _GROUND_TRUTH.match(file.name):
            yield file.name, {without_ending(row[0]): row[1:] for row in _rows(file) if len(row) > 1}


def _match(file_name: str) -> re.Match[str]:
    match = _GROUND_TRUTH.match(file_name)
    assert match is not None  # the names come from `_tables`
    return match


def _read_list(file: Path) -> Truth:
    """`eval_data_list.csv`: a line with a machine, then lines `published name,labelled name[,0|1]`."""
    truth = Truth(str(file))
    machine = ""
    for row in _rows(file):
        cells = [cell for cell in row if cell]
        if len(cells) == 1:
            machine = cells[0]
            continue
        clip, labelled = without_ending(PurePosixPath(cells[0]).name), without_ending(PurePosixPath(cells[1]).name)
        name, told = parse_name(clip), parse_name(labelled)
        label = label_of_name(told)
        if not machine or name is None or label is None:
            raise HarkenError(
                f"the line {','.join(row)!r} is not of the form published name,labelled name below a machine",
                file=file,
                next_step="Name ground_truth_data of the official evaluator, or an eval_data_list.csv",
            )
        if len(cells) > 2 and cells[2][:1] != str(int(label.anomaly)):
            raise HarkenError(
                f"{clip}: the name {labelled} and the label {cells[2]} differ", file=file, next_step="Mend the list"
            )
        truth.add((machine, name.section), clip, label)
        truth.aliases.setdefault((machine, name.section), {})[labelled] = clip
    if not truth.labels:
        raise HarkenError("lists no clips", file=file, next_step="Name an eval_data_list.csv")
    for number in catalog.years():
        for erratum in catalog.year(number).errata:
            if erratum.subject.startswith("eval_data_list") and _is_of_year(truth, number):
                truth.errata |= {name: erratum.text for name in erratum.machines}
    return truth


def _is_of_year(truth: Truth, number: int) -> bool:
    """Whether a list is that year's: its sections, and names that hide the domain where the year's do."""
    year = catalog.year(number)
    known = {(entry.name, section) for entry in year.machines if entry.part == "eval" for section in entry.sections}
    hides = year.metric == "domain_generalization"
    names = (parse_name(clip) for clips in truth.labels.values() for clip in clips)
    return truth.labels.keys() <= known and all(
        (name is not None and name.domain == "unknown") == hides for name in names
    )


def _rows(file: Path) -> list[list[str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            return [[cell.strip() for cell in row] for row in csv.reader(handle) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HarkenError(f"cannot be read ({error})", file=file, next_step="Check the file") from error
