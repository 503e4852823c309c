"""Indexes a tree of DCASE data of any years as one clips table; reports inconsistencies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from harken.audio.suffixes import ALL_SUFFIXES
from harken.core.errors import HarkenError
from harken.core.names import joined
from harken.data.attributes import read_attributes
from harken.data.clips import Clip
from harken.data.folders import walk
from harken.data.layout import FolderInfo, Layout, parse_folder
from harken.data.names import Name, attribute_pairs, parse_name, without_suffix
from harken.data.truth import Truth
from harken.data.unique import SAME_NAME, same_names


@dataclass(frozen=True)
class DataFinding:
    """An inconsistency in the data: folder, description, number of occurrences, example file or clip."""

    folder: str
    text: str
    count: int
    example: str

    def __str__(self) -> str:
        times = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.folder}: {self.text}{times}: {self.example}"


class _Findings:
    def __init__(self) -> None:
        self._examples: dict[tuple[str, str], list[str]] = defaultdict(list)

    def add(self, folder: PurePath | str, text: str, example: str) -> None:
        self._examples[str(folder), text].append(example)

    def listed(self) -> list[DataFinding]:
        return [
            DataFinding(folder, text, len(examples), examples[0]) for (folder, text), examples in self._examples.items()
        ]


def index(root: Path, *, truth: Truth | None = None, year: int | None = None) -> tuple[list[Clip], list[DataFinding]]:
    """All recordings below `root`, sorted by folder and name, and the inconsistencies found.

    truth: labels of evaluation clips, joined on machine, section and name. year: overrides the year in folder names.
    Where file name, folder, `attributes_NN.csv` and ground truth disagree, the value in the file name is kept and the
    inconsistency is reported. Raises HarkenError when there is no recording.
    """
    if not root.is_dir():
        raise HarkenError("no such folder", file=root, next_step="Check the path")
    root = root.absolute()
    findings = _Findings()
    clips: list[Clip] = []
    machines: dict[Path, list[int]] = defaultdict(list)
    walked = walk(root, ALL_SUFFIXES)
    layout = Layout.of(root, [each.path for each in walked.folders if each.audio])
    for each in walked.folders:
        folder, audio = each.path, each.audio
        if folder not in machines and any(name.startswith("attributes_") for name in each.others):
            machines[folder] = []
        if not audio:
            continue
        if folder.name == "test_rename" and (folder.parent / "test").is_dir():
            findings.add(folder, "labelled copies of the clips in test, ignored", audio[0])
            continue
        clips_folder = layout.clips_folder(folder)
        info = parse_folder(clips_folder)
        info = replace(info, year=year or info.year)
        if clips_folder != folder:
            findings.add(clips_folder, f"clips in its sub-folders are taken for clips of {info.machine}", folder.name)
        start = len(clips)
        clips += _rows(root, folder, info, audio, findings)
        machine_folder = clips_folder.parent if info.split else clips_folder
        machines[machine_folder] += range(start, len(clips))
    if not clips:
        raise HarkenError(
            "no recordings below this folder", file=root, next_step="Give the folder that contains the machines"
        )
    for note in walked.notes:
        findings.add(root, "not all of it is read", note)
    for clip, namesake in same_names(clips):
        findings.add(clip.path.parent, SAME_NAME, f"{clip.clip_id}, {namesake.clip_id}")
    for folder, rows in machines.items():
        _join_attributes(folder, clips, rows, findings)
    if truth is not None:
        _join_truth(truth, clips, findings)
    return clips, findings.listed()


def _rows(root: Path, folder: Path, info: FolderInfo, files: Iterable[str], findings: _Findings) -> Iterator[Clip]:
    relative = folder.relative_to(root).as_posix()
    prefix = "" if relative == "." else f"{relative}/"
    corpus = f"dcase{info.year}" if info.year else root.name
    for file in files:
        name = parse_name(without_suffix(file))
        if name is None:
            findings.add(folder, "not a DCASE file name, labels unknown", file)
            name = Name(section="", number="")
        _compare(folder, info, name, file, findings)
        split = name.split if name.split == "supplemental" else info.split or name.split
        domain = name.domain if name.domain != "unknown" else info.domain
        condition = name.condition
        if condition == "unknown" and split == "train" and name.section:
            condition = "normal"  # training data contain normal clips only
        yield Clip(
            clip_id=joined(prefix + file),
            path=folder / file,
            corpus=corpus,
            year=info.year,
            split=split,  # type: ignore[arg-type]
            machine=joined(info.machine),
            section=name.section,
            domain=domain,  # type: ignore[arg-type]
            condition=condition,  # type: ignore[arg-type]
            kind=name.kind,  # type: ignore[arg-type]
            attributes=attribute_pairs(name.attributes),
        )


def _compare(folder: Path, info: FolderInfo, name: Name, file: str, findings: _Findings) -> None:
    """Report fields on which file name and folder disagree."""
    if name.split and info.split and name.split != info.split:
        findings.add(folder, f"the name says {name.split}, the folder {info.split}", file)
    if "unknown" not in (name.domain, info.domain) and name.domain != info.domain:
        findings.add(folder, f"the name says {name.domain}, the folder {info.domain}", file)
    if name.condition == "anomaly" and info.split == "train":
        findings.add(folder, "an anomaly among the training clips", file)


def _join_attributes(folder: Path, clips: list[Clip], rows: list[int], findings: _Findings) -> None:
    """Compare the attributes in file names of a machine with its `attributes_NN.csv`, and take from the latter what
    the names lack."""
    tables = sorted(folder.glob("attributes_*.csv"))
    if not tables:
        return
    by_name = {joined(without_suffix(clips[row].path.name)): row for row in rows}
    listed_attributes: dict[str, dict[str, str]] = {}
    for table in tables:
        try:
            listed = read_attributes(table)
        except HarkenError as error:
            findings.add(folder, f"{error.cause}, ignored", table.name)
            continue
        for listed_name, attributes, problem in listed:
            name = joined(listed_name)
            if problem:
                findings.add(folder, f"{table.name} {problem}", name)
            if listed_attributes.setdefault(name, attributes) != attributes:
                findings.add(folder, f"{table.name} lists a recording twice with different attributes", name)
            elif name not in by_name:
                findings.add(folder, f"{table.name} lists a missing recording", name)
    agreed = {name for name, attributes in listed_attributes.items() if _agrees(folder, name, attributes, findings)}
    for name, row in by_name.items():
        clip = clips[row]
        if clip.split == "supplemental" or (clip.split == "test" and clip.condition == "unknown"):
            continue
        if name not in listed_attributes:
            findings.add(folder, "a recording is not in attributes_*.csv", name)
        elif name in agreed and (not clip.attributes or "text" in clip.attributes):
            clips[row] = replace(clip, attributes=listed_attributes[name] or clip.attributes)


def _agrees(folder: Path, name: str, listed: dict[str, str], findings: _Findings) -> bool:
    """Whether the attributes listed for a recording equal those in its name; reports differences."""
    parsed = parse_name(name)
    named = attribute_pairs(parsed.attributes if parsed else "")
    if not listed or not named:
        return True
    if "text" in named:
        if not (same := _holds_values(named["text"], listed)):
            findings.add(folder, f"attributes_*.csv says {_text(listed)}, the name differs", name)
        return same
    _compare_attributes(folder, named, listed, name, findings)
    return True


def _compare_attributes(
    folder: Path, named: dict[str, str], listed: dict[str, str], file: str, findings: _Findings
) -> None:
    """Report attributes on which name and table disagree; those in the name are kept."""
    for key, value in listed.items():
        if key in named and named[key] != value:
            findings.add(folder, f"attributes_*.csv says {key} {value}, the name {named[key]}", file)
        elif key not in named:
            alias = next((k for k, v in named.items() if v == value and k not in listed), None)
            difference = f"calls {alias} of the name {key}" if alias else f"has {key} {value}, which the name lacks"
            findings.add(folder, f"attributes_*.csv {difference}", file)
    renamed = [key for key, value in named.items() if key not in listed and value not in listed.values()]
    if renamed:
        findings.add(folder, f"attributes_*.csv lacks {', '.join(renamed)} of the name", file)


def _holds_values(text: str, attributes: dict[str, str]) -> bool:
    """Whether `text` contains every listed value, in order."""
    position = 0
    for value in attributes.values():
        position = text.find(value, position)
        if position < 0:
            return False
        position += len(value)
    return True


def _text(attributes: dict[str, str]) -> str:
    return "_".join(f"{key}_{value}" for key, value in attributes.items())


def _join_truth(truth: Truth, clips: list[Clip], findings: _Findings) -> None:
    """Label test clips; in the sections present, report labels without a clip and clips without a label."""
    sections: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row, clip in enumerate(clips):
        if clip.split != "test" or (clip.machine, clip.section) not in truth.labels:
            continue
        if clip.machine in truth.errata:
            findings.add(clip.machine, f"not labelled: {truth.errata[clip.machine]}", clip.clip_id)
            continue
        section = (clip.machine, clip.section)
        name = truth.published_name(section, without_suffix(clip.path.name))
        label = truth.labels[section].get(name)
        if label is None:
            findings.add(clip.machine, "a test clip is not in the ground truth", clip.clip_id)
            continue
        sections[section].add(name)
        condition = "anomaly" if label.anomaly else "normal"
        if clip.condition not in ("unknown", condition):
            findings.add(clip.machine, f"the name says {clip.condition}, the ground truth {condition}", clip.clip_id)
            continue
        if "unknown" not in (clip.domain, label.domain) and clip.domain != label.domain:
            findings.add(clip.machine, f"the name says {clip.domain}, the ground truth {label.domain}", clip.clip_id)
            continue
        domain = clip.domain if label.domain == "unknown" else label.domain
        clips[row] = replace(clip, condition=condition, domain=domain)  # type: ignore[arg-type]
    for section, labelled_names in sections.items():
        for name in truth.labels[section].keys() - labelled_names:
            findings.add(section[0], "a clip of the ground truth is missing", name)
