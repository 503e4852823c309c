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
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
#: bytes per read, at most lost with a dropped connection
_CHUNK = 1 << 14
#: bytes after which a dropped connection counts as progress instead of a consecutive failure
_PROGRESS = 1 << 20
RUN_AGAIN = "Run the same command again: downloaded data are kept"

#: called with (bytes so far, total bytes or 0 if unknown)
Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """Retries: consecutive attempts without progress, and seconds between them.

    first: wait after the first failure, doubled after each further one up to `longest`. patience: longest wait that a
    server may request.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 60.0
    patience: float = 900.0


class Stopped(Exception):
    """Raised after the user stopped the download."""


class _Retryable(Exception):
    """An attempt failed and may succeed when repeated.

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
        """Parsed JSON response. content: its description in error messages."""

        def attempt() -> Any:
            from requests import RequestException

            with self._get(url) as response:
                try:
                    return response.json()
                except ValueError:  # first, since the JSONDecodeError of requests is also a RequestException
                    raise HarkenError(f"did not answer with {content}", file=url, next_step=self.hint) from None
                except RequestException as error:
                    raise _Retryable(_short_reason(error)) from None

        return self._with_retries(attempt, url)

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
                transfer = _Transfer(self, url, file, size, progress)
                if digest is None:
                    transfer.restart()
                self._with_retries(transfer.resume, url)
                file.flush()
                if digest is not None and file_digest(partial, digest[0]) != digest[1]:
                    transfer.restart()
                    self._with_retries(transfer.resume, url)
                    file.flush()
                os.fsync(file.fileno())
        finally:
            if partial.exists() and partial.stat().st_size == 0 and size != 0:
                partial.unlink()
        if digest is not None and (actual := file_digest(partial, digest[0])) != digest[1]:
            partial.unlink()
            raise HarkenError(
                f"{path.name} has {digest[0]} {actual}, expected {digest[1]}, also after a second download; "
                "it was removed",
                file=url,
                next_step="Run the same command again later; if this persists, the published file is damaged",
            )
        os.replace(partial, path)
        return transfer.reused > 0

    def _with_retries(self, attempt: Callable[[], T], url: str) -> T:
        """Result of `attempt`, repeated while it raises _Retryable. Raises HarkenError when retries are exhausted."""
        failures, retry = 0, self.retry
        while True:
            try:
                return attempt()
            except _Retryable as error:
                failures = 1 if error.progress else failures + 1
                if failures >= retry.attempts:
                    raise HarkenError(f"{error} ({failures} attempts)", file=url, next_step=RUN_AGAIN) from None
                pause = min(retry.first * 2 ** (failures - 1), retry.longest)
                if error.wait is not None:
                    pause = max(pause, error.wait)
                if pause > retry.patience:
                    raise HarkenError(
                        f"{error}; the server asks to wait {pause:.0f} s", file=url, next_step=f"Wait. {RUN_AGAIN}"
                    ) from None
            if self.stop.wait(pause):
                raise Stopped

    def _get(self, url: str, start: int = 0) -> Response:
        """Streamed response of status 200, 206 or 416. start: first byte requested.

        Raises _Retryable for temporary errors, HarkenError for all others.
        """
        requests = need("requests", "downloads")
        # Without content encoding, byte ranges refer to the file itself.
        headers = {"User-Agent": f"harken/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
        except requests.RequestException as error:
            if isinstance(error, ValueError):
                raise HarkenError("is not a valid URL", file=url, next_step=self.hint) from None
            raise _Retryable(_short_reason(error)) from None
        status = response.status_code
        if status == 200 or (start and status in (206, 416)):
            return response
        response.close()
        status_text = f"the server answered {status} {response.reason or ''}".rstrip()
        if status in _TEMPORARY:
            raise _Retryable(status_text, wait=_retry_after_seconds(response))
        raise HarkenError(status_text, file=url, next_step=self.hint)


class _Transfer:
    """State of a download over several attempts; data received so far are in the file.

    reused: bytes of an earlier run, 0 after a restart. furthest: largest number of bytes received.
    """

    def __init__(self, web: Web, url: str, file: BinaryIO, size: int | None, progress: Progress) -> None:
        self.web = web
        self.url = url
        self.file = file
        self.size = size
        self.progress = progress
        self.furthest = self.reused = file.seek(0, os.SEEK_END)

    def restart(self) -> None:
        """Discard all data received."""
        self.file.seek(0)
        self.file.truncate()
        self.reused = 0

    def resume(self) -> None:
        """Request the missing bytes once. Raises _Retryable; data received so far are kept."""
        from requests import RequestException

        if self.size is not None and self.file.tell() > self.size:
            self.restart()
        start = self.file.tell()
        if start == self.size:
            return
        with self.web._get(self.url, start=start) as response:
            size = self.size
            if response.status_code == 206 and not response.headers.get("Content-Range", "").startswith(
                f"bytes {start}-"
            ):
                self.restart()
                raise _Retryable("the server sent another range than requested")
            if response.status_code == 200 and start:
                self.restart()  # the server ignores ranges
                start = 0
            if size is None:
                size = start + int(response.headers.get("Content-Length") or 0)
            if response.status_code == 416:
                self.restart()
                raise _Retryable(f"the server has no data after byte {start} of {size}")
            try:
                for chunk in response.iter_content(_CHUNK):
                    if self.web.stop.is_set():
                        raise Stopped
                    self.file.write(chunk)
                    if size and self.file.tell() > size:
                        self.restart()
                        raise _Retryable(f"the server sent more than the {size} bytes expected")
                    self.progress(self.file.tell(), size)
                reason = "the connection ended"
            except RequestException as error:
                reason = _short_reason(error)
        if self.file.tell() < size:
            before, self.furthest = self.furthest, max(self.furthest, self.file.tell())
            raise _Retryable(
                f"{reason} after {self.file.tell()} of {size} bytes", progress=self.furthest - before >= _PROGRESS
            )


def file_digest(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _retry_after_seconds(response: Response) -> float | None:
    """Seconds to wait by the Retry-After header, which holds seconds or a date; None without a valid one."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    header = response.headers.get("Retry-After")
    try:
        return None if not header else Retry().parse_retry_after(header)
    except InvalidHeader:
        return None


def _short_reason(error: Exception) -> str:
    """Short message; those of requests for an unreachable network fill a screen."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate was not accepted"
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "the server did not answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut"
    if isinstance(error, requests.ConnectionError):
        return "the server could not be reached"
    return (str(error) or type(error).__name__).splitlines()[0][:200]
