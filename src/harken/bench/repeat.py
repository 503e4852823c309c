"""Parts of a recipe that are written once and mean many: `repeat`, and `*` in dotted keys and names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from math import prod
from typing import Any

from harken.core.errors import did_you_mean
from harken.core.settings import SettingError

_PLACE = re.compile(r"<(\w+)>")
#: parts of a recipe that may be repeated
_SECTIONS = ("stages", "systems")
_MOST_COMBINATIONS = 1_000


def expand(data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without `repeat`: each entry of it written out for every combination of what it goes over.

    `{over: {rate: {slow: 0.0001, fast: 0.001}}, stages: {train_<rate>: {..., learning_rate: $rate}}, systems: {...}}`
    gives the stages train_slow and train_fast: `<rate>` in keys and texts is the name, `$rate` as a value its
    value. In a list, names and values are the same. Stages share no objects: changing one leaves the others unchanged.
    Raises SettingError for invalid entries, and for stages or systems of the same name.
    """
    made = {key: _copied(value) for key, value in data.items() if key != "repeat"}
    entries = data.get("repeat") or []
    if not isinstance(entries, list):
        raise SettingError("repeat is not a list", key="repeat", next_step="Write - over: ... under it")
    for row, entry in enumerate(entries):
        key = f"repeat.{row}"
        over = _over(entry, key)
        for name in entry:
            if name not in ("over", *_SECTIONS):
                hint = did_you_mean(str(name), _SECTIONS, "It may have over, stages and systems")
                raise SettingError(f"unknown key repeat.{name}", key=f"{key}.{name}", next_step=hint)
        combinations = prod(map(len, over.values()))
        if combinations > _MOST_COMBINATIONS:
            raise SettingError(f"repeat goes over {combinations} combinations, more than {_MOST_COMBINATIONS}", key=key)
        for chosen in product(*over.values()):
            names = dict(zip(over, map(str, chosen), strict=True))
            values = {name: options[option] for (name, options), option in zip(over.items(), chosen, strict=True)}
            for section in _SECTIONS:
                into, repeated = made.setdefault(section, {}), entry.get(section) or {}
                for mapping in (into, repeated):
                    if not isinstance(mapping, dict):
                        raise SettingError(f"{section} is not a mapping of names", key=f"{key}.{section}")
                for name, value in _written(repeated, names, values, f"{key}.{section}").items():
                    if name in into:
                        raise SettingError(
                            f"{section}.{name} occurs twice", key=f"{key}.{section}",
                            next_step="Put every variable of over into its name, such as <rate>",
                        )  # fmt: skip
                    into[name] = value
    return made


def _over(entry: Any, key: str) -> dict[str, dict[str, Any]]:
    """Values by name of each variable that an entry of `repeat` goes over."""
    over = entry.get("over") if isinstance(entry, dict) else None
    options = {}
    for variable, named in over.items() if isinstance(over, dict) else ():
        if isinstance(named, list) and not any(isinstance(value, dict | list) for value in named):
            named = {str(value): value for value in named}
        options[variable] = named
    if not options or not all(isinstance(named, dict) and named for named in options.values()):
        raise SettingError(
            "an entry of repeat does not say over what", key=key, next_step="Write over: {rate: {slow: 0.0001}}"
        )
    return options


def set_key(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in every place that it matches: `stages.*.training.steps` is that of all stages with a training.

    Missing mappings below a stage are created. SettingError, naming the nearest, for a key that matches nothing.
    """
    *path, last = key.split(".")
    places: list[Any] = [data]
    for step, key_part in enumerate(path):
        if step >= 2 and "*" not in key_part:
            # Below a stage, a mapping may be left to its defaults: the check of the recipe knows its name.
            for place in places:
                if isinstance(place, dict) and place.get(key_part) is None and "*" not in key:
                    place[key_part] = {}
        next_places = [
            place[name]
            for place in places
            if isinstance(place, dict)
            for name in (
                [name for name in place if fnmatchcase(str(name), key_part)] if "*" in key_part else [key_part]
            )
            if name in place
        ]
        if not next_places:
            keys = [name for place in places if isinstance(place, dict) for name in place]
            raise SettingError(
                f"there is no {'.'.join(path[: step + 1])!r} to set", key=key,
                next_step=did_you_mean(key_part, sorted(map(str, keys))),
            )  # fmt: skip
        places = next_places
    inside = [place for place in places if isinstance(place, dict)]
    if "*" in key:
        # Stages without the last key are skipped, unless all are.
        inside = [place for place in inside if last in place] or inside
    if not inside:
        raise SettingError(f"{'.'.join(path)!r} holds no further keys", key=key, next_step="Check the key")
    for place in inside:
        place[last] = _copied(value)


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """Names that a pattern with `*` matches; a name matches itself."""
    return [name for name in names if name == pattern or ("*" in pattern and fnmatchcase(name, pattern))]


def _copied(value: Any) -> Any:
    """A copy without shared objects, which YAML aliases make."""
    if isinstance(value, dict):
        return {key: _copied(inside) for key, inside in value.items()}
    return [_copied(inside) for inside in value] if isinstance(value, list) else value


def _written(value: Any, names: Mapping[str, str], values: Mapping[str, Any], key: str) -> Any:
    if isinstance(value, dict):
        return {_written(k, names, {}, key): _written(v, names, values, key) for k, v in value.items()}
    if isinstance(value, list):
        return [_written(inside, names, values, key) for inside in value]
    if not isinstance(value, str):
        return value
    if value[:1] == "$" and value[1:] in values:
        return _copied(values[value[1:]])

    def name(match: re.Match[str]) -> str:
        if match[1] not in names:
            hint = did_you_mean(match[1], names, f"It goes over {', '.join(names)}")
            raise SettingError(f"nothing is repeated over {match[1]!r}", key=key, next_step=hint)
        return names[match[1]]

    return _PLACE.sub(name, value)
