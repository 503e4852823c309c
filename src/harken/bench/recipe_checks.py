"""Checks of what a recipe says, before its stages are built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from harken.bench.repeat import matching
from harken.core.errors import HarkenError
from harken.core.plugins import UntrustedError
from harken.core.settings import SettingError, check_kinds, explained, known_keys, nearest

#: keys of a stage beside its parameters, its kind and inputs
_SEEDS = ("seeds", "seed")


def mapping_at(data: Mapping[str, Any], key: str, *, within: str = "") -> dict[str, Any]:
    """The mapping of that key; an empty one if there is none. within: key of `data`. SettingError for anything else."""
    value = data.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingError(
            f"{key} is {_shown(value)}, not a mapping of names", key=f"{within}{key}", next_step="Write names: values"
        )
    return value


def profile_keys(data: dict[str, Any], profile: str) -> dict[str, Any]:
    """Dotted keys of a profile, which are taken out of the recipe with all others. SettingError for an unknown one."""
    profiles = mapping_at(data, "profiles")
    data.pop("profiles", None)
    if profile not in profiles and profile != "full":
        raise SettingError(
            f"there is no profile {profile!r}", key="profiles", next_step=nearest(profile, {*profiles, "full"})
        )
    return mapping_at(profiles, profile, within="profiles.")


def conditional_keys(data: dict[str, Any], parameters: Mapping[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Dotted keys that follow from values of parameters, as the recipe says under `when`, which is taken out."""
    when = mapping_at(data, "when")
    data.pop("when", None)
    set_by_hand = {f"parameters.{name}" for name in given}
    keys: dict[str, Any] = {}
    for name in when:
        cases = mapping_at(when, name, within="when.")
        case = cases.get(str(parameters.get(name)))
        if case is not None and not isinstance(case, dict):
            raise SettingError(
                f"{_shown(case)} does not say what follows from {name}", key=f"when.{name}",
                next_step="Write dotted keys and their values",
            )  # fmt: skip
        keys |= {key: value for key, value in (case or {}).items() if key not in set_by_hand}
    return keys


def write_out_members(data: dict[str, Any]) -> None:
    """Names of members with `*` become those of the systems that they match."""
    systems = list(mapping_at(data, "systems"))
    for name, entry in mapping_at(data, "ensembles").items():
        key = f"ensembles.{name}"
        if not isinstance(entry, dict) or not isinstance(entry.get("members"), dict | list):
            raise SettingError(
                f"ensemble {name} does not list its members", key=key,
                next_step="Write members: [SYSTEM, ...], or members: {SYSTEM: WEIGHT, ...}",
            )  # fmt: skip
        members = entry["members"]
        if isinstance(members, list):
            members = [str(member) for member in members]
            repeated = next((member for row, member in enumerate(members) if member in members[:row]), None)
            if repeated is not None:
                raise SettingError(
                    f"ensemble {name} has the member {repeated!r} twice", key=f"{key}.members",
                    next_step="Give it a weight",
                )  # fmt: skip
            members = dict.fromkeys(members, 1.0)
        weights: dict[str, Any] = {}
        for member, weight in members.items():
            named = matching(member, systems)
            if not named:
                raise SettingError(
                    f"ensemble {name} has a member {_shown(member)}, which is no system", key=f"{key}.members",
                    next_step=nearest(member, systems),
                )  # fmt: skip
            weights |= dict.fromkeys(named, weight)
        entry["members"] = weights
        search = entry.get("search")
        if isinstance(search, dict) and isinstance(search.get("required"), list):
            search["required"] = _required(name, search["required"], list(weights))


def _required(ensemble: str, patterns: Sequence[Any], members: Sequence[str]) -> list[str]:
    """Names of the members that patterns with `*` match."""
    required: dict[str, None] = {}
    for row, pattern in enumerate(patterns):
        named = matching(str(pattern), members)
        if not named:
            raise SettingError(
                f"ensemble {ensemble} requires {_shown(pattern)}, which is not among its members",
                key=f"ensembles.{ensemble}.search.required.{row}", next_step=nearest(str(pattern), members),
            )  # fmt: skip
        required |= dict.fromkeys(named)
    return list(required)


def stage_entry(name: str, entry: Any) -> dict[str, Any]:
    """use, inputs, seeds and parameters of one stage, the latter with their defaults filled in."""
    from harken.bench.stages import stage_class

    key = f"stages.{name}"
    if not isinstance(entry, dict) or not isinstance(entry.get("use"), str):
        raise SettingError(f"stage {name} does not say its kind", key=key, next_step="Write use: embed, or another")
    given = {name: value for name, value in entry.items() if name not in ("use", "from", *_SEEDS)}
    inputs = entry.get("from", [])
    inputs = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(inputs, list) or not all(isinstance(source, str) for source in inputs):
        raise SettingError(f"stage {name} reads {_shown(inputs)}", key=f"{key}.from", next_step="Write names of stages")
    with named_stage(name, f"{key}.use"):
        kind = stage_class(entry["use"])
    # Custom stages may have parameters of these names.
    given |= {name: entry[name] for name in _SEEDS if name in entry and name in kind.Parameters.model_fields}
    with named_stage(name, key):
        known_keys(given, kind.Parameters.model_fields, f"{key}.")
        try:
            parameters = kind.Parameters.model_validate(given).model_dump(mode="json")
        except ValidationError as error:
            raise explained(error, f"{key}.") from error
    check_kinds(given, parameters, key)
    seeds = {name: entry[name] for name in _SEEDS if name in entry and name not in given}
    return {"use": entry["use"], "inputs": inputs, "parameters": parameters, **seeds}


@contextmanager
def named_stage(name: str, key: str) -> Iterator[None]:
    """Within it, errors of a stage's class become those of the recipe at that key."""
    try:
        yield
    except (SettingError, UntrustedError):
        raise
    except HarkenError as error:
        # That of a file, such as one of a custom class, names it.
        where = "" if error.file is None else f"{error.file}: "
        raise SettingError(f"stage {name}: {where}{error.cause}", key=key, next_step=error.next_step) from None


def filled(value: Any, parameters: Mapping[str, Any], key: str) -> Any:
    """`$name` replaced by the parameter of that name, at any depth. key: of the value."""
    if isinstance(value, dict):
        return {name: filled(inside, parameters, f"{key}.{name}") for name, inside in value.items()}
    if isinstance(value, list):
        return [filled(inside, parameters, f"{key}.{row}") for row, inside in enumerate(value)]
    if isinstance(value, str) and value.startswith("$"):
        if value[1:] not in parameters:
            raise SettingError(
                f"there is no parameter {_shown(value)}", key=key, next_step=nearest(value[1:], parameters)
            )
        return parameters[value[1:]]
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
