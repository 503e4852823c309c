"""Downloads: resumed after interruptions, verified, retried after temporary errors.

The only module that uses HTTP. `requests` is imported on use.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from harken.core.errors import HarkenError
from harken.core.extras import need
from harken.core.version import __version__

if TYPE_CHECKING:
    from requests import Response

#: timeouts in seconds: connecting, reading
TIMEOUT = (15, 30)
#: status codes of temporary errors
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
#: bytes per read, at most lost with a dropped connection
_CHUNK = 1 << 14
#: bytes after which a dropped connection counts as progress instead of a consecutive failure
_PROGRESS = 1 << 20
AGAIN = "Run the same command again: downloaded data are kept"

#: called with (bytes so far, total bytes or 0 if unknown)
Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """Retries: consecutive attempts without progress, and seconds between them.

    first: wait after the first failure, doubled up to `longest`. patience: longest wait a server may request.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 60.0
    patience: float = 900.0


class Stopped(Exception):
    """Raised after the user stopped the download."""


class _Again(Exception):
    """A failed attempt that may succeed when repeated.

    wait: seconds requested by the server. progress: whether data arrived before the failure.
    """

    def __init__(self, reason: str, *, wait: float | None = None, progress: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.progress = progress


@dataclass(frozen=True)
class Web:
    """HTTP client: retry policy, an event that stops all downloads, and a hint for wrong addresses.

    `fetch` and `fetch_json` raise HarkenError when retries are exhausted, and Stopped as soon as `stop` is set.
    """

    retry: RetryPolicy = RetryPolicy()
    stop: threading.Event = field(default_factory=threading.Event)
    hint: str = "Open the address in a browser"

    def fetch_json(self, url: str, content: str = "JSON") -> Any:
        """Parsed JSON response. content: its description for error messages."""

        def attempt() -> Any:
            from requests import RequestException

            with self._get(url) as response:
                try:
                    return response.json()
                except ValueError:  # comes first: what requests raises for it is both
                    raise HarkenError(f"did not answer with {content}", file=url, next_step=self.hint) from None
                except RequestException as error:
                    raise _Again(_in_short(error)) from None

        return self._insist(attempt, url)

    def fetch(
        self,
        url: str,
        path: Path,
        *,
        size: int | None = None,
        digest: tuple[str, str] | None = None,
        progress: Progress = lambda done, total: None,
    ) -> bool:
        """Download to `path`; returns True if bytes of an earlier call, in `<path>.part`, were reused.

        size: in bytes; None: as given by the server. digest: algorithm and hexadecimal digest of the content, which is
        downloaded again once if it differs; without a digest, nothing of an earlier call is reused.
        """
        partial = path.with_name(f"{path.name}.part")
        try:
            with partial.open("ab") as file:
                arriving = _Arriving(self, url, file, size, progress)
                if digest is None:
                    arriving.start_over()
                self._insist(arriving.read_on, url)
                file.flush()
                if digest is not None and file_digest(partial, digest[0]) != digest[1]:
                    arriving.start_over()
                    self._insist(arriving.read_on, url)
                    file.flush()
                os.fsync(file.fileno())
        finally:
            if partial.exists() and partial.stat().st_size == 0 and size != 0:
                partial.unlink()
        if digest is not None and (actual := file_digest(partial, digest[0])) != digest[1]:
            partial.unlink()
            raise HarkenError(
                f"{path.name} has {digest[0]} {actual}, expected {digest[1]}, also when downloaded anew; "
                "it was removed",
                file=url,
                next_step="Run the same command again later; if it stays so, the published file is damaged",
            )
        os.replace(partial, path)
        return arriving.reused > 0

    def _insist(self, attempt: Callable[[], T], url: str) -> T:
        """Result of `attempt`, repeated while it raises _Again. Raises HarkenError when retries are exhausted."""
        failed, retry = 0, self.retry
        while True:
            try:
                return attempt()
            except _Again as trouble:
                failed = 1 if trouble.progress else failed + 1
                if failed >= retry.attempts:
                    raise HarkenError(f"{trouble} ({failed} attempts)", file=url, next_step=AGAIN) from None
                pause = min(retry.first * 2 ** (failed - 1), retry.longest)
                if trouble.wait is not None:
                    pause = max(pause, trouble.wait)
                if pause > retry.patience:
                    raise HarkenError(
                        f"{trouble}; the server asks to wait {pause:.0f} s", file=url, next_step=f"Wait. {AGAIN}"
                    ) from None
            if self.stop.wait(pause):
                raise Stopped

    def _get(self, url: str, start: int = 0) -> Response:
        """An answer 200, 206 or 416, its body not yet read; start: first byte wanted.

        Raises _Again where a later attempt may do better, else HarkenError.
        """
        requests = need("requests", "downloads")
        # Without compression on the way, bytes are those of the file, and ranges mean what they say.
        headers = {"User-Agent": f"harken/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
        except requests.RequestException as error:
            if isinstance(error, ValueError):
                raise HarkenError("is not an address", file=url, next_step=self.hint) from None
            raise _Again(_in_short(error)) from None
        status = response.status_code
        if status == 200 or (start and status in (206, 416)):
            return response
        response.close()
        answer = f"the server answered {status} {response.reason or ''}".rstrip()
        if status in _LATER:
            raise _Again(answer, wait=_seconds(response))
        raise HarkenError(answer, file=url, next_step=self.hint)


class _Arriving:
    """State of a download over several attempts; data received so far are in the file.

    reused: bytes of an earlier run, 0 after a restart from the beginning. most: largest number of bytes received.
    """

    def __init__(self, web: Web, url: str, file: BinaryIO, size: int | None, progress: Progress) -> None:
        self.web = web
        self.url = url
        self.file = file
        self.size = size
        self.progress = progress
        self.most = self.reused = file.seek(0, os.SEEK_END)

    def start_over(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.reused = 0

    def read_on(self) -> None:
        """One request for what is missing. Raises _Again with all that arrived kept."""
        from requests import RequestException

        if self.size is not None and self.file.tell() > self.size:
            self.start_over()
        have = self.file.tell()
        if have == self.size:
            return
        with self.web._get(self.url, start=have) as response:
            size = self.size
            if response.status_code == 206 and not response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            ):
                self.start_over()
                raise _Again("the server sent another range than the one it was asked for")
            if response.status_code == 200 and have:
                self.start_over()  # it knows no ranges
                have = 0
            if size is None:
                size = have + int(response.headers.get("Content-Length") or 0)
            if response.status_code == 416:
                self.start_over()
                raise _Again(f"the server has nothing after byte {have} of {size}")
            try:
                for chunk in response.iter_content(_CHUNK):
                    if self.web.stop.is_set():
                        raise Stopped
                    self.file.write(chunk)
                    if size and self.file.tell() > size:
                        self.start_over()
                        raise _Again(f"the server sent more than the {size} bytes expected")
                    self.progress(self.file.tell(), size)
                reason = "the connection ended"
            except RequestException as error:
                reason = _in_short(error)
        if self.file.tell() < size:
            before, self.most = self.most, max(self.most, self.file.tell())
            raise _Again(f"{reason} after {self.file.tell()} of {size} bytes", progress=self.most - before >= _PROGRESS)


def file_digest(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _seconds(response: Response) -> float | None:
    """Of the header Retry-After: seconds, or the date until which to wait."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    header = response.headers.get("Retry-After")
    try:
        return None if not header else Retry().parse_retry_after(header)
    except InvalidHeader:
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
