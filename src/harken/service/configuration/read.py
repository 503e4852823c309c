"""The configuration of a monitor, read from YAML and checked as a whole before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harken.core.errors import HarkenError, reading
from harken.core.names import alike, shown, why_no_file_name
from harken.core.plain_yaml import read_yaml_lines
from harken.core.settings import SettingError, check_kinds, explained, known_keys, located, nearest
from harken.detection.rates import read_rate
from harken.service.configuration.model import (
    SINKS,
    SOURCES,
    Configuration,
    EvidenceEntry,
    FolderEntry,
    HttpEntry,
    MonitoredEntry,
    PageEntry,
)
from harken.service.configuration.secrets import filled_in, refers

_MOST_BYTES = 1 << 20


def read_configuration(file: str | Path) -> Configuration:
    """Read and check a file; models, folders and addresses are not opened.

    Raises HarkenError with the line and the nearest key.
    """
    file = Path(file)
    with reading(file), file.open("rb") as handle:
        text = handle.read(_MOST_BYTES).decode()
    try:
        data, lines = read_yaml_lines(text)
    except ValueError as error:
        raise HarkenError(f"is not valid YAML ({error})", file=file, next_step="Correct the file") from error
    with located(str(file), lines):
        return checked(data, file.absolute().parent)


def checked(data: Any, folder: Path) -> Configuration:
    """The configuration that `data` says. folder: where its relative paths begin. Raises SettingError."""
    if not isinstance(data, dict):
        raise SettingError("is no configuration", next_step="Write machines, sources and sinks")
    known_keys(data, Configuration.model_fields, "")
    values = filled_in(data, folder)
    for section, kinds in (("sources", SOURCES), ("sinks", SINKS)):
        entries = _mapping(values, section)
        values[section] = {
            name: _kind_of_entry(entry, kinds, f"{section}.{name}", data) for name, entry in entries.items()
        }
    values["machines"] = {
        name: _entry(MonitoredEntry, entry, f"machines.{name}", data)
        for name, entry in _mapping(values, "machines").items()
    }
    for section, kind in (("http", HttpEntry), ("page", PageEntry), ("evidence", EvidenceEntry)):
        if isinstance(values.get(section), dict):
            values[section] = _entry(kind, values[section], section, data)
    try:
        configuration = Configuration.model_validate(values)
    except ValidationError as error:
        raise _without_secret(explained(error, subject="configuration"), data) from None
    _check_names(configuration)
    _check_references(configuration)
    return _with_paths(configuration, folder)


def _mapping(values: dict[str, Any], section: str) -> dict[str, Any]:
    entries = values.get(section)
    if section == "sinks" and entries in (None, {}):
        return {}
    if not isinstance(entries, dict) or not entries:
        raise SettingError(f"{section} are not there", key=section, next_step=f"Write {section}: NAME: ...")
    return entries


def _kind_of_entry(entry: Any, kinds: Mapping[str, type[BaseModel]], key: str, data: Any) -> BaseModel:
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if kind is None:
        raise SettingError(f"{key} has no kind", key=key, next_step=f"Write kind: {', '.join(kinds)}")
    if not isinstance(kind, str) or kind not in kinds:
        raise SettingError(f"{key}: there is no kind {kind!r}", key=f"{key}.kind", next_step=nearest(str(kind), kinds))
    return _entry(kinds[kind], entry, key, data)


def _entry(kind: type[BaseModel], entry: Any, key: str, data: Any) -> BaseModel:
    if not isinstance(entry, dict):
        raise SettingError(f"{key} is no mapping of names to values", key=key)
    known_keys(entry, kind.model_fields, f"{key}.")
    try:
        made = kind.model_validate(entry)
    except ValidationError as error:
        raise _without_secret(explained(error, f"{key}."), data) from None
    check_kinds(_at(data, key), made.model_dump(mode="json"), key)
    return made


def _at(data: Any, key: str) -> Any:
    for name in key.split("."):
        if isinstance(data, dict):
            data = data.get(name)
        elif isinstance(data, list) and name.isdigit() and int(name) < len(data):
            data = data[int(name)]
        else:
            return None
    return data


def _without_secret(error: SettingError, data: Any) -> SettingError:
    """The error without what was filled in, or may hold a password."""
    given = _at(data, error.key)
    secret = error.key.rpartition(".")[2] in ("password", "secret", "token", "url", "store") or "headers" in error.key
    if not secret and not (refers(given) or isinstance(given, dict | list)):
        return error
    return SettingError(error.cause.partition(" (given ")[0], key=error.key, next_step=error.next_step)


def _check_names(configuration: Configuration) -> None:
    """Names become those of topics, files and labels."""
    sections: dict[str, Mapping[str, Any]] = {
        "machines": configuration.machines, "sources": configuration.sources, "sinks": configuration.sinks,
    }  # fmt: skip
    keys = {"monitor": configuration.monitor}
    for section, entries in sections.items():
        keys |= {f"{section}.{name}": name for name in entries}
        pair = alike(entries)
        if pair is not None:
            raise SettingError(f"{pair[0]!r} and {pair[1]!r} are hardly told apart", key=f"{section}.{pair[1]}")
    for key, name in keys.items():
        reason = why_no_file_name(name) or ("has + or #, which topics cannot have" if set("+#") & set(name) else None)
        if reason is not None or name != name.strip():
            raise SettingError(
                f"{key}: {shown(name)!r} is no name ({reason or 'begins or ends with a blank'})", key=key,
                next_step="Write letters, digits, and - _ or blanks between them",
            )  # fmt: skip


def _check_references(configuration: Configuration) -> None:
    users: dict[str, str] = {}
    for name, machine in configuration.machines.items():
        key = f"machines.{name}"
        if machine.source not in configuration.sources:
            raise SettingError(
                f"{key}: there is no source {machine.source!r}", key=f"{key}.source",
                next_step=nearest(machine.source, configuration.sources),
            )  # fmt: skip
        listener = users.get(machine.source)
        by_channels = machine.channels and listener and configuration.machines[listener].channels
        if listener and isinstance(configuration.sources[machine.source], FolderEntry) and not by_channels:
            raise SettingError(
                f"{key} and {listener} listen to all of one folder", key=f"{key}.source",
                next_step="Give each machine its folder, or its channels",
            )  # fmt: skip
        users[machine.source] = name
        try:
            read_rate(machine.false_alarms)
        except HarkenError as error:
            raise SettingError(
                f"{key}.false_alarms: {error.cause}", key=f"{key}.false_alarms", next_step=error.next_step
            ) from None
    for name in configuration.sources:
        if name not in users:
            raise SettingError(f"no machine listens to the source {name}", key=f"sources.{name}",
                               next_step="Name it as source of a machine, or take it out")  # fmt: skip
    pipes = [name for name, source in configuration.sources.items() if source.kind == "pipe"]
    if len(pipes) > 1:
        raise SettingError(f"{pipes[0]} and {pipes[1]} are both standard input", key=f"sources.{pipes[1]}",
                           next_step="Keep one of them")  # fmt: skip


def _with_paths(configuration: Configuration, folder: Path) -> Configuration:
    """With absolute paths."""

    def moved(value: Any) -> Any:
        if isinstance(value, Path):
            return folder / value
        if isinstance(value, BaseModel):
            return value.model_copy(update={key: moved(getattr(value, key)) for key in type(value).model_fields})
        if isinstance(value, dict):
            return {key: moved(inside) for key, inside in value.items()}
        return value

    placed: Configuration = moved(configuration)
    if "://" not in placed.store:
        return placed.model_copy(update={"store": str(folder / placed.store)})
    evidence = placed.evidence.model_copy(update={"folder": folder / placed.evidence_folder})
    return placed.model_copy(update={"evidence": evidence})
