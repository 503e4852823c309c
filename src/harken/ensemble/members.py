"""Members of an ensemble: the score files of a system, a run or a bundle, and the scores of its training clips."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from harken.core.errors import HarkenError, there_are
from harken.data.truth import Truth
from harken.data.unpack import unpack
from harken.ensemble.member import Member, Source
from harken.evaluation.score_files import read_system_folder
from harken.evaluation.score_tables import read_score_table
from harken.evaluation.system_names import distinct_names

if TYPE_CHECKING:
    from harken.ensemble.bundles import Bundles


def read_members(
    paths: Sequence[Path], *, data_set: str | None = None, bundles: Bundles | None = None
) -> tuple[list[Member], Truth | None]:
    """Every system below `paths`, in the order of names, and the truth of a table that holds labels.

    paths: folders of `anomaly_score_*.csv`, folders or zips of such folders, tables, runs, bundles. Scores of training
    clips are read from `train_score_<machine>_section_<nn>.csv` beside the score files, or from `scores.parquet` of a
    run.
    data_set: of runs with several sets. bundles: opens bundles, and has the recordings that they score.
    Members of the same name have folders of their paths in front, as far as these differ.
    Raises HarkenError for a system that cannot be read: without it the ensemble would be another one.
    """
    members_found: list[Member] = []
    truths: list[Truth] = []
    for path in paths:
        members, truth = _read(path, data_set, bundles)
        members_found += members
        truths += [truth] if truth is not None else []
    members_found = _distinctly_named(members_found)
    for name, count in Counter(member.name for member in members_found).items():
        if count > 1:
            raise HarkenError(f"the member {name} is given {count} times", next_step="Give each path once")
    if not members_found:
        raise HarkenError("no scores are given", next_step="Give folders of anomaly_score_*.csv, runs or tables")
    return sorted(members_found, key=lambda member: member.name), truths[0] if truths else None


def _distinctly_named(members: Sequence[Member]) -> list[Member]:
    paths = [member.source.path if member.source is not None else Path(member.name) for member in members]
    names = distinct_names([member.name for member in members], paths)
    return [member.renamed(name) for member, name in zip(members, names, strict=True)]


def chosen(members: Sequence[Member], only: Collection[str] = (), without: Collection[str] = ()) -> list[Member]:
    """Members whose names match one of the patterns `only` (all when empty) and none of `without` (`*` and `?`).

    Raises HarkenError for a pattern that matches no member, or when no member is left.
    """
    names = [member.name for member in members]
    for pattern in (*only, *without):
        if not any(_matches(name, pattern) for name in names):
            raise HarkenError(f"no member is named {pattern!r}", next_step=there_are(names))
    left = [
        member
        for member in members
        if (not only or any(_matches(member.name, pattern) for pattern in only))
        and not any(_matches(member.name, pattern) for pattern in without)
    ]
    if not left:
        raise HarkenError("no member is left", next_step="Leave out fewer")
    return left


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _read(path: Path, data_set: str | None, bundles: Bundles | None) -> tuple[list[Member], Truth | None]:
    if path.suffix == ".zip" and path.is_file():
        with tempfile.TemporaryDirectory() as temporary:
            unpack(path, Path(temporary) / path.stem)
            inside = _read_folders(Path(temporary) / path.stem)
        return [replace(member, source=Source(path, member.name)) for member in inside], None
    if path.is_file():
        systems, truth = read_score_table(path)
        return [Member(system, Source(path, system.system)) for system in systems], truth
    if not path.is_dir():
        raise HarkenError("there is no such file or folder", file=path, next_step="Check the path")
    if (path / "manifest.json").is_file():
        if bundles is None:
            raise HarkenError(
                "is a model, which scores recordings, and none are given", file=path,
                next_step="Give them with --recordings",
            )  # fmt: skip
        return [bundles.member(path)], None
    if (path / "results.json").is_file():
        from harken.ensemble.runs import members_of_run

        return members_of_run(path, data_set), None
    return _read_folders(path), None


def _read_folders(path: Path) -> list[Member]:
    """One member per system of the folder, or of the folders below it."""
    is_system = any(path.glob("anomaly_score_*.csv"))
    folders = [path] if is_system else sorted({file.parent for file in path.rglob("anomaly_score_*.csv")})
    if not folders:
        raise HarkenError(
            "no anomaly_score_*.csv in it or in folders below", file=path, next_step="Give the folder that holds them"
        )
    members = []
    for folder in folders:
        name = path.absolute().name if is_system else folder.relative_to(path).as_posix()
        for scores in read_system_folder(folder, name):
            members.append(Member(scores, Source(path, scores.system)))
    if len(members) == 1:
        members = [replace(members[0], source=Source(path))]
    return members
