"""Sound on standard input, or any other open file: `arecord ... | harken monitor -`."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Generator

from harken.core.errors import AudioError
from harken.core.sentences import Sentence
from harken.core.system_reasons import reason_of
from harken.service.records import Block, Recording
from harken.service.sources.base import BEAT_S, SoundSource, SourceError, SourceForm
from harken.service.sources.clock import LiveClock
from harken.service.sources.pcm import WAV, unpacker

#: bytes that are read at once, at most: those of a pipe of Linux
_PIECE = 1 << 16


class PipeSource(SoundSource):
    """Raw samples, or WAV, from a file descriptor.

    sample_format: `WAV`, or a format as of `arecord -f`. form: of raw samples. descriptor: of standard input by
    default. It cannot be begun again: whoever writes to it has gone. Raises HarkenError for an unknown format, and raw
    samples without a rate.
    """

    endless = False
    again = False
    patience_s = 30.0

    def __init__(
        self,
        sample_format: str = WAV,
        form: SourceForm = SourceForm(),
        *,
        descriptor: int | None = None,
        place: str = "-",
    ) -> None:
        self._format, self._place = sample_format, place
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self.form = unpacker(sample_format, form, self.place).form
        self._given = form

    @property
    def place(self) -> str:
        """Standard input, or the name given."""
        return "standard input" if self._place == "-" else self._place

    def listen(self, stop: threading.Event) -> Generator[Block | Recording | None]:
        """Until its end. Raises AudioError for bytes that are not of its format, and where there are none."""
        unpack, clock, position = unpacker(self._format, self._given, self.place), LiveClock(live=False), 0
        while not stop.is_set():
            try:
                ready, _, _ = select.select([self._descriptor], [], [], BEAT_S)
                data = os.read(self._descriptor, _PIECE) if ready else None
            except (OSError, ValueError) as error:
                raise SourceError(
                    Sentence("cannot be read ({reason})", reason=reason_of(error)), file=self.place
                ) from error
            if data == b"":
                if not position:
                    raise AudioError(
                        Sentence("ended before any sound came"),
                        file=self.place,
                        next_step=Sentence("See what feeds it"),
                    )
                return
            samples_CS = None if data is None else unpack.unpack(data)
            if samples_CS is None:
                yield None
                continue
            rate = unpack.form.sample_rate or 0
            start = clock.start(position / rate, samples_CS.shape[1] / rate)
            yield Block(samples_CS, rate, position, start)
            position += samples_CS.shape[1]
