"""Ground truth of test clips: folders of the official evaluators, published lists, or file names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from harken.core.errors import HarkenError
from harken.core.names import joined
from harken.core.tables import read_csv
from harken.data import catalog
from harken.data.clips import Clip
from harken.data.names import Name, parse_name, without_suffix

#: machine, section
Section = tuple[str, str]

_GROUND_TRUTH = re.compile(
    r"ground_truth_(?P<machine>.+?)_(?:section|id)_(?P<section>\d+)(?:_(?P<domain>source|target))?(?:_test)?\.csv$"
)


@dataclass(frozen=True)
class Label:
    """Label of a test clip; domain is `unknown` where a year has no domains or the ground truth does not give it."""

    anomaly: bool
    domain: str = "unknown"


@dataclass
class Truth:
    """Labels by section and clip name (without suffix).

    aliases: labelled name -> name under which the clip was published. errata: machine -> reason why its labels in this
    source must not be used. official: whether this is the ground truth of an official evaluator.
    """

    source: str
    labels: dict[Section, dict[str, Label]] = field(default_factory=dict)
    aliases: dict[Section, dict[str, str]] = field(default_factory=dict)
    errata: dict[str, str] = field(default_factory=dict)
    official: bool = False

    def add(self, section: Section, name: str, label: Label) -> None:
        """Add a label. Raises HarkenError when the clip already has a different one."""
        section, name = (joined(section[0]), section[1]), joined(name)
        existing = self.labels.setdefault(section, {}).setdefault(name, label)
        if existing != label:
            raise HarkenError(
                f"{section[0]} section {section[1]}: {name} has two different labels", file=self.source,
                next_step="Correct the ground truth",
            )  # fmt: skip

    def published_name(self, section: Section, name: str) -> str:
        """The name under which a clip was published; labelled names are mapped back by `aliases`."""
        section, name = (joined(section[0]), section[1]), joined(name)
        if name in self.labels.get(section, {}):
            return name
        return self.aliases.get(section, {}).get(name, name)


def read_truth(path: Path) -> Truth:
    """Labels below `path`: a folder with `ground_truth_data/` (and `ground_truth_domain/`,
    `ground_truth_attributes/`) of the official evaluators, an `eval_data_list*.csv`, or a clips table.

    Raises HarkenError when there is no ground truth, or it is inconsistent.
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
            "no ground truth in this folder",
            file=path,
            next_step="Give the folder that contains ground_truth_data, or one eval_data_list.csv",
        )
    if not path.exists():
        raise HarkenError("no such file or folder", file=path, next_step="Check the path")
    if path.suffix == ".parquet":
        from harken.data.table import read_table

        return truth_of_clips(read_table(path), str(path))
    return _read_list(path)


def truth_of_clips(clips: Iterable[Clip], source: str) -> Truth:
    """Labels of the test clips of a table whose condition is known. Raises HarkenError for conflicting labels."""
    truth = Truth(source)
    for clip in clips:
        if clip.split == "test" and clip.condition != "unknown":
            name = without_suffix(clip.path.name)
            truth.add((clip.machine, clip.section), name, Label(clip.condition == "anomaly", clip.domain))
    return truth


def label_of_name(name: Name | None) -> Label | None:
    """Label given by a file name; None when it does not give the condition."""
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
            "contains no ground_truth_*.csv", file=root / "ground_truth_data", next_step="Download the evaluator again"
        )
    for file, rows in anomalies.items():
        match = _match(file)
        section = (match["machine"], match["section"])
        domain_values = {clip: value for clip, (value, *_) in domains.get(file, {}).items()}
        if domain_values and domain_values.keys() != rows.keys():
            raise HarkenError(
                "lists other clips than ground_truth_data", file=root / "ground_truth_domain" / file,
                next_step="Download the evaluator again",
            )  # fmt: skip
        for clip, (value, *_) in rows.items():
            condition = _labelled(value, ("normal", "anomaly"), clip, root / "ground_truth_data" / file)
            name = parse_name(clip)
            domain = match["domain"] or (name.domain if name else "unknown")
            if clip in domain_values:
                domain = _labelled(domain_values[clip], ("source", "target"), clip, root / "ground_truth_domain" / file)
            truth.add(section, clip, Label(condition == "anomaly", domain))
        for clip, labelled in names.get(file, {}).items():
            for alias in labelled:
                truth.aliases.setdefault(section, {})[without_suffix(alias)] = clip
    return truth


def _labelled(cell: str, meanings: tuple[str, str], clip: str, file: Path) -> str:
    """What 0 and 1 stand for. Raises HarkenError for any other label."""
    if cell not in ("0", "1", "0.0", "1.0"):
        raise HarkenError(
            f"{clip} has the label {cell!r}", file=file, next_step=f"It must be 0 ({meanings[0]}) or 1 ({meanings[1]})"
        )
    return meanings[int(cell[0])]


def _tables(folder: Path) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """(file name, {clip name without suffix: remaining cells}) of each table in a folder."""
    for file in sorted(folder.glob("ground_truth_*.csv")) if folder.is_dir() else ():
        if _GROUND_TRUTH.match(file.name):
            yield file.name, {without_suffix(row[0]): row[1:] for row in _rows(file) if len(row) > 1}


def _match(file_name: str) -> re.Match[str]:
    match = _GROUND_TRUTH.match(file_name)
    assert match is not None  # `_tables` yields matching names only
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
        clip, labelled = without_suffix(PurePosixPath(cells[0]).name), without_suffix(PurePosixPath(cells[1]).name)
        name, label = parse_name(clip), label_of_name(parse_name(labelled))
        if not machine or name is None or label is None:
            raise HarkenError(
                f"the line {','.join(row)!r} is not of the form published name,labelled name below a machine",
                file=file,
                next_step="Give ground_truth_data of the official evaluator, or an eval_data_list.csv",
            )
        if len(cells) > 2 and (_labelled(cells[2], ("normal", "anomaly"), clip, file) == "anomaly") != label.anomaly:
            raise HarkenError(
                f"{clip}: the name {labelled} and the label {cells[2]} differ", file=file, next_step="Correct the list"
            )
        truth.add((machine, name.section), clip, label)
        truth.aliases.setdefault((machine, name.section), {})[labelled] = clip
    if not truth.labels:
        raise HarkenError("lists no clips", file=file, next_step="Give an eval_data_list.csv")
    for number in catalog.years():
        for erratum in catalog.year(number).errata:
            if erratum.subject.startswith("eval_data_list") and _is_of_year(truth, number):
                truth.errata |= {name: erratum.text for name in erratum.machines}
    return truth


def _is_of_year(truth: Truth, number: int) -> bool:
    """Whether a list belongs to a year: by its sections, and by whether names hide the domain."""
    year = catalog.year(number)
    sections = {(entry.name, section) for entry in year.machines if entry.part == "eval" for section in entry.sections}
    hides = year.metric == "domain_generalization"
    names = (parse_name(clip) for clips in truth.labels.values() for clip in clips)
    return truth.labels.keys() <= sections and all(
        (name is not None and name.domain == "unknown") == hides for name in names
    )


def _rows(file: Path) -> list[list[str]]:
    return [[cell.strip() for cell in cells] for _, cells in read_csv(file, "Check the file")]
