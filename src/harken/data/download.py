"""DCASE years from Zenodo: resumed where a run stopped, checked, unpacked. Nothing else in this room uses the network.

Below ROOT/dcase<YEAR>t2, `dev_data/raw/<machine>` and `eval_data/raw/<machine>` hold the recordings. `.downloads`
holds the zips: `<zip>.part` while it arrives, `<zip>` once size and md5 are right, and `<zip>.json` once it is
unpacked, which is what a later run asks instead of the network.

HARKEN_ZENODO: another address of the record API, e.g. of a mirror.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.core.version import __version__
from harken.data import catalog
from harken.data.catalog import PARTS, Archive, Part
from harken.data.unpack import unpack

if TYPE_CHECKING:
    from requests import Response

ZENODO = "https://zenodo.org/api/records"
#: seconds to connect, and without a byte
TIMEOUT = (15, 30)
#: answers of a server that may do better later
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
#: bytes read at once, and the most that a dropped connection loses
_CHUNK = 1 << 14
#: bytes after which a dropped connection counts as progress, not as a failure in a row
_PROGRESS = 1 << 20
_AGAIN = "Run the same command again: what has arrived is kept"

State = Literal["downloaded", "resumed", "already there"]
#: called with the name of a zip, bytes so far and bytes in all; once for each zip before the first byte, then from
#: several threads
Progress = Callable[[str, int, int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Downloaded:
    """One archive that is in place.

    folder: of the machine's recordings. bytes, md5: of the zip. state: "resumed" if bytes of an earlier run were
    used, "already there" if nothing was left to do.
    """

    part: Part
    machine: str
    name: str
    folder: Path
    bytes: int
    md5: str
    state: State


@dataclass(frozen=True)
class Retry:
    """How patient to be: attempts in a row that bring nothing, and seconds between them.

    first: after the first failure; it doubles up to `longest`. patience: the longest wait a server may ask for.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 60.0
    patience: float = 900.0


class _RecordFile(BaseModel):
    """One file of a Zenodo record."""

    key: str
    size: int
    checksum: str
    links: dict[str, str]

    @property
    def md5(self) -> str:
        """Hexadecimal; "" where the record has another checksum."""
        match = re.fullmatch(r"(?:md5:)?([0-9a-f]{32})", self.checksum.lower())
        return match[1] if match else ""

    @property
    def url(self) -> str:
        # In the newer form of the API, `self` describes the file and `content` is the file.
        return self.links.get("content") or self.links["self"]


class _Note(BaseModel):
    """What is kept of an archive that was unpacked.

    files: how many. sizes: name below the machine's folder -> bytes. zip_kept: it was asked for.
    """

    model_config = ConfigDict(extra="forbid")

    record: str
    name: str
    md5: str
    size: int
    files: int
    sizes: dict[str, int]
    zip_kept: bool


class _Again(Exception):
    """An attempt that failed, and may not fail the next time.

    wait: seconds the server asks for. progress: it failed, but not without bringing something.
    """

    def __init__(self, reason: str, *, wait: float | None = None, progress: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.progress = progress


class _Stopped(Exception):
    """The user wants no more."""


def download(
    year: int,
    root: Path,
    *,
    parts: Sequence[Part] = PARTS,
    machines: Sequence[str] | None = None,
    jobs: int = 4,
    keep_zips: bool = False,
    api: str | None = None,
    retry: Retry = Retry(),
    progress: Progress | None = None,
    warn: Callable[[str], Any] = warnings.warn,
) -> list[Downloaded]:
    """Download and unpack these parts and machines (default: all) of a year below `root`, `jobs` zips at a time.

    Archives of an earlier run whose files are all there are not asked for again. keep_zips: keep each zip that is
    downloaded, in `.downloads`. api: address of the record API (default: HARKEN_ZENODO, else Zenodo's). warn: called
    with what is odd, but no failure.

    An archive that fails does not stop the others. Raises HarkenError in the end, naming every one that failed.
    """
    if jobs < 1:
        raise HarkenError(f"{jobs} downloads at a time is none", next_step="Give 1 or more jobs")
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
        with _alone(store):
            return _Run(home, store, api, keep_zips, retry, progress or (lambda *_: None), warn).all(wanted, jobs)
    except OSError as error:
        raise _disk(error, store) from None


@dataclass(frozen=True)
class _Run:
    """One run over the archives of a year."""

    home: Path
    store: Path
    api: str
    keep_zips: bool
    retry: Retry
    progress: Progress
    warn: Callable[[str], Any]

    def all(self, wanted: Sequence[Archive], jobs: int) -> list[Downloaded]:
        stop = threading.Event()
        done = {archive.name: found for archive in wanted if (found := self._already(archive))}
        failed: dict[str, HarkenError] = {}
        sources = self._sources([archive for archive in wanted if archive.name not in done], failed, stop)
        for name, source in sources.items():
            self.progress(name, 0, source.size)
        with ThreadPoolExecutor(jobs) as pool:
            running = {
                pool.submit(self._one, archive, sources[archive.name], stop): archive.name
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
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if failed:
            raise _together(
                {archive.name: failed[archive.name] for archive in wanted if archive.name in failed}, wanted
            )
        return [done[archive.name] for archive in wanted]

    def _folder(self, archive: Archive) -> Path:
        half = "dev_data" if archive.part == "dev" else "eval_data"
        return self.home / half / "raw" / archive.machine

    def _note(self, archive: Archive) -> Path:
        return self.store / f"{archive.name}.json"

    def _already(self, archive: Archive) -> Downloaded | None:
        """What an earlier run noted, if every file of it is there with its size."""
        folder = self._folder(archive)
        try:
            note = _Note.model_validate_json(self._note(archive).read_bytes())
            whole = all((folder / name).stat().st_size == size for name, size in note.sizes.items())
        except (OSError, ValidationError):
            return None
        if not whole or note.record != archive.record:
            return None
        if not note.zip_kept:  # that run may have been stopped right before this
            (self.store / archive.name).unlink(missing_ok=True)
        return _result(archive, folder, note.size, note.md5, "already there")

    def _sources(
        self, archives: Sequence[Archive], failed: dict[str, HarkenError], stop: threading.Event
    ) -> dict[str, _RecordFile]:
        """What the records say of each archive; each record is asked once. Failures go into `failed`."""
        records: dict[str, dict[str, _RecordFile] | HarkenError] = {}
        found = {}
        for archive in archives:
            if archive.record not in records:
                try:
                    records[archive.record] = _ask(f"{self.api}/{archive.record}", self.retry, stop)
                except HarkenError as error:
                    records[archive.record] = error
            record = records[archive.record]
            try:
                if isinstance(record, HarkenError):
                    raise record
                found[archive.name] = _pick(archive, record)
            except HarkenError as error:
                failed[archive.name] = error
                continue
            if archive.md5 and archive.md5 != found[archive.name].md5:
                self.warn(
                    f"{archive.name}: record {archive.record} now says md5 {found[archive.name].md5}, the catalogue "
                    f"{archive.md5}; the record is believed"
                )
        return found

    def _one(self, archive: Archive, source: _RecordFile, stop: threading.Event) -> Downloaded:
        """From whatever state an earlier run left it in to unpacked. Raises HarkenError."""
        folder = self._folder(archive)
        path = self.store / archive.name
        try:
            if path.is_file() and path.stat().st_size == source.size and _md5(path) == source.md5:
                reused = True  # stopped before it was unpacked, or kept
                self.progress(archive.name, source.size, source.size)
            else:
                reused = _fetch(source, path, self.retry, stop, self.progress)
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
            write_atomically(self._note(archive), (note.model_dump_json(indent=1) + "\n").encode(), sync=True)
            if not self.keep_zips:
                path.unlink()
        except OSError as error:
            raise _disk(error, path) from None
        return _result(archive, folder, source.size, source.md5, "resumed" if reused else "downloaded")


def _result(archive: Archive, folder: Path, size: int, md5: str, state: State) -> Downloaded:
    return Downloaded(archive.part, archive.machine, archive.name, folder, size, md5, state)


# ------------------------------------------------------------------ records


def _ask(url: str, retry: Retry, stop: threading.Event) -> dict[str, _RecordFile]:
    """Every file of a record by name. Raises HarkenError."""

    def attempt() -> Any:
        from requests import RequestException

        with _get(url) as response:
            try:
                return response.json()
            except ValueError:  # comes first: what requests raises for it is both
                raise HarkenError(
                    "did not answer with a record",
                    file=url,
                    next_step="Look whether the network asks for a login first, or whether HARKEN_ZENODO is wrong",
                ) from None
            except RequestException as error:
                raise _Again(_in_short(error)) from None

    answer = _insist(attempt, url, retry, stop)
    try:
        files = answer["files"]
        if isinstance(files, dict):
            files = [{"key": name, **entry} for name, entry in files["entries"].items()]
        found = [_RecordFile.model_validate(file) for file in files]
        return {file.key: file for file in found if file.url}
    except (KeyError, TypeError, AttributeError, ValidationError):
        raise HarkenError(
            "answered with a record of an unknown form", file=url, next_step="Get a newer harken, or report this"
        ) from None


def _pick(archive: Archive, files: dict[str, _RecordFile]) -> _RecordFile:
    """The file of the record that the archive is. Raises HarkenError."""
    source = files.get(archive.name)
    if source is None:
        near = difflib.get_close_matches(archive.name, files, 3)
        names = f"The nearest there: {', '.join(near)}" if near else f"It has {len(files)} files of other names"
        raise HarkenError(
            f"record {archive.record} has no such file",
            file=archive.name,
            next_step=f"{names}. Get a newer harken, or report this",
        )
    if not source.md5:
        raise HarkenError(
            f"record {archive.record} gives no md5 of it ({source.checksum})",
            file=archive.name,
            next_step="Get a newer harken, or report this",
        )
    return source


# -------------------------------------------------------------------- bytes


class _Arriving:
    """A zip on its way, in attempts; what has arrived is the file.

    reused: bytes of an earlier run that it began with, 0 once it had to start over. most: bytes it ever had.
    """

    def __init__(self, file: BinaryIO, source: _RecordFile, stop: threading.Event, progress: Progress) -> None:
        self.file = file
        self.source = source
        self.stop = stop
        self.progress = progress
        self.most = self.reused = file.seek(0, os.SEEK_END)

    def start_over(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.reused = 0

    def read_on(self) -> None:
        """One request for what is missing. Raises _Again with all that arrived kept."""
        from requests import RequestException

        size = self.source.size
        if self.file.tell() > size:
            self.start_over()
        have = self.file.tell()
        if have == size:
            return
        with _get(self.source.url, start=have) as response:
            if response.status_code == 416:
                self.start_over()
                raise _Again(f"the server has nothing after byte {have} of {size}")
            if response.status_code == 206 and not response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            ):
                self.start_over()
                raise _Again("the server sent another range than the one it was asked for")
            if response.status_code == 200 and have:
                self.start_over()  # it knows no ranges
            try:
                for chunk in response.iter_content(_CHUNK):
                    if self.stop.is_set():
                        raise _Stopped
                    self.file.write(chunk)
                    if self.file.tell() > size:
                        self.start_over()
                        raise _Again(f"the server sent more than the {size} bytes of the record")
                    self.progress(self.source.key, self.file.tell(), size)
                reason = "the connection ended"
            except RequestException as error:
                reason = _in_short(error)
        if self.file.tell() < size:
            before, self.most = self.most, max(self.most, self.file.tell())
            raise _Again(f"{reason} after {self.file.tell()} of {size} bytes", progress=self.most - before >= _PROGRESS)


def _fetch(source: _RecordFile, path: Path, retry: Retry, stop: threading.Event, progress: Progress) -> bool:
    """Bring `path` here, its size and md5 right; True if bytes of an earlier run were used. Raises HarkenError."""
    part = path.with_name(f"{path.name}.part")
    with part.open("ab") as file:
        arriving = _Arriving(file, source, stop, progress)
        _insist(arriving.read_on, source.url, retry, stop)
        file.flush()
        if (found := _md5(part)) != source.md5:
            arriving.start_over()
            _insist(arriving.read_on, source.url, retry, stop)
            file.flush()
            found = _md5(part)
        os.fsync(file.fileno())
    if found != source.md5:
        part.unlink()
        raise HarkenError(
            f"{path.name} has md5 {found}, expected {source.md5}, also when downloaded anew; it was removed",
            file=source.url,
            next_step="Run the same command again later; if it stays so, the published file is damaged",
        )
    os.replace(part, path)
    return arriving.reused > 0


def _insist(attempt: Callable[[], T], url: str, retry: Retry, stop: threading.Event) -> T:
    """The result of `attempt`, repeated while it raises _Again. Raises HarkenError when patience ends."""
    failed = 0
    while True:
        try:
            return attempt()
        except _Again as trouble:
            failed = 1 if trouble.progress else failed + 1
            if failed >= retry.attempts:
                raise HarkenError(f"{trouble} ({failed} attempts)", file=url, next_step=_AGAIN) from None
            pause = min(retry.first * 2 ** (failed - 1), retry.longest)
            if trouble.wait is not None:
                pause = max(pause, trouble.wait)
            if pause > retry.patience:
                raise HarkenError(
                    f"{trouble}; the server asks to wait {pause:.0f} s", file=url, next_step=f"Wait. {_AGAIN}"
                ) from None
        if stop.wait(pause):
            raise _Stopped


def _get(url: str, start: int = 0) -> Response:
    """An answer 200, 206 or 416, its body not yet read; start: first byte wanted.

    Raises _Again where a later attempt may do better, else HarkenError.
    """
    import requests

    # Without compression on the way, bytes are those of the file, and ranges mean what they say.
    headers = {"User-Agent": f"harken/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.RequestException as error:
        if isinstance(error, ValueError):
            raise HarkenError(
                "is not an address", file=url, next_step="Set HARKEN_ZENODO to one that starts with https://"
            ) from None
        raise _Again(_in_short(error)) from None
    status = response.status_code
    if status == 200 or (start and status in (206, 416)):
        return response
    response.close()
    answer = f"the server answered {status} {response.reason or ''}".rstrip()
    if status in _LATER:
        raise _Again(answer, wait=_seconds(response.headers.get("Retry-After")))
    raise HarkenError(
        answer, file=url, next_step="Look at the address in a browser; set HARKEN_ZENODO if you use a mirror"
    )


def _seconds(retry_after: str | None) -> float | None:
    """The header: seconds, or the date until which to wait."""
    if not retry_after:
        return None
    try:
        if retry_after.strip().isdigit():
            return float(retry_after)
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _in_short(error: Exception) -> str:
    """What requests says of a network that is not there fills a screen."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return "the certificate of the server was not accepted"
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "the server did not answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut"
    if isinstance(error, requests.ConnectionError):
        return "there was no connection"
    return (str(error) or type(error).__name__).splitlines()[0][:200]


# --------------------------------------------------------------------- disk


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out, for as long as this one lives: two that write one file would spoil it."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HarkenError(
                "another download of this year is running here", file=folder, next_step="Wait for it to end"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def _disk(error: OSError, path: Path) -> HarkenError:
    return HarkenError(
        f"cannot be written: {error.strerror or error}",
        file=error.filename or path,
        next_step=f"Free space or choose another folder. {_AGAIN}",
    )


def _together(failed: dict[str, HarkenError], wanted: Sequence[Archive]) -> HarkenError:
    """One error for all archives that failed; those that failed alike are named together."""
    if len(wanted) == 1:
        return next(iter(failed.values()))
    alike: dict[str, list[str]] = {}
    for name, error in failed.items():
        about = "" if error.file in (None, name) else f"{error.file}: "
        alike.setdefault(f"{about}{error.cause}", []).append(name)
    causes = "; ".join(f"{', '.join(names)}: {cause}" for cause, names in alike.items())
    steps = dict.fromkeys(error.next_step for error in failed.values() if error.next_step)
    return HarkenError(
        f"{len(failed)} of {len(wanted)} archives failed, the others are in place: {causes}",
        next_step=". ".join(steps),
    )
