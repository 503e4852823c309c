"""Sound and pictures of alarms, in a folder that never grows beyond its quota."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

from harken.audio.write import write_sound
from harken.core.errors import HarkenError, writing
from harken.core.files import remove_temporaries, write_atomically
from harken.monitor.detector import Detector
from harken.service.changes import EvidenceRecord
from harken.service.daemon_threads import DaemonThreads
from harken.service.records import HeardWindow

log = logging.getLogger(__name__)

#: bytes of a folder of evidence, unless another quota is asked for
QUOTA = 2 * 2**30
#: pictures that wait to be drawn; an alarm needs no more
_WAITING_PICTURES = 8


class EvidenceFolder:
    """A ring of files: where a new one would exceed the quota, the oldest go. Threads may share it.

    `save` raises nothing: where the disk is full or the folder is gone, there is no evidence, `problem` says so, and
    alarms go out without it.

    quota: bytes. Raises HarkenError where the folder cannot be made.
    """

    def __init__(self, folder: str | Path, quota: int = QUOTA) -> None:
        self.folder, self.quota = Path(folder), quota
        self.problem = ""
        self.dropped = 0
        self._lock = threading.Lock()
        with writing(self.folder, "Choose another folder for evidence"):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_temporaries(self.folder / "evidence")
            # Hidden files are others' (`service.alone`).
            kept = [file for file in self.folder.iterdir() if not file.name.startswith(".")]
            files = [(file.stat().st_mtime_ns, file, file.stat().st_size) for file in kept]
        #: size by file, the oldest first
        self._sizes = {file: size for _, file, size in sorted(files)}
        self._bytes = sum(self._sizes.values())
        self._gone: list[str] = []
        self._pictures = DaemonThreads("pictures")
        self._waiting = threading.BoundedSemaphore(_WAITING_PICTURES)

    @property
    def size(self) -> int:
        """Bytes in the folder."""
        return self._bytes

    def files(self, record: EvidenceRecord) -> list[str]:
        """Paths of the sound and the picture, which may be drawn a moment later, or gone since."""
        return [str(self.folder / name) for name in (record.sound, record.picture) if name]

    def save(
        self,
        heard: HeardWindow,
        alarm: str = "",
        detector: Detector | None = None,
        kind: Literal["alarm", "live", "normal"] = "alarm",
    ) -> EvidenceRecord | None:
        """Keep the sound of a window at once, and its picture (of this detector) as soon as it is drawn.

        None where nothing could be kept.
        """
        window, verdict = heard.window, heard.verdict
        if window.samples_CS.shape[1] == 0:
            return None
        name = f"{window.start:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        stem = self.folder / name
        with self._lock:
            file = self._keep(lambda: write_sound(stem, window.samples_CS, window.sample_rate))
        if file is None:
            return None
        size, picture = self._sizes.get(file, 0), ""
        if detector is not None and verdict.explanation is not None and self._waiting.acquire(blocking=False):
            picture = f"{name}.webp"
            self._pictures.submit(partial(self._draw, detector, heard, self.folder / picture))
        sentence = verdict.why or ""
        return EvidenceRecord(
            name, heard.machine, alarm, window.start, size, file.name, picture, sentence, verdict.score, kind
        )

    def take_gone(self) -> list[str]:
        """Ids of the evidence that has been removed since the last call."""
        with self._lock:
            gone, self._gone = self._gone, []
            return gone

    def remove(self, record: EvidenceRecord) -> None:
        """Remove the files of a record that another takes the place of."""
        with self._lock:
            for name in (record.sound, record.picture):
                if self.folder / name in self._sizes:
                    self._remove(self.folder / name)

    def close(self, seconds: float = 5.0) -> None:
        """Finish the picture that is being drawn, if that takes no longer than so many seconds."""
        self._pictures.close(seconds)

    def _draw(self, detector: Detector, heard: HeardWindow, file: Path) -> None:
        try:
            # matplotlib is a quarter of the time in which a monitor starts.
            from harken.monitor.plot import webp_bytes, why_figure

            data = webp_bytes(why_figure(detector, heard.verdict), dpi=100)

            def write() -> Path:
                write_atomically(file, data)
                return file

            with self._lock:
                self._keep(write)
        except Exception:
            # A picture is less than an alarm.
            log.exception("machine %s: no picture", heard.machine)
        finally:
            self._waiting.release()

    def _keep(self, write: Callable[[], Path]) -> Path | None:
        """Write a file and make room for it; None where that cannot be."""
        try:
            file = write()
            size = file.stat().st_size
        except (OSError, HarkenError) as error:
            # A full disk: what is oldest may go for what is new.
            self.problem = f"evidence is not kept ({getattr(error, 'strerror', None) or error})"
            self.dropped += 1
            self._remove_oldest(max(1, self._bytes // 10))
            return None
        self.problem = ""
        self._sizes[file], self._bytes = size, self._bytes + size
        self._remove_oldest(self._bytes - self.quota)
        return file if file in self._sizes else None

    def _remove_oldest(self, size: int) -> None:
        """Remove the oldest files of at least so many bytes in all."""
        while size > 0 and self._sizes:
            size -= self._remove(next(iter(self._sizes)))

    def _remove(self, file: Path) -> int:
        """Remove a file; the bytes that it had."""
        freed = self._sizes.pop(file)
        self._bytes -= freed
        if file.suffix != ".webp":
            self._gone.append(file.stem)
        with suppress(OSError):
            file.unlink(missing_ok=True)
        return freed
