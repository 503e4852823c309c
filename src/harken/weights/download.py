"""Published files of weights from the web or a package index, checked. The only code here that needs a network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harken.weights.catalog import PypiMirror, SourceFile, UrlMirror
from harken.weights.formats import file_sha256, first_line

#: called with the address, bytes so far and bytes in all (0: unknown)
Progress = Callable[[str, int, int], None]

#: seconds without an answer after which a mirror is given up
TIMEOUT = 60


class Unreachable(Exception):
    """A mirror that did not give the file; the next one is tried."""


def download(source: SourceFile, mirror: UrlMirror | PypiMirror, folder: Path, progress: Progress | None) -> Path:
    """Into `folder`, its sha256 checked. Raises Unreachable."""
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
        raise Unreachable(f"{mirror.url}: {cause}") from None
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
