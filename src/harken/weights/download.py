"""Published files of weights from the web or a package index, checked. The only code here that needs a network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harken.core.download import RetryPolicy, Web
from harken.core.errors import HarkenError
from harken.weights.cache import cache_dir
from harken.weights.catalog import PypiMirror, SourceFile, UrlMirror
from harken.weights.formats import file_sha256, first_line

#: called with the address, bytes so far and bytes in all (0: unknown)
Progress = Callable[[str, int, int], None]

#: seconds without an answer after which pip gives a mirror up
TIMEOUT = 60
#: another mirror may do better: less patience than where there is only one
_RETRY = RetryPolicy(attempts=3, longest=10.0, patience=60.0)


class Unreachable(Exception):
    """A mirror that did not give the file; the next one is tried."""


def download(source: SourceFile, mirror: UrlMirror | PypiMirror, folder: Path, progress: Progress | None) -> Path:
    """Into `folder`, its sha256 checked. Raises Unreachable."""
    if isinstance(mirror, PypiMirror):
        return _download_wheel(source, mirror, folder, progress)
    try:
        # A known file is kept beside the cache while it arrives, so that the next attempt goes on from there.
        place = cache_dir() / ".downloads" if source.sha256 else folder
        with _made(place):
            Web(_RETRY).fetch(
                mirror.url,
                place / source.name,
                size=source.size,
                digest=("sha256", source.sha256) if source.sha256 else None,
                progress=lambda done, total: progress and progress(mirror.url, done, total),
            )
            shutil.move(place / source.name, folder / source.name)
    except (HarkenError, OSError) as error:
        cause = error.cause if isinstance(error, HarkenError) else first_line(error)
        raise Unreachable(f"{mirror.url}: {cause}") from None
    return folder / source.name


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Within it there is such a folder; it and the one around it go again where nothing was put into them."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for place in (folder, folder.parent):
            with suppress(OSError):
                place.rmdir()


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
        raise Unreachable(f"pypi:{wanted}: {first_line(error)}") from None
    path = folder / source.name
    if done.returncode != 0 or not path.is_file():
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        cause = errors[-1].removeprefix("ERROR: ") if errors else "pip gave no such wheel"
        raise Unreachable(f"pypi:{wanted}: {cause}")
    if source.sha256 is not None and file_sha256(path) != source.sha256:
        raise Unreachable(f"pypi:{wanted}: the wheel is not the one in the catalogue (sha256 differs)")
    if progress is not None:
        progress(f"pypi:{wanted}", path.stat().st_size, path.stat().st_size)
    return path
