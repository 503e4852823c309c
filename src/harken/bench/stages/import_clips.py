"""import_clips: clips that another program has made, from a folder and a manifest."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from harken.audio.listen import listen
from harken.bench.costs import Cost, PlannedStage
from harken.bench.stages.base import Context, Settings, Stage
from harken.bench.stages.tables import write_clips
from harken.core.errors import AudioError, HarkenError, did_you_mean
from harken.data.clips import Clip, derive
from harken.encoders.spectrogram_file import SUFFIX, read_spectrogram

COLUMNS = ("file", "id", "machine", "section", "domain", "attributes", "parent")
_NEEDED = ("file", "id")


class ImportClipsStage(Stage):
    """`clips.parquet` and `audio/`: the clips of a manifest, sounds or spectrograms (`encoders.spectrogram_file`).

    The manifest is CSV with a header: file (in the folder), id; machine, section, domain (source, target, unknown),
    attributes (`spd=28V;mic=1`), parent (id of a clip of the clips table, or of an earlier row). What a row with a
    parent leaves empty is that of its parent, and must not be another; a row without one needs a machine.
    """

    makes = "clips"
    scope = "all"
    from_tests = True

    class Parameters(Settings):
        """folder: of the files. manifest: its name in the folder. kind: of all its clips. year: of clips without
        parents, where the machine is of several."""

        folder: str
        manifest: str = "manifest.csv"
        kind: Literal["generated", "separated", "mixed"] = "generated"
        year: int | None = None

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        """The digests of the manifest and of every file that it names."""
        folder = Path(parameters.folder)
        files = {row["file"]: _digest(folder / row["file"], f"{where}") for where, row in _rows(parameters)}
        return {"manifest_sha256": _digest(folder / parameters.manifest), "files_sha256": files}

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Files are read and copied, which is left out."""
        return Cost(details={"clips": sum(1 for _ in _rows(parameters))})

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        folder = Path(parameters.folder)
        (context.out / "audio").mkdir()
        clip_of = {clip.clip_id: clip for clip in context.clips}
        recorded = dict(clip_of)
        clips = []
        rows = list(_rows(parameters))
        for number, (where, row) in enumerate(rows):
            if row["id"] in clip_of:
                raise _wrong(where, f"there is a clip {row['id']!r} already", "Give it another id")
            source = folder / row["file"]
            try:
                form = _form(source)
            except AudioError as error:
                raise _wrong(where, f"{row['file']} {error.cause}", error.next_step or "Check the file") from error
            name = hashlib.sha256(row["id"].encode()).hexdigest()[:24]
            file = context.out / "audio" / f"{name}{source.suffix.lower()}"
            shutil.copyfile(source, file)
            if row["parent"]:
                clip = _of_parent(where, row, file, clip_of, parameters.kind, form)
            else:
                clip = _without_parent(where, row, file, recorded, parameters, form)
            clip_of[clip.clip_id] = clip
            clips.append(clip)
            context.progress(number + 1, len(rows))
        write_clips(context.out, clips)


def _form(file: Path) -> dict[str, Any]:
    """What a clip's file holds. Raises AudioError for what cannot be used."""
    if file.suffix.lower() == SUFFIX:
        front_end, spectrogram = read_spectrogram(file)
        return {"sample_rate": front_end.sample_rate, "channels": 1, "frames": spectrogram.samples,
                "payload": "spectrogram"}  # fmt: skip
    sound = listen(file)
    channels, frames = sound.wave_CS.shape
    return {"sample_rate": sound.sample_rate, "channels": channels, "frames": frames}


def _of_parent(
    where: str, row: dict[str, str], file: Path, clip_of: dict[str, Clip], kind: Any, form: dict[str, Any]
) -> Clip:
    if row["parent"] not in clip_of:
        hint = did_you_mean(row["parent"], clip_of, "Name the id of a clip of the clips table, or of an earlier row")
        raise _wrong(where, f"there is no clip {row['parent']!r} to be its parent", hint)
    parent = clip_of[row["parent"]]
    for name in ("machine", "section", "domain"):
        if row[name] and row[name] != getattr(parent, name) and parent.split != "test":
            raise _wrong(
                where, f"its {name} is {row[name]}, that of its parent {getattr(parent, name)}", "Leave it empty"
            )
    if row["attributes"] and parent.split != "test" and _attributes(where, row["attributes"]) != parent.attributes:
        raise _wrong(where, "its attributes are not those of its parent", "Leave them empty")
    return derive(parent, row["id"], file, kind, **form)


def _without_parent(
    where: str, row: dict[str, str], file: Path, recorded: dict[str, Clip], parameters: Any, form: dict[str, Any]
) -> Clip:
    if not row["machine"]:
        raise _wrong(where, "it has neither a parent nor a machine", "Name one of the two")
    same = [clip for clip in recorded.values() if clip.machine == row["machine"]]
    if not same:
        hint = did_you_mean(row["machine"], {clip.machine for clip in recorded.values()}, "Name one of the clips table")
        raise _wrong(where, f"there is no machine {row['machine']!r}", hint)
    years = {(clip.corpus, clip.year) for clip in same if parameters.year in (None, clip.year)}
    if len(years) != 1:
        shown = ", ".join(sorted(str(year) for _, year in {(clip.corpus, clip.year) for clip in same}))
        raise _wrong(where, f"{row['machine']} is a machine of {shown}", "Name one of them under year")
    sections = {clip.section for clip in same if (clip.corpus, clip.year) in years}
    section = row["section"] or (next(iter(sections)) if len(sections) == 1 else "")
    if section not in sections:
        raise _wrong(where, f"{row['machine']} has no section {section!r}", f"It has {', '.join(sorted(sections))}")
    domain = row["domain"] or "unknown"
    if domain not in ("source", "target", "unknown"):
        raise _wrong(where, f"there is no domain {domain!r}", "Write source, target or unknown")
    ((corpus, year),) = years
    blank = Clip(row["id"], file, corpus=corpus, year=year, split="train", condition="normal", kind=parameters.kind)
    return replace(blank, machine=row["machine"], section=section, domain=domain,  # type: ignore[arg-type]
                   attributes=_attributes(where, row["attributes"]), **form)  # fmt: skip


def _rows(parameters: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """Place (`manifest.csv:3`) and cells of each row. HarkenError, with the line, for what is not as it should be."""
    file = Path(parameters.folder) / parameters.manifest
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.reader(handle)
            header = [cell.strip() for cell in next(reader, [])]
            unknown = next((name for name in header if name not in COLUMNS), None)
            if unknown is not None:
                raise _wrong(f"{file}:1", f"unknown column {unknown!r}", did_you_mean(unknown, COLUMNS, _COLUMNS))
            missing = [name for name in _NEEDED if name not in header]
            if missing or len(set(header)) < len(header):
                cause = f"has no column {missing[0]}" if missing else "has a column twice"
                raise _wrong(f"{file}:1", cause, _COLUMNS)
            ids: set[str] = set()
            for cells in reader:
                where = f"{file}:{reader.line_num}"
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise _wrong(where, f"has {len(cells)} cells, the header {len(header)}", "Correct the row")
                row = dict.fromkeys(COLUMNS, "") | dict(zip(header, (cell.strip() for cell in cells), strict=True))
                for name, cell in row.items():
                    if not cell.isprintable():
                        raise _wrong(where, f"its {name} {cell!r} has characters that cannot be shown", "Correct it")
                for name in _NEEDED:
                    if not row[name]:
                        raise _wrong(where, f"has no {name}", "Write it")
                place = Path(row["file"])
                if place.is_absolute() or ".." in place.parts:
                    raise _wrong(where, f"{row['file']} is not in the folder", "Name files below the folder")
                if row["id"] in ids:
                    raise _wrong(where, f"the id {row['id']!r} is there twice", "Give it another id")
                ids.add(row["id"])
                yield where, row
            if not ids:
                raise HarkenError("names no clips", file=file, next_step="Write a row for each")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HarkenError(f"cannot be read ({error})", file=file, next_step="Check the folder and manifest") from error


_COLUMNS = f"It has the columns {', '.join(COLUMNS)}, of which {' and '.join(_NEEDED)} are needed"


def _attributes(where: str, text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(";") if pair.strip()]
    if not all(equals and key.strip() for key, equals, _ in pairs):
        raise _wrong(where, f"{text!r} are no attributes", "Write them as spd=28V;mic=1")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _digest(file: Path, where: str | None = None) -> str:
    try:
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise HarkenError(
            f"{file.name} cannot be read ({error.strerror})" if where else f"cannot be read ({error.strerror})",
            file=where or file,
            next_step="Check the manifest" if where else "Check the folder and manifest",
        ) from error


def _wrong(where: str, cause: str, next_step: str) -> HarkenError:
    return HarkenError(cause, file=where, next_step=next_step)
