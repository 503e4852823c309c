"""A microphone of this computer, by PortAudio."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.core.extras import need
from harken.core.sentences import Sentence
from harken.service.records import Block, Recording
from harken.service.sources.base import BEAT_S, SoundSource, SourceError, SourceForm, microphones_are
from harken.service.sources.clock import LiveClock

#: blocks that wait between the sound card and the thread that takes them, at most
_WAITING = 256

_lock = threading.Lock()
_open_streams = 0


class MicrophoneSource(SoundSource):
    """An input of the sound card.

    device: its number, or a part of its name; None: the system's default. form: rate in Hz (None: that of the device)
    and channels (None: one). Raises HarkenError where sounddevice or PortAudio is not installed.
    """

    live = True

    def __init__(
        self, device: str | int | None = None, form: SourceForm = SourceForm(), *, patience_s: float = 5.0
    ) -> None:
        self._sounddevice = _portaudio()
        self._device, self.patience_s = device, patience_s
        self.form = SourceForm(form.sample_rate, form.channels or 1)

    @property
    def place(self) -> str:
        """Number or name of the device."""
        return "microphone" if self._device is None else f"microphone {self._device}"

    def listen(self, stop: threading.Event) -> Generator[Block | Recording | None]:
        """Until it is stopped. Raises SourceError for a device that is not there, is in use, or is lost."""
        blocks: queue.Queue[tuple[NDArray[np.float32], int]] = queue.Queue(_WAITING)
        missing = 0

        def take(samples_SC: NDArray[np.float32], count: int, times: Any, flags: Any) -> None:
            nonlocal missing
            # How much was lost the sound card does not say.
            missing += bool(flags.input_overflow)
            try:
                blocks.put_nowait((samples_SC.T.copy(), missing))
                missing = 0
            except queue.Full:
                missing += count

        clock, position = LiveClock(live=True), 0
        stream, rate = self._opened(take)
        try:
            while not stop.is_set():
                try:
                    samples_CS, lost = blocks.get(timeout=BEAT_S)
                except queue.Empty:
                    if not stream.active:
                        raise SourceError(
                            Sentence("was lost"), file=self.place, next_step=Sentence("Plug it in again")
                        ) from None
                    yield None
                    continue
                position += lost
                yield Block(samples_CS, rate, position, clock.start(position / rate, samples_CS.shape[1] / rate))
                position += samples_CS.shape[1]
        finally:
            _close(stream)

    def _opened(self, take: Any) -> tuple[Any, int]:
        """The stream, begun, and its rate."""
        global _open_streams
        sounddevice = self._sounddevice
        with _lock:
            if not _open_streams:
                # PortAudio lists devices once, at its start: one that was plugged in since would not be found.
                sounddevice._terminate()
                sounddevice._initialize()
            try:
                device = sounddevice.query_devices(self._device, "input")
                rate = self.form.sample_rate or round(device["default_samplerate"])
                stream = sounddevice.InputStream(
                    samplerate=rate, device=self._device, channels=self.form.channels, dtype="float32", callback=take
                )
                stream.start()
            except (sounddevice.PortAudioError, ValueError) as error:
                cause = Sentence("cannot be opened ({reason})", reason=_reason(error))
                raise SourceError(cause, file=self.place, next_step=microphones_are(input_devices())) from None
            _open_streams += 1
        return stream, rate


def input_devices() -> list[str]:
    """Names of devices with inputs. Raises HarkenError where sounddevice or PortAudio is not installed."""
    return [device["name"] for device in _portaudio().query_devices() if device["max_input_channels"] > 0]


def _portaudio() -> ModuleType:
    try:
        return need("sounddevice", "microphones")
    except OSError:
        raise HarkenError(
            Sentence("microphones need the library PortAudio"),
            next_step=Sentence("Install it: apt install libportaudio2"),
        ) from None


def _close(stream: Any) -> None:
    global _open_streams
    with _lock:
        stream.close(ignore_errors=True)
        _open_streams -= 1


def _reason(error: Exception) -> str:
    return str(error.args[0] if error.args else error).splitlines()[0]
