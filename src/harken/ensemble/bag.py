"""A bag: members, their weights, how their scores are brought to one unit, and where the weights came from."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harken.core.errors import HarkenError, did_you_mean, reading, there_are
from harken.core.files import write_atomically
from harken.core.plain_yaml import read_yaml_file, yaml_text
from harken.detection.normalise import Normalise
from harken.ensemble.bundles import Bundles
from harken.ensemble.member import Member
from harken.ensemble.members import read_members

#: bags within bags
_DEEPEST = 8


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class BagMember(_Part):
    """One member: score files (`scores`; `system` and `data_set` where they hold several), a `bundle` that scores
    recordings, or a nested `bag`, written in place or in another file. Paths are relative to the file.
    """

    name: str = Field(min_length=1)
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    scores: str | None = None
    system: str | None = None
    data_set: str | None = None
    bundle: str | None = None
    bag: Bag | str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> BagMember:
        if sum(kind is not None for kind in (self.scores, self.bundle, self.bag)) > 1:
            raise ValueError("a member is one of scores, bundle and bag")
        return self

    @property
    def inner(self) -> Bag | None:
        """The nested bag; None for another member, or where `bag` is a path."""
        return self.bag if isinstance(self.bag, Bag) else None


class Origin(_Part):
    """Where weights came from.

    considered: number of members that the search chose from. tuned_on: the clips whose labels chose the weights, None
    without labels; clips: digests of their names. official_score: on the clips at hand. held_out: of machines that the
    weights were not fitted on. uniform: of the plain mean. marks: of official_score.
    """

    method: str
    settings: dict[str, Any] = {}
    objective: str | None = None
    considered: int
    tuned_on: str | None = None
    machines: tuple[str, ...] = ()
    clips: tuple[str, ...] = ()
    official_score: float | None = None
    held_out: float | None = None
    uniform: float | None = None
    marks: tuple[str, ...] = ()
    decision: str = ""


class Bag(_Part):
    """A mix of members: the sum of their normalised scores, times weights that are scaled to sum to one."""

    version: Literal[1] = Field(default=1, alias="schema")
    name: str = Field(min_length=1)
    normalise: Normalise = "train"
    members: tuple[BagMember, ...] = Field(min_length=1)
    weights_from: Origin | None = None

    @model_validator(mode="after")
    def _weighted(self) -> Bag:
        names = [entry.name for entry in self.members]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two members are named {name}")
        if not math.fsum(entry.weight for entry in self.members) > 0:
            raise ValueError("all weights are zero")
        return self

    def leaves(self) -> Iterator[BagMember]:
        """Members with a weight that are not bags, at any depth."""
        for entry in self.members:
            if entry.weight > 0 and entry.inner is not None:
                yield from entry.inner.leaves()
            elif entry.weight > 0:
                yield entry

    def transductive(self) -> bool:
        """Whether any normalisation in it uses test clips."""
        return self.normalise.startswith("transductive") or any(
            entry.inner is not None and entry.inner.transductive() for entry in self.members
        )

    def as_json(self) -> dict[str, Any]:
        """The content of a bag's file, without empty fields."""
        data: dict[str, Any] = _without_empty(self.model_dump(mode="json", by_alias=True, exclude_none=True))
        return data

    def as_yaml(self) -> str:
        """The text of a bag's file."""
        data = self.as_json()
        return yaml_text(data, width=120)


def load_bag(file: Path, _above: tuple[Path, ...] = ()) -> Bag:
    """Read a bag and the bags that it names, with absolute paths. Raises HarkenError for a file that is not a bag."""
    file = file.absolute()
    if file in _above or len(_above) > _DEEPEST:
        raise HarkenError("is a member of itself", file=file, next_step="Remove it from the bags that it names")
    with reading(file, "harken ensemble fit writes one", errors=(ValueError,)):
        data = read_yaml_file(file)
    return _resolved(_checked(data, file), file, (*_above, file))


def save_bag(bag: Bag, file: Path) -> None:
    """Write a bag; its paths become relative to the file. Raises HarkenError without the folder."""
    check_place(file)
    folder = file.absolute().parent
    moved = _with_paths(bag, lambda path: os.path.relpath(path, folder))
    write_atomically(file, moved.as_yaml().encode())


def check_place(file: Path) -> None:
    """Raise HarkenError, before a long search, where the folder of its output does not exist."""
    if not file.absolute().parent.is_dir():
        raise HarkenError("there is no such folder", file=file.parent, next_step="Create it first")


def merged(bags: Sequence[Bag], name: str, *, shares: Sequence[float] | None = None, nest: bool = False) -> Bag:
    """One bag of several, each with its share (default: equal shares).

    nest: each bag becomes a member, mixed and normalised first. Otherwise the members of all bags are joined, and a
    member of several bags gets the sum of its weights; all bags must have the same normalisation.
    Raises HarkenError for a wrong number of shares, different normalisations, or different members of one name.
    """
    shares = [1.0] * len(bags) if shares is None else list(shares)
    if len(shares) != len(bags):
        raise HarkenError(f"{len(shares)} shares for {len(bags)} bags", next_step="Give one share per bag")
    if nest:
        normalise: Normalise = "transductive" if any(bag.transductive() for bag in bags) else "train"
        nested = [BagMember(name=bag.name, weight=share, bag=bag) for bag, share in zip(bags, shares, strict=True)]
        return _checked({"name": name, "normalise": normalise, "members": [dict(member) for member in nested]}, name)
    if len({bag.normalise for bag in bags}) > 1:
        ways = ", ".join(f"{bag.name}: {bag.normalise}" for bag in bags)
        raise HarkenError(
            f"bags with different normalisations cannot be merged ({ways})", next_step="Nest them (--nest)"
        )
    entries: dict[str, BagMember] = {}
    for bag, share in zip(bags, shares, strict=True):
        total = math.fsum(entry.weight for entry in bag.members)
        for entry in bag.members:
            weight = share * entry.weight / total
            same_name = entries.get(entry.name)
            if same_name is not None and same_name.model_copy(update={"weight": 0.0}) != entry.model_copy(
                update={"weight": 0.0}
            ):
                raise HarkenError(f"two different members are named {entry.name}", next_step="Rename one of them")
            weight += same_name.weight if same_name is not None else 0.0
            entries[entry.name] = entry.model_copy(update={"weight": weight})
    data = {"name": name, "normalise": bags[0].normalise, "members": [dict(entry) for entry in entries.values()]}
    return _checked(data, name)


class Members:
    """Finds the members of a bag: by name among `given`, or, where that is None, at the paths in the bag.

    data_set: of runs, instead of the set that the bag names.
    """

    def __init__(
        self, given: Sequence[Member] | None = None, bundles: Bundles | None = None, data_set: str | None = None
    ) -> None:
        self.given = None if given is None else {member.name: member for member in given}
        self.bundles, self.data_set = bundles, data_set
        self._read: dict[tuple[str, str | None], list[Member]] = {}

    def __call__(self, entry: BagMember) -> Member:
        """Raises HarkenError for a member that does not exist."""
        if self.given is not None:
            if entry.name not in self.given:
                raise HarkenError(
                    f"there are no scores of the member {entry.name}",
                    next_step=f"{there_are(self.given)}; name folders as the bag does",
                )
            return self.given[entry.name]
        if entry.bundle is not None:
            if self.bundles is None:
                raise HarkenError(
                    "a bundle scores recordings, and none are given", file=entry.bundle,
                    next_step="Give them with --recordings",
                )  # fmt: skip
            return self.bundles.member(Path(entry.bundle))
        if entry.scores is None:
            raise HarkenError(
                f"the bag does not say where the scores of {entry.name} are", next_step="Give the scores to apply it to"
            )
        key = entry.scores, self.data_set or entry.data_set
        if key not in self._read:
            self._read[key] = read_members([Path(entry.scores)], data_set=key[1])[0]
        inside = self._read[key]
        for member in inside:
            if entry.system is None and len(inside) == 1:
                return member
            if member.source is not None and entry.system == member.source.system:
                return member
        names = [member.source and member.source.system for member in inside]
        raise HarkenError(
            f"holds no system {entry.system!r}, which the member {entry.name} is", file=entry.scores,
            next_step=there_are(names),
        )  # fmt: skip


def entry_of(member: Member, weight: float) -> BagMember:
    """The entry of a member in a bag."""
    source = member.source
    if source is None:
        return BagMember(name=member.name, weight=weight)
    path = str(source.path.absolute())
    if source.bundle:
        return BagMember(name=member.name, weight=weight, bundle=path)
    return BagMember(name=member.name, weight=weight, scores=path, system=source.system, data_set=source.set)


def _checked(data: Any, file: Path | str) -> Bag:
    if not isinstance(data, dict):
        raise HarkenError("is not a mapping", file=file, next_step="harken ensemble fit writes a bag")
    try:
        return Bag.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            keys = [
                field.alias or name for model in (Bag, BagMember, Origin) for name, field in model.model_fields.items()
            ]
            step = did_you_mean(str(first["loc"][-1]), dict.fromkeys(keys))
            raise HarkenError(f"unknown key {where}", file=file, next_step=step) from error
        text = first["msg"].removeprefix("Value error, ")
        text = text[0].lower() + text[1:]
        raise HarkenError(f"{where}: {text}" if where else text, file=file, next_step="Correct the bag") from error


def _without_empty(value: Any) -> Any:
    """Without lists, mappings and notes of decisions that are empty; settings stay as they are."""
    if isinstance(value, dict):
        return {
            key: inside if key == "settings" else _without_empty(inside)
            for key, inside in value.items()
            if inside not in ([], {}) and (key, inside) != ("decision", "")
        }
    return [_without_empty(inside) for inside in value] if isinstance(value, list) else value


def _resolved(bag: Bag, file: Path, above: tuple[Path, ...]) -> Bag:
    """The bag with absolute paths, and with bags of other files in place of their paths."""
    entries = []
    for entry in bag.members:
        changes: dict[str, Any] = {}
        for field in ("scores", "bundle"):
            value = getattr(entry, field)
            if value is not None:
                changes[field] = os.path.normpath(file.parent / value)
        if isinstance(entry.bag, str):
            changes["bag"] = load_bag(Path(os.path.normpath(file.parent / entry.bag)), above)
        elif entry.bag is not None:
            changes["bag"] = _resolved(entry.bag, file, above)
        entries.append(entry.model_copy(update=changes))
    return bag.model_copy(update={"members": tuple(entries)})


def _with_paths(bag: Bag, change: Any) -> Bag:
    entries = []
    for entry in bag.members:
        changes = {field: change(getattr(entry, field)) for field in ("scores", "bundle") if getattr(entry, field)}
        if entry.inner is not None:
            changes["bag"] = _with_paths(entry.inner, change)
        entries.append(entry.model_copy(update=changes))
    return bag.model_copy(update={"members": tuple(entries)})


def leaf_names(bag: Bag) -> Mapping[str, int]:
    """Name of a leaf -> how often it occurs."""
    counts: dict[str, int] = {}
    for entry in bag.leaves():
        counts[entry.name] = counts.get(entry.name, 0) + 1
    return counts
