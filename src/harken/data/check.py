"""Checks a tree of DCASE data for completeness: counts against the catalogue, header of every recording."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from harken.audio.header import read_file_header
from harken.core.errors import AudioError
from harken.data import catalog
from harken.data.catalog import Part, Year
from harken.data.clips import Clip
from harken.data.index import index

Progress = Callable[[int, int], None]


def check(root: Path, progress: Progress | None = None) -> list[str]:
    """Findings on all recordings below `root`, years taken from folder names. Raises HarkenError for an empty tree."""
    clips, inconsistencies = index(root)
    findings = [str(finding) for finding in inconsistencies]
    clips, broken = read_headers(clips, progress)
    findings += [finding.sentence for finding in broken]
    by_year: dict[int, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.year in catalog.years():
            by_year[clip.year].append(clip)
    for number, rows in sorted(by_year.items()):
        findings += _against_catalogue(catalog.year(number), rows)
    return findings


def check_year(
    root: Path,
    year: int,
    parts: Sequence[Part] = catalog.PARTS,
    machines: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Findings on the given parts and machines (default: all) of one year below `root`. Raises as `index` does."""
    entry = catalog.year(year)
    clips, inconsistencies = index(root)
    rows = [clip for clip in clips if clip.year == year and (machines is None or clip.machine in machines)]
    rows, broken = read_headers(rows, progress)
    findings = [str(finding) for finding in inconsistencies]
    findings += [finding.sentence for finding in broken]
    findings += _against_catalogue(entry, rows)
    present = {(clip.machine, clip.split, clip.section) for clip in rows}
    for archive in entry.archives(tuple(parts), None if machines is None else tuple(machines)):
        machine = entry.machine(archive.machine, "dev" if archive.part == "dev" else "eval")
        assert machine is not None  # archives are built from the machines
        splits = {"dev": ("train", "test"), "train": ("train",), "eval": ("test",)}[archive.part]
        for split in splits:
            missing = [s for s in machine.sections if (archive.machine, split, s) not in present]
            if missing:
                findings.append(f"{year} {archive.machine}: no {split} clips of section {', '.join(missing)}")
    return findings


class HeaderFinding(NamedTuple):
    """What is to be said of a clip's header, and whether the clip cannot be used."""

    sentence: str
    unusable: bool


def read_headers(clips: Iterable[Clip], progress: Progress | None = None) -> tuple[list[Clip], list[HeaderFinding]]:
    """Clips with rate, channels and length from their headers, and findings on headers and on what they do not say.

    frames are those that are there, not those that a header states; None where only decoding tells.
    """
    rows = list(clips)
    findings = []
    for row, clip in enumerate(rows):
        if progress is not None:
            progress(row + 1, len(rows))
        try:
            header = read_file_header(clip.path)
        except AudioError as error:
            findings.append(HeaderFinding(f"{clip.clip_id}: {error.cause}. {error.next_step}", unusable=True))
            continue
        findings += [
            HeaderFinding(f"{clip.clip_id}: {finding.sentence}", finding.unusable) for finding in header.findings
        ]
        if header.frames == 0:
            findings.append(HeaderFinding(f"{clip.clip_id}: holds no samples", unusable=True))
        rows[row] = replace(
            clip, sample_rate=header.sample_rate, channels=header.channels, frames=header.frames or None
        )  # fmt: skip
    return rows, findings


def _against_catalogue(year: Year, clips: Sequence[Clip]) -> list[str]:
    """Differences from the catalogue: rate, channels, lengths, number of clips in the sections that are present."""
    findings = []
    names = {entry.name for entry in year.machines}
    for machine in sorted({clip.machine for clip in clips}):
        rows = [clip for clip in clips if clip.machine == machine]
        if machine not in names:
            findings.append(f"{year.year} has no machine {machine} ({len(rows)} clips)")
            continue
        for unit, actual, expected in (
            ("Hz", {clip.sample_rate for clip in rows}, year.sample_rate),
            ("channels", {clip.channels for clip in rows}, len(year.channels)),
        ):
            if odd := actual - {expected, None}:
                findings.append(f"{year.year} {machine}: {sorted(map(str, odd))} {unit}, the catalogue says {expected}")
        for entry in (entry for entry in year.machines if entry.name == machine):
            entry_clips = [clip for clip in rows if clip.section in entry.sections]
            findings += _counts(year, entry, entry_clips)
            shortest, longest = entry.seconds or year.seconds
            outside = [
                clip
                for clip in entry_clips
                if clip.frames
                and clip.sample_rate
                and clip.split != "supplemental"
                and not shortest - 0.5 <= clip.frames / clip.sample_rate <= longest + 0.5
            ]
            if outside:
                findings.append(
                    f"{year.year} {machine}: {len(outside)} clips are not {shortest:g}-{longest:g} s long: "
                    f"{outside[0].clip_id}"
                )
    return findings


def _counts(year: Year, entry: catalog.MachineOfYear, clips: Sequence[Clip]) -> list[str]:
    findings = []
    for section in sorted({clip.section for clip in clips}):
        train = Counter(clip.domain for clip in clips if clip.section == section and clip.split == "train")
        test = sum(clip.section == section and clip.split == "test" for clip in clips)
        where = f"{year.year} {entry.name} section {section}"
        if train and year.train and dict(train) != year.train:
            findings.append(f"{where}: training clips {dict(train)}, the catalogue says {year.train}")
        expected = sum(entry.test.get(section, {}).values())
        if test and expected and test != expected:
            findings.append(f"{where}: {test} test clips, the catalogue says {expected}")
    supplemental = sum(clip.split == "supplemental" for clip in clips)
    if supplemental and year.supplemental and supplemental != year.supplemental:
        findings.append(
            f"{year.year} {entry.name}: {supplemental} supplemental clips, the catalogue says {year.supplemental}"
        )
    return findings
