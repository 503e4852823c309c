"""A folder that something writes recordings into."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from harken.audio.decode import ALL_FORMATS, DEFAULT_FORMATS, Limits
from harken.audio.segments import Form, read_blocks, read_form
from harken.audio.suffixes import ALL_SUFFIXES, DEFAULT_SUFFIXES
from harken.core.errors import AudioError
from harken.core.extras import need
from harken.core.sentences import Sentence
from harken.service.records import Block, Recording, Resume
from harken.service.sources.base import BEAT_S, SoundSource, SourceError
from harken.service.sources.folder_files import FolderFile, FolderFiles, Order
from harken.service.sources.settling import Settling

#: recordings that continue each other are decoded in blocks of so many seconds
_BLOCK_S = 1.0
#: a file that begins so many seconds later than the one before ends does not continue it; names tell whole seconds
_GAP_S = 2.0
#: looks at a large folder may take a share of the time
_LOOK_SHARE = 0.05


class FolderSource(SoundSource):
    """Recordings in a folder and those below it, each as soon as it is finished, in order.

    machines: names of those that listen to it, see `records.Resume`. resume: what is stored of an earlier run; files
    that were judged for all of them, and have not changed since, are left out. order: `name`, or `time` (in names, else
    of files), of those that come together. continuous: files continue each other, as of a recorder that begins a new
    one now and then: windows go on across their borders. Otherwise each file is a recording of its own. settle_s: see
    `Settling`. look_s: the folder is looked through so often, for network shares tell of no changes; changes on this
    computer are seen at once. watch: wait for more files. all_formats: see `decode`.
    """

    live = False

    def __init__(
        self,
        folder: str | Path,
        machines: Sequence[str],
        *,
        resume: Resume | None = None,
        order: Order = "name",
        continuous: bool = False,
        settle_s: float = 5.0,
        look_s: float = 5.0,
        watch: bool = True,
        all_formats: bool = False,
        limits: Limits = Limits(),
    ) -> None:
        suffixes = ALL_SUFFIXES if all_formats else DEFAULT_SUFFIXES
        self._formats = ALL_FORMATS if all_formats else DEFAULT_FORMATS
        self._limits, self._continuous, self._look_s, self.endless = limits, continuous, look_s, watch
        self.again = watch  # else it is as it is
        self._settling = Settling(settle_s)
        self._files = FolderFiles(Path(folder), machines, resume or {}, order, suffixes, self._settling)
        #: end of the last file; None where the next one cannot continue it
        self._end: datetime | None = None

    @property
    def place(self) -> str:
        """Its path."""
        return str(self._files.folder)

    def listen(self, stop: threading.Event) -> Generator[Block | Recording | None]:
        """Recordings, or blocks of those that continue each other. Raises SourceError for a folder that has gone."""
        position, root = 0, self._files.root()
        changes = self._changes(stop) if self.endless else None
        try:
            next_look = soonest = time.monotonic()
            while not stop.is_set():
                if time.monotonic() >= next_look:
                    began = time.monotonic()
                    files = self._files.finished()
                    took_s = time.monotonic() - began
                    for file in files:
                        for piece in self._pieces(file, position):
                            yield piece
                            position = piece.end_position
                            if stop.is_set():
                                return
                    soonest = time.monotonic() + max(0.05, took_s / _LOOK_SHARE)
                    next_look = max(soonest, time.monotonic() + self._look_s)
                if self._settling.pending:
                    next_look = min(next_look, max(soonest, time.monotonic() + 0.2))
                elif changes is None:
                    return
                changed = stop.wait(0.1) if changes is None else next(changes)
                if changed:
                    next_look = min(next_look, soonest)
                if self._files.root() != root:
                    raise SourceError(Sentence("was replaced by another folder"), file=self.place)
                yield None
        finally:
            if changes is not None:
                changes.close()

    def give_back(self, recording: Recording) -> None:
        """See `SoundSource`."""
        self._files.give_back(recording.origin)

    def forgotten(self) -> Resume:
        """Files that are there no more, while others that were judged are."""
        return self._files.forgotten()

    def _changes(self, stop: threading.Event) -> Generator[bool]:
        """Whether anything has changed, several times a second."""
        watchfiles = need("watchfiles", "folders that are watched")
        watched = watchfiles.watch(
            self._files.folder, watch_filter=None, debounce=50, step=20, stop_event=stop,
            rust_timeout=int(500 * BEAT_S), yield_on_timeout=True, raise_interrupt=False,
            ignore_permission_denied=True,
        )  # fmt: skip
        try:
            for changes in watched:
                yield bool(changes)
        except FileNotFoundError:
            raise SourceError(Sentence("the folder has gone"), file=self.place) from None
        while True:
            yield False

    def _pieces(self, file: FolderFile, position: int) -> Generator[Block | Recording]:
        before = self._files.state(file)
        self._files.set_state(file, given=True)
        try:
            form = read_form(file.path, self._limits, self._formats)
        except AudioError as error:
            yield from self._unreadable(file, position, error)
            return
        start = file.start(form.seconds)
        if self._continuous:
            yield from self._blocks(file, form, start, position, int(before.get("next", 0)))
        else:
            judged_s = float(before.get("judged_s", 0.0))
            yield Recording(file.path, position, form.frames, start, file.origin, file.state, judged_s)

    def _blocks(
        self, file: FolderFile, form: Form, start: datetime, position: int, skipped: int
    ) -> Generator[Block | Recording]:
        """The sound of a file behind `skipped` samples; it continues what was before unless time is missing."""
        rate, place = form.sample_rate, skipped
        if self._end is None and position:
            position += 1
        elif self._end is not None and not skipped:
            missing_s = (start - self._end).total_seconds()
            # Files are also written late.
            tolerance_s = _GAP_S if file.named is not None else max(_GAP_S, 0.05 * form.seconds)
            if missing_s > tolerance_s:
                position += round(missing_s * rate)
        try:
            for audio in read_blocks(file.path, _BLOCK_S, skipped, self._limits, self._formats):
                moment = start + timedelta(seconds=place / rate)
                yield Block(audio.samples_CS, rate, position, moment, file.origin, place, file.state)
                position += audio.samples_CS.shape[1]
                place += audio.samples_CS.shape[1]
                self._files.set_state(file, given=True, next=place)
        except AudioError as error:
            yield from self._unreadable(file, position, error, place)
            return
        # Of a file that is cut off, sound is missing before the next one.
        self._end = None if form.given_frames > form.frames else start + timedelta(seconds=form.seconds)

    def _unreadable(self, file: FolderFile, position: int, error: AudioError, place: int = 0) -> Generator[Recording]:
        """A recording with its error; nothing for a file that has gone. Raises SourceError with the folder."""
        if not file.path.exists():
            # Before it is known whether the folder has gone too: then it will be back.
            self._files.set_state(file, next=place)
            self._files.root()
            self._end = None
            return
        self._end = None
        yield Recording(file.path, position + 1, 0, file.start(0.0), file.origin, file.state, error=error)
