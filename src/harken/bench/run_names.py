"""Names and tags of runs, by which they are found again in a workspace."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from harken.core.errors import HarkenError, did_you_mean, there_are
from harken.core.files import write_atomically
from harken.core.json_text import json_text

#: in the folder of a run that has a name or tags
RECORD = "run.json"
SCHEMA = 1
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", re.ASCII)


@dataclass(frozen=True)
class RunNames:
    """names: of one run, the latest last. tags: sorted."""

    names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def read_names(folder: Path) -> RunNames:
    """Names and tags of a run; none where it has no readable record of them."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return RunNames(tuple(map(str, record["names"])), tuple(sorted(map(str, record["tags"]))))
    except (OSError, ValueError, KeyError, TypeError):
        return RunNames()


def add_names(folder: Path, name: str | None, tags: Iterable[str]) -> None:
    """Give a run a name, beside those it has, and tags."""
    before = read_names(folder)
    names = before.names if name is None else (*(given for given in before.names if given != name), name)
    after = RunNames(names, tuple(sorted({*before.tags, *tags})))
    if after != before:
        record = {"schema": SCHEMA, "names": list(after.names), "tags": list(after.tags)}
        write_atomically(folder / RECORD, (json_text(record, indent=1) + "\n").encode())


def check_run_name(name: str, folder: Path) -> None:
    """Raise HarkenError for a name that is not printable text, and for one that another run of the workspace has.

    folder: that the run has or will have.
    """
    if not name.strip() or not name.isprintable():
        raise HarkenError(f"{name!r} cannot be the name of a run", next_step="Write letters and digits")
    for run in _runs(folder.parent):
        if run.name != folder.name and name in (run.name, *read_names(run).names):
            raise HarkenError(
                f"there is a run {name} of other settings or data already", file=run,
                next_step="Choose another name, or remove the folder of that run",
            )  # fmt: skip


def find_run(name: str | Path, workspace: Path | None = None) -> tuple[Path, str]:
    """The folder of a run, and what to call it, by its folder or, in a workspace, by a name of it.

    Raises HarkenError, with the nearest name, for an unknown one, and for one that several runs have.
    """
    folder = Path(name)
    if (folder / "results.json").is_file():
        return folder, (read_names(folder).names or (folder.absolute().name,))[-1]
    if workspace is None:
        raise HarkenError(
            "is not a run", file=folder, next_step="Give a folder below WORKSPACE/runs, or --workspace and its name"
        )
    runs = _runs(workspace / "runs")
    named = [run for run in runs if str(name) in (run.name, *read_names(run).names)]
    if len(named) > 1:
        raise HarkenError(
            f"{len(named)} runs have the name {name}", file=workspace, next_step=there_are(run.name for run in named)
        )
    if not named:
        names = [given for run in runs for given in (read_names(run).names or (run.name,))]
        raise HarkenError(f"has no run {str(name)!r}", file=workspace, next_step=did_you_mean(str(name), names))
    return named[0], str(name)


def find_tagged(tags: Iterable[str], workspace: Path) -> list[Path]:
    """Folders of the runs that have all of these tags, in the order of their names. HarkenError without any."""
    wanted = set(tags)
    runs = [(read_names(run), run) for run in _runs(workspace / "runs")]
    tagged = [(names, run) for names, run in runs if wanted <= {*names.tags}]
    if not tagged:
        given = sorted({tag for names, _ in runs for tag in names.tags})
        raise HarkenError(
            f"has no run with the tag {' and '.join(sorted(wanted))}", file=workspace, next_step=there_are(given)
        )
    return [run for _, run in sorted(tagged, key=lambda pair: (_in_order(pair[0].names[-1:]), pair[1]))]


def _in_order(names: tuple[str, ...]) -> list[tuple[str, float]]:
    """A key that sorts names with numbers by their values: `k=9` before `k=10`."""
    parted = [_NUMBER.split(name) for name in names]
    return [(text, float(number or 0)) for words in parted for text, number in zip_longest(words[::2], words[1::2])]


def _runs(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob("*/results.json"))
