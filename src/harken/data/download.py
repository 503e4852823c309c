"""Download of DCASE years from Zenodo: resumed, verified, unpacked. The only module of this room that uses the network.

In ROOT/dcase<YEAR>t2, `dev_data/raw/<machine>` and `eval_data/raw/<machine>` hold the recordings. `.downloads` holds
the zips: `<zip>.part` during the download, `<zip>` once size and MD5 are verified, and `<zip>.json` once it is
unpacked; later runs read the latter instead of using the network.

HARKEN_ZENODO: URL of the record API, for example of a mirror.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harken.core.download import RUN_AGAIN, RetryPolicy, Web, file_digest
from harken.core.errors import HarkenError, did_you_mean
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.data import catalog
from harken.data.catalog import PARTS, Archive, Part
from harken.data.unpack import unpack

ZENODO = "https://zenodo.org/api/records"
_HINT = "Open the URL in a browser: the network may require a login, or HARKEN_ZENODO may be wrong"
State = Literal["downloaded", "resumed", "already there"]
#: called with the name of a zip, bytes so far and total bytes; once per zip before the first byte, then from several
#: threads
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Downloaded:
    """One archive that was downloaded and unpacked.

    folder: of the machine's recordings. bytes, md5: of the zip. state: "resumed" if bytes of an earlier run were
    reused, "already there" if it was complete before.
    """

    part: Part
    machine: str
    name: str
    folder: Path
    bytes: int
    md5: str
    state: State


class _RecordFile(BaseModel):
    """One file of a Zenodo record."""

    key: str
    size: int
    checksum: str
    links: dict[str, str]

    @property
    def md5(self) -> str:
        """Hexadecimal; "" if the record has another kind of checksum."""
        match = re.fullmatch(r"(?:md5:)?([0-9a-f]{32})", self.checksum.lower())
        return match[1] if match else ""

    @property
    def url(self) -> str:
        # In the newer API, `self` is the metadata of the file and `content` its data.
        return self.links.get("content") or self.links["self"]


class _Note(BaseModel):
    """Record of an unpacked archive.

    files: number. sizes: path in the machine's folder -> bytes. zip_kept: whether the zip was to be kept.
    """

    model_config = ConfigDict(extra="forbid")

    record: str
    name: str
    md5: str
    size: int
    files: int
    sizes: dict[str, int]
    zip_kept: bool


def download(
    year: int,
    root: Path,
    *,
    parts: Sequence[Part] = PARTS,
    machines: Sequence[str] | None = None,
    jobs: int = 4,
    keep_zips: bool = False,
    api: str | None = None,
    retry: RetryPolicy = RetryPolicy(),
    progress: Progress | None = None,
    warn: Callable[[str], Any] = warnings.warn,
) -> list[Downloaded]:
    """Download and unpack these parts and machines (default: all) of a year into `root`, `jobs` zips in parallel.

    Archives of an earlier run are skipped if their files are complete. keep_zips: keep downloaded zips in
    `.downloads`. api: URL of the record API (default: HARKEN_ZENODO, else Zenodo's). warn: called with warnings.

    A failed archive does not stop the others. Raises HarkenError in the end, with all archives that failed.
    """
    if jobs < 1:
        raise HarkenError(f"{jobs} parallel downloads", next_step="Use at least 1 job")
    wanted = catalog.year(year).archives(tuple(dict.fromkeys(parts)), None if machines is None else tuple(machines))
    if not wanted:
        raise HarkenError(
            f"{year} has no archive of {', '.join(machines or ())} in {', '.join(parts)}",
            next_step=f"Choose another split; harken data list {year} shows the machines of each",
        )
    api = (api or os.environ.get("HARKEN_ZENODO") or ZENODO).rstrip("/")
    home = root / f"dcase{year}t2"
    store = home / ".downloads"
    try:
        store.mkdir(parents=True, exist_ok=True)
        with _locked(store):
            return _Run(home, store, api, keep_zips, retry, progress or (lambda *_: None), warn).all(wanted, jobs)
    except OSError as error:
        raise _disk_error(error, store) from None


@dataclass(frozen=True)
class _Run:
    """Download of archives of one year."""

    home: Path
    store: Path
    api: str
    keep_zips: bool
    retry: RetryPolicy
    progress: Progress
    warn: Callable[[str], Any]

    def all(self, wanted: Sequence[Archive], jobs: int) -> list[Downloaded]:
        """Every archive, in the given order. Raises HarkenError if any failed."""
        web = Web(self.retry, hint=_HINT)
        done = {archive.name: earlier for archive in wanted if (earlier := self._completed(archive))}
        failed: dict[str, HarkenError] = {}
        sources = self._sources([archive for archive in wanted if archive.name not in done], failed, web)
        for name, source in sources.items():
            self.progress(name, 0, source.size)
        with ThreadPoolExecutor(jobs) as pool:
            running = {
                pool.submit(self._get, archive, sources[archive.name], web): archive.name
                for archive in wanted
                if archive.name in sources
            }
            try:
                for future in as_completed(running):
                    try:
                        done[running[future]] = future.result()
                    except HarkenError as error:
                        failed[running[future]] = error
            except BaseException:
                web.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if failed:
            raise _summary({archive.name: failed[archive.name] for archive in wanted if archive.name in failed}, wanted)
        return [done[archive.name] for archive in wanted]

    def _folder(self, archive: Archive) -> Path:
        half = "dev_data" if archive.part == "dev" else "eval_data"
        return self.home / half / "raw" / archive.machine

    def _note(self, archive: Archive) -> Path:
        return self.store / f"{archive.name}.json"

    def _completed(self, archive: Archive) -> Downloaded | None:
        """Result of an earlier run if all of its files exist with their sizes, else None."""
        folder = self._folder(archive)
        try:
            note = _Note.model_validate_json(self._note(archive).read_bytes())
            complete = all((folder / name).stat().st_size == size for name, size in note.sizes.items())
        except (OSError, ValidationError):
            return None
        if not complete or note.record != archive.record:
            return None
        if not note.zip_kept:  # if that run was stopped before it removed the zip
            (self.store / archive.name).unlink(missing_ok=True)
        return _result(archive, folder, note.size, note.md5, "already there")

    def _sources(self, archives: Sequence[Archive], failed: dict[str, HarkenError], web: Web) -> dict[str, _RecordFile]:
        """Entry of each archive in its record; each record is requested once. Errors are added to `failed`."""
        records: dict[str, dict[str, _RecordFile] | HarkenError] = {}
        sources = {}
        for archive in archives:
            if archive.record not in records:
                try:
                    records[archive.record] = _ask(f"{self.api}/{archive.record}", web)
                except HarkenError as error:
                    records[archive.record] = error
            record = records[archive.record]
            try:
                if isinstance(record, HarkenError):
                    raise record
                sources[archive.name] = _pick(archive, record)
            except HarkenError as error:
                failed[archive.name] = error
                continue
            if archive.md5 and archive.md5 != sources[archive.name].md5:
                self.warn(
                    f"{archive.name}: record {archive.record} now gives md5 {sources[archive.name].md5}, the catalogue "
                    f"{archive.md5}; using that of the record"
                )
        return sources

    def _get(self, archive: Archive, source: _RecordFile, web: Web) -> Downloaded:
        """Download and unpack, reusing what an earlier run left. Raises HarkenError."""
        folder = self._folder(archive)
        path = self.store / archive.name
        try:
            if path.is_file() and path.stat().st_size == source.size and file_digest(path, "md5") == source.md5:
                reused = True  # kept, or stopped before unpacking
                self.progress(archive.name, source.size, source.size)
            else:
                reused = web.fetch(
                    source.url,
                    path,
                    size=source.size,
                    digest=("md5", source.md5),
                    progress=partial(self.progress, archive.name),
                )
            sizes = unpack(path, folder)
            note = _Note(
                record=archive.record,
                name=archive.name,
                md5=source.md5,
                size=source.size,
                files=len(sizes),
                sizes=sizes,
                zip_kept=self.keep_zips,
            )
            write_atomically(
                self._note(archive), (json_text(note.model_dump(mode="json"), indent=1) + "\n").encode(), sync=True
            )
            if not self.keep_zips:
                path.unlink()
        except OSError as error:
            raise _disk_error(error, path) from None
        return _result(archive, folder, source.size, source.md5, "resumed" if reused else "downloaded")


def _result(archive: Archive, folder: Path, size: int, md5: str, state: State) -> Downloaded:
    return Downloaded(archive.part, archive.machine, archive.name, folder, size, md5, state)


# ------------------------------------------------------------------ records


def _ask(url: str, web: Web) -> dict[str, _RecordFile]:
    """Files of a record by name. Raises HarkenError."""
    response = web.fetch_json(url, "a record")
    try:
        files = response["files"]
        if isinstance(files, dict):
            files = [{"key": name, **entry} for name, entry in files["entries"].items()]
        entries = [_RecordFile.model_validate(file) for file in files]
        return {file.key: file for file in entries if file.url}
    except (KeyError, TypeError, AttributeError, ValidationError):
        raise HarkenError(
            "the record has an unknown format", file=url, next_step="Update harken, or report this"
        ) from None


def _pick(archive: Archive, files: dict[str, _RecordFile]) -> _RecordFile:
    """File of the archive in its record. Raises HarkenError."""
    source = files.get(archive.name)
    if source is None:
        names = did_you_mean(archive.name, files, f"It has {len(files)} other files")
        raise HarkenError(
            f"record {archive.record} has no such file",
            file=archive.name,
            next_step=f"{names}. Update harken, or report this",
        )
    if not source.md5:
        raise HarkenError(
            f"record {archive.record} gives no MD5 of it ({source.checksum})",
            file=archive.name,
            next_step="Update harken, or report this",
        )
    return source


# --------------------------------------------------------------------- disk


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock against other processes until the context ends: concurrent writes would corrupt files."""
    try:
        import fcntl
    except ImportError:  # the system has no such locks
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HarkenError(
                "another download of this year is running in this folder",
                file=folder,
                next_step="Wait for its end",
            ) from None
        except OSError:
            pass  # the file system has no locks
        yield
    finally:
        os.close(handle)


def _disk_error(error: OSError, path: Path) -> HarkenError:
    """Error of writing below `path`."""
    return HarkenError(
        f"cannot be written: {error.strerror or error}",
        file=error.filename or path,
        next_step=f"Free space or choose another folder. {RUN_AGAIN}",
    )


def _summary(failed: dict[str, HarkenError], wanted: Sequence[Archive]) -> HarkenError:
    """One error for all failed archives, grouped by cause."""
    if len(wanted) == 1:
        return next(iter(failed.values()))
    archives_of: dict[str, list[str]] = {}
    for name, error in failed.items():
        prefix = "" if error.file in (None, name) else f"{error.file}: "
        archives_of.setdefault(f"{prefix}{error.cause}", []).append(name)
    causes = "; ".join(f"{', '.join(names)}: {cause}" for cause, names in archives_of.items())
    steps = dict.fromkeys(error.next_step for error in failed.values() if error.next_step)
    return HarkenError(
        f"{len(failed)} of {len(wanted)} archives failed, the others are in place: {causes}",
        next_step=". ".join(steps),
    )
