"""Parts of a recipe that are written once and mean many: `repeat`, and `*` in dotted keys and names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

from harken.core.errors import HarkenError, did_you_mean

_PLACE = re.compile(r"<(\w+)>")
#: parts of a recipe that may be repeated
_PARTS = ("stages", "systems")


def expand(data: Mapping[str, Any], file: str) -> dict[str, Any]:
    """A recipe without `repeat`: each entry of it written out for every combination of what it goes over.

    `{over: {rate: {slow: 0.0001, fast: 0.001}}, stages: {train_<rate>: {..., learning_rate: $rate}}, systems: {...}}`
    gives the stages train_slow and train_fast: `<rate>` in keys and texts is the name, `$rate` as a value its
    value. In a list, names and values are the same. Stages share no objects: changing one leaves the others unchanged.
    Raises HarkenError for invalid entries, and for stages or systems of the same name.
    """
    made = {key: _copied(value) for key, value in data.items() if key != "repeat"}
    entries = data.get("repeat") or []
    if not isinstance(entries, list):
        raise HarkenError("repeat is not a list", file=file, next_step="Write - over: ... under it")
    for entry in entries:
        over = entry.get("over") if isinstance(entry, dict) else None
        if isinstance(over, dict):
            over = {
                key: {name: name for name in named} if isinstance(named, list) else named for key, named in over.items()
            }
        if (
            not isinstance(over, dict)
            or not over
            or not all(isinstance(named, dict) and named for named in over.values())
        ):
            raise HarkenError(
                "an entry of repeat does not say over what", file=file, next_step="Write over: {rate: {slow: 0.0001}}"
            )
        for key in entry:
            if key not in ("over", *_PARTS):
                hint = did_you_mean(str(key), _PARTS, "It may have over, stages and systems")
                raise HarkenError(f"unknown key repeat.{key}", file=file, next_step=hint)
        for chosen in product(*over.values()):
            names = dict(zip(over, map(str, chosen), strict=True))
            values = {name: options[option] for (name, options), option in zip(over.items(), chosen, strict=True)}
            for section in _PARTS:
                into = made.setdefault(section, {})
                for key, value in _written(entry.get(section) or {}, names, values, file).items():
                    if key in into:
                        raise HarkenError(
                            f"{section}.{key} occurs twice", file=file,
                            next_step="Put every variable of over into its name, such as <rate>",
                        )  # fmt: skip
                    into[key] = value
    return made


def set_key(data: dict[str, Any], key: str, value: Any, file: str) -> None:
    """Set a dotted key in every place that it matches: `stages.*.training.steps` is that of all stages with a training.

    Missing mappings below a stage are created. HarkenError, naming the nearest, for a key that matches nothing.
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
            raise HarkenError(
                f"there is no {'.'.join(path[: step + 1])!r} to set", file=file,
                next_step=did_you_mean(key_part, sorted(map(str, keys))),
            )  # fmt: skip
        places = next_places
    inside = [place for place in places if isinstance(place, dict)]
    if "*" in key:
        # Stages without the last key are skipped, unless all are.
        inside = [place for place in inside if last in place] or inside
    if not inside:
        raise HarkenError(f"{'.'.join(path)!r} holds no further keys", file=file, next_step="Check the key")
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


def _written(value: Any, names: Mapping[str, str], values: Mapping[str, Any], file: str) -> Any:
    if isinstance(value, dict):
        return {_written(k, names, {}, file): _written(v, names, values, file) for k, v in value.items()}
    if isinstance(value, list):
        return [_written(inside, names, values, file) for inside in value]
    if not isinstance(value, str):
        return value
    if value[:1] == "$" and value[1:] in values:
        return _copied(values[value[1:]])

    def name(match: re.Match[str]) -> str:
        if match[1] not in names:
            hint = did_you_mean(match[1], names, f"It goes over {', '.join(names)}")
            raise HarkenError(f"nothing is repeated over {match[1]!r}", file=file, next_step=hint)
        return names[match[1]]

    return _PLACE.sub(name, value)
