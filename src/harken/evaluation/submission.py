"""A challenge submission: score files, decisions and meta.yaml of up to four systems, checked, as one zip."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harken.core.errors import HarkenError, and_more, did_you_mean, reading, there_are
from harken.core.files import write_atomically
from harken.core.plain_yaml import read_yaml_file, yaml_text
from harken.data.clips import Clip
from harken.data.names import without_suffix
from harken.data.truth import Section
from harken.evaluation.score_files import read_system_folder, score_files
from harken.evaluation.scores import Scores

MOST_SYSTEMS = 4
#: Lastname_ABBREVIATION_task2
_TEAM = re.compile(r"[A-Za-z][A-Za-z'-]*_[A-Za-z0-9-]{1,10}_task2$")


class _Meta(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Affiliation(_Meta):
    """Of an author."""

    abbreviation: str = ""
    institute: str = Field(min_length=1)
    department: str | None = None
    location: str | None = None


class Author(_Meta):
    """One author of a submission."""

    lastname: str = Field(min_length=1)
    firstname: str = Field(min_length=1)
    email: str | None = None
    corresponding: bool = False
    affiliation: Affiliation | list[Affiliation]


class Description(_Meta):
    """Names are the challenge's; values are its keywords or None."""

    input_sampling_rate: str | None = None
    data_augmentation: str | list[str] | None = None
    front_end: str | list[str] | None = None
    acoustic_features: str | list[str] | None = None
    embeddings: str | list[str] | None = None
    machine_learning_method: str | list[str] | None = None
    aggregation_method: str | list[str] | None = None
    domain_adaptation_method: str | list[str] | None = None
    domain_generalization_method: str | list[str] | None = None
    ensemble_method_subsystem_count: int | None = None
    decision_making: str | list[str] | None = None
    attribute_usage: str | list[str] | None = None
    external_data_usage: str | list[str] | None = None
    development_data_usage: str | list[str] | None = None


class Complexity(_Meta):
    """Number of parameters, and of multiply-accumulate operations."""

    total_parameters: int | None = None
    MACS: str | int | None = None


class SystemMeta(_Meta):
    """`system` of a meta.yaml."""

    description: Description = Description()
    complexity: Complexity = Complexity()
    external_datasets: list[dict[str, Any]] = []
    source_code: str | None = None


class TeamMeta(_Meta):
    """`submission` of a meta.yaml."""

    name: str = Field(min_length=1)
    abbreviation: str = Field(min_length=1, max_length=10)
    authors: list[Author] = Field(min_length=1)


class SubmissionMeta(_Meta):
    """The submitters' part of a meta.yaml: all but label and results."""

    submission: TeamMeta
    system: SystemMeta = SystemMeta()


@dataclass(frozen=True)
class SubmittedSystem:
    """One system: the folder of its score files, the submitters' part of its meta.yaml, and its development results
    (machine -> auc_source, auc_target, pauc), if any."""

    name: str
    folder: Path
    meta: Mapping[str, Any]
    results: Mapping[str, Mapping[str, float]] | None = None


TEMPLATE = """\
# The submitters and their system. Values of system.description: the challenge's keywords, lists of them, or null.
submission:
  name: My system
  abbreviation: MySys
  authors:
    - lastname: Doe
      firstname: Jane
      email: jane.doe@example.org
      corresponding: true
      affiliation: {abbreviation: EX, institute: Example Institute, department: null, location: "City, Country"}
"""


def read_meta(file: Path) -> dict[str, Any]:
    """The submitters' part of meta.yaml. Raises HarkenError for anything but a mapping."""
    step = "harken submit --template prints one"
    with reading(file, step):
        data = read_yaml_file(file)
    if not isinstance(data, dict):
        raise HarkenError("is not a mapping", file=file, next_step=step)
    return data


def write_submission(
    entries: Sequence[SubmittedSystem], team: str, expected: Sequence[Clip], file: Path, *, report: Path | None = None
) -> list[str]:
    """Check the systems and write `task2/<team>_<n>/...` of each into one zip; returns the names in it.

    team: `Lastname_ABBR_task2`; systems get `_1` to `_4` in the order given. expected: the test clips; each system must
    have one score and one decision for each. report: the technical report (pdf), put beside the systems. Marks of a
    system are beside its files, in `marks.json`.
    The same input gives the same bytes. Raises HarkenError for anything that the rules do not allow.
    """
    if not _TEAM.match(team):
        raise HarkenError(
            f"the label {team!r} is not of the form Lastname_ABBR_task2",
            next_step="Such as Doe_EX_task2; ABBR up to 10",
        )
    if not 1 <= len(entries) <= MOST_SYSTEMS:
        raise HarkenError(
            f"{len(entries)} systems: a team may submit 1 to {MOST_SYSTEMS}", next_step="Choose some with --system"
        )
    wanted: dict[Section, set[str]] = {}
    for clip in expected:
        if clip.split == "test":
            wanted.setdefault((clip.machine, clip.section), set()).add(without_suffix(clip.path.name))
    if not wanted:
        raise HarkenError("there are no test clips to check against", next_step="Give the data: --data ROOT")
    files: dict[str, bytes] = {}
    for number, entry in enumerate(entries, start=1):
        label = f"{team}_{number}"
        system = system_of(entry)
        _check_clips(system, entry, wanted)
        for name, data in score_files(replace(system, layout="section"), train=False).items():
            files[f"task2/{label}/{name}"] = data
        files[f"task2/{label}/{label}.meta.yaml"] = _meta(label, entry).encode()
    if report is not None:
        with reading(report):
            files[f"task2/{team}.technical_report.pdf"] = report.read_bytes()
    write_atomically(file, _zip(files))
    return sorted(files)


def system_of(entry: SubmittedSystem) -> Scores:
    """The scores of an entry, with their marks. Raises HarkenError unless its folder holds one system."""
    systems = read_system_folder(entry.folder, entry.name)
    if len(systems) != 1:
        raise HarkenError(
            f"holds score files of {len(systems)} systems instead of one", file=entry.folder,
            next_step="Give a folder of anomaly_score_*.csv of one system and seed",
        )  # fmt: skip
    return systems[0]


def _check_clips(system: Scores, entry: SubmittedSystem, wanted: Mapping[Section, set[str]]) -> None:
    for kind, rows in (("scores", system.by_name), ("decisions", system.decisions)):
        for section in sorted(wanted.keys() | set(system.sections())):
            where = f"{section[0]} section {section[1]}"
            scored, needed = set(rows(section)), wanted.get(section, set())
            for clips, text in ((needed - scored, f"has no {kind} for"), (scored - needed, f"has {kind} for unknown")):
                if clips:
                    raise HarkenError(
                        f"{where} {text} {and_more(clips)}",
                        file=entry.folder,
                        next_step="Every test clip needs exactly one score and one decision",
                    )


def _meta(label: str, entry: SubmittedSystem) -> str:
    meta = dict(entry.meta)
    _check_keys(meta, SubmissionMeta.model_fields, "")
    for name, model in (("submission", TeamMeta), ("system", SystemMeta)):
        if isinstance(meta.get(name), dict):
            _check_keys(meta[name], model.model_fields, f"{name}.")
    try:
        checked = SubmissionMeta.model_validate(meta)
    except ValidationError as error:
        first = error.errors()[0]
        raise HarkenError(
            f"meta.yaml: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}",
            next_step="Write it into the file of --meta; harken submit --template prints one",
        ) from error
    submission = {"label": label, **checked.submission.model_dump()}
    data: dict[str, Any] = {"submission": submission, "system": checked.system.model_dump()}
    if entry.results:
        # Per cent with two decimals, as the challenge requires.
        data["results"] = {
            "development_dataset": {
                machine: {name: round(100 * value, 2) for name, value in row.items()}
                for machine, row in entry.results.items()
            }
        }
    return yaml_text(data, width=80)


def _check_keys(given: Mapping[str, Any], fields: Mapping[str, Any], prefix: str) -> None:
    for key in given:
        if key not in fields:
            names = [f"{prefix}{name}" for name in fields]
            hint = did_you_mean(f"{prefix}{key}", names, there_are(fields))
            raise HarkenError(f"meta.yaml: unknown key {prefix}{key}", next_step=hint)


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            # Without dates the same files give the same zip.
            archive.writestr(zipfile.ZipInfo(name), files[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
