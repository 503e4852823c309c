"""A tree of DCASE data of any years as one clips table; what contradicts itself is reported."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from harken.audio.suffixes import ALL_SUFFIXES
from harken.core.errors import HarkenError
from harken.data.attributes import read_attributes
from harken.data.clips import Clip
from harken.data.layout import Place, place_of
from harken.data.names import Name, attribute_pairs, parse_name, without_ending
from harken.data.truth import Truth


@dataclass(frozen=True)
class Finding:
    """Something a reader should know: of which folder, what, how often, an example."""

    folder: str
    text: str
    count: int
    example: str

    def __str__(self) -> str:
        more = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.folder}: {self.text}{more}: {self.example}"


class _Findings:
    def __init__(self) -> None:
        self._examples: dict[tuple[str, str], list[str]] = defaultdict(list)

    def add(self, folder: PurePath | str, text: str, example: str) -> None:
        self._examples[str(folder), text].append(example)

    def listed(self) -> list[Finding]:
        return [
            Finding(folder, text, len(examples), examples[0]) for (folder, text), examples in self._examples.items()
        ]


def index(root: Path, *, truth: Truth | None = None, year: int | None = None) -> tuple[list[Clip], list[Finding]]:
    """Every recording below `root`, in order of folder and name, and what was found odd.

    truth: labels of evaluation clips, joined on machine, section and name. year: for trees whose folders do not tell.
    A field on which name, folder, `attributes_NN.csv` and truth disagree keeps what the name says, and is reported.
    Raises HarkenError when there is no recording.
    """
    if not root.is_dir():
        raise HarkenError("there is no such folder", file=root, next_step="Check the path")
    root = root.absolute()
    findings = _Findings()
    clips: list[Clip] = []
    machines: dict[Path, list[int]] = defaultdict(list)
    for folder, files, tables in _folders(root):
        audio = [file for file in files if os.path.splitext(file)[1].lower() in ALL_SUFFIXES]
        if tables and folder not in machines:
            machines[folder] = []
        if not audio:
            continue
        if folder.name == "test_rename" and (folder.parent / "test").is_dir():
            findings.add(folder, "labelled copies of the clips in test, left out", audio[0])
            continue
        place = place_of(folder)
        place = replace(place, year=year or place.year)
        start = len(clips)
        clips += _rows(root, folder, place, audio, findings)
        owner = folder.parent if place.split else folder
        machines[owner] += range(start, len(clips))
    if not clips:
        raise HarkenError(
            "no recordings below this folder", file=root, next_step="Name the folder that holds the machines"
        )
    for folder, rows in machines.items():
        _join_attributes(folder, clips, rows, findings)
    if truth is not None:
        _join_truth(truth, clips, findings)
    return clips, findings.listed()


def _folders(root: Path) -> Iterator[tuple[Path, list[str], bool]]:
    """Folder, its files in order, whether it holds attributes; links are followed, each folder is seen once."""
    seen: set[str] = set()
    for name, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(name)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        files = sorted(file for file in files if not file.startswith("."))
        yield Path(name), files, any(file.startswith("attributes_") for file in files)


def _rows(root: Path, folder: Path, place: Place, files: Iterable[str], findings: _Findings) -> Iterator[Clip]:
    inside = folder.relative_to(root).as_posix()
    prefix = "" if inside == "." else f"{inside}/"
    corpus = f"dcase{place.year}" if place.year else root.name
    for file in files:
        name = parse_name(without_ending(file))
        if name is None:
            findings.add(folder, "no DCASE name, its labels are unknown", file)
            name = Name(section="", number="")
        _compare(folder, place, name, file, findings)
        split = name.split if name.split == "supplemental" else place.split or name.split
        domain = name.domain if name.domain != "unknown" else place.domain
        condition = name.condition
        if condition == "unknown" and split == "train" and name.section:
            condition = "normal"  # training data hold nothing else
        yield Clip(
            clip_id=prefix + file,
            path=folder / file,
            corpus=corpus,
            year=place.year,
            split=split,  # type: ignore[arg-type]
            machine=place.machine,
            section=name.section,
            domain=domain,  # type: ignore[arg-type]
            condition=condition,  # type: ignore[arg-type]
            kind=name.kind,  # type: ignore[arg-type]
            attributes=attribute_pairs(name.attributes),
        )


def _compare(folder: Path, place: Place, name: Name, file: str, findings: _Findings) -> None:
    """Report what the name and the folder say differently."""
    if name.split and place.split and name.split != place.split:
        findings.add(folder, f"the name says {name.split}, the folder {place.split}", file)
    if "unknown" not in (name.domain, place.domain) and name.domain != place.domain:
        findings.add(folder, f"the name says {name.domain}, the folder {place.domain}", file)
    if name.condition == "anomaly" and place.split == "train":
        findings.add(folder, "an anomaly among the training clips", file)


def _join_attributes(folder: Path, clips: list[Clip], rows: list[int], findings: _Findings) -> None:
    """Compare the attributes in the names of a machine's clips with its `attributes_NN.csv`, and take from the latter
    what the names do not tell."""
    tables = sorted(folder.glob("attributes_*.csv"))
    if not tables:
        return
    by_name = {without_ending(clips[row].path.name): row for row in rows}
    told: dict[str, dict[str, str]] = {}
    for table in tables:
        try:
            listed = read_attributes(table)
        except HarkenError as error:
            findings.add(folder, f"{error.cause}, passed over", table.name)
            continue
        for name, attributes in listed:
            if told.setdefault(name, attributes) != attributes:
                findings.add(folder, f"{table.name} lists a recording twice, differently", name)
            elif name not in by_name:
                findings.add(folder, f"{table.name} lists a recording that is not here", name)
    agreed = {name for name, attributes in told.items() if _agrees(folder, name, attributes, findings)}
    for name, row in by_name.items():
        clip = clips[row]
        if clip.split == "supplemental" or (clip.split == "test" and clip.condition == "unknown"):
            continue
        if name not in told:
            findings.add(folder, "a recording is not in attributes_*.csv", name)
        elif name in agreed and (not clip.attributes or "text" in clip.attributes):
            clips[row] = replace(clip, attributes=told[name] or clip.attributes)


def _agrees(folder: Path, name: str, listed: dict[str, str], findings: _Findings) -> bool:
    """Whether the attributes listed for a recording are those in its name; reports where not."""
    parsed = parse_name(name)
    named = attribute_pairs(parsed.attributes if parsed else "")
    if not listed or not named:
        return True
    if "text" in named:
        if not (same := _tells(named["text"], listed)):
            findings.add(folder, f"attributes_*.csv says {_text(listed)}, the name something else", name)
        return same
    _compare_attributes(folder, named, listed, name, findings)
    return True


def _compare_attributes(
    folder: Path, named: dict[str, str], listed: dict[str, str], file: str, findings: _Findings
) -> None:
    """Report what the name and the table say differently; the name's attributes stay."""
    for key, value in listed.items():
        if key in named and named[key] != value:
            findings.add(folder, f"attributes_*.csv says {key} {value}, the name {named[key]}", file)
        elif key not in named:
            twin = next((k for k, v in named.items() if v == value and k not in listed), None)
            what = f"calls {twin} of the name {key}" if twin else f"has {key} {value}, which the name lacks"
            findings.add(folder, f"attributes_*.csv {what}", file)
    renamed = [key for key, value in named.items() if key not in listed and value not in listed.values()]
    if renamed:
        findings.add(folder, f"attributes_*.csv lacks {', '.join(renamed)} of the name", file)


def _tells(text: str, attributes: dict[str, str]) -> bool:
    """Whether a name's text holds every listed value, in order."""
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
    """Labels of test clips; every label of the truth whose section is here must find its clip, and the other way."""
    sections: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row, clip in enumerate(clips):
        if clip.split != "test" or (clip.machine, clip.section) not in truth.labels:
            continue
        if clip.machine in truth.errata:
            findings.add(clip.machine, f"not labelled: {truth.errata[clip.machine]}", clip.clip_id)
            continue
        section = (clip.machine, clip.section)
        name = truth.published_name(section, without_ending(clip.path.name))
        label = truth.labels[section].get(name)
        if label is None:
            findings.add(clip.machine, "the truth does not know a test clip", clip.clip_id)
            continue
        sections[section].add(name)
        condition = "anomaly" if label.anomaly else "normal"
        if clip.condition not in ("unknown", condition):
            findings.add(clip.machine, f"the name says {clip.condition}, the truth {condition}", clip.clip_id)
            continue
        if "unknown" not in (clip.domain, label.domain) and clip.domain != label.domain:
            findings.add(clip.machine, f"the name says {clip.domain}, the truth {label.domain}", clip.clip_id)
            continue
        domain = clip.domain if label.domain == "unknown" else label.domain
        clips[row] = replace(clip, condition=condition, domain=domain)  # type: ignore[arg-type]
    for section, found in sections.items():
        for name in truth.labels[section].keys() - found:
            findings.add(section[0], "a clip of the truth is not here", name)
