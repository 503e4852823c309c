"""Sound from a network, or anything else that FFmpeg reads: RTSP, HTTP, HLS, SRT; any container."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from harken.audio.decode import Limits
from harken.core.extras import need
from harken.core.sentences import Sentence
from harken.core.system_reasons import reason_of
from harken.service.records import Block, Recording
from harken.service.sources.base import SoundSource, SourceError, SourceForm
from harken.service.sources.clock import LiveClock

#: time stamps of packets are rounded; larger steps are missing sound
_GAP_S = 0.05
#: what an address, or a playlist from it, may lead to: not to files of this computer
_PROTOCOLS = "http,https,httpproxy,tcp,tls,udp,rtp,rtsp,rtsps,srtp,rtmp,rtmps,srt,hls,crypto,data"


class StreamSource(SoundSource):
    """The first sound of a network stream, all its channels, at its own rate.

    url: its address; a password in it is not shown. patience_s: it is begun again after so long without sound.
    endless: whether it is to be begun again when it ends. Raises HarkenError where PyAV is not installed.
    """

    def __init__(self, url: str, *, patience_s: float = 10.0, endless: bool = True, limits: Limits = Limits()) -> None:
        self._av = need("av", "streams")
        self._url, self.patience_s, self.endless, self._limits = url, patience_s, endless, limits
        self.form = SourceForm()
        #: of cameras, sound passes; a file behind HTTP waits
        self.live = True if url.startswith(("rtsp", "rtp:", "udp:", "srt:")) else None

    @property
    def place(self) -> str:
        """The address without password and parameters."""
        address = urlsplit(self._url)
        host = address.netloc.rpartition("@")[2]
        return urlunsplit((address.scheme, host, address.path, "", ""))

    def listen(self, stop: threading.Event) -> Generator[Block | Recording | None]:
        """Until it ends. Raises SourceError for one that cannot be reached, holds no sound, or breaks off."""
        errors = (self._av.error.FFmpegError, OSError, ValueError)
        try:
            container = self._av.open(
                self._url,
                timeout=(self.patience_s, self.patience_s),
                options={"protocol_whitelist": _PROTOCOLS, "rtsp_transport": "tcp"},
            )
        except errors as error:
            raise self._error("cannot be opened", error) from None
        with container:
            if not container.streams.audio:
                raise SourceError(
                    Sentence("holds no sound"), file=self.place, next_step=Sentence("Give a stream with sound")
                )
            clock, position = LiveClock(live=self.live is True), 0
            expected_s: float | None = None
            frames = self._frames(container, stop)
            while True:
                try:
                    frame = next(frames, None)
                except self._av.error.EOFError:
                    return
                except errors as error:
                    raise self._error(Sentence("was lost"), error) from None
                if frame is None:
                    return
                samples_CS = np.ascontiguousarray(frame.to_ndarray(), dtype=np.float32)
                rate, count = frame.sample_rate, samples_CS.shape[1]
                if len(samples_CS) > self._limits.channels or not count:
                    self._check_channels(len(samples_CS))
                    continue
                if frame.pts is not None and frame.time_base is not None:
                    begins_s = float(frame.pts * frame.time_base)
                    if expected_s is not None and abs(begins_s - expected_s) > _GAP_S:
                        # Back in time: the sender began again.
                        position += max(1, round((begins_s - expected_s) * rate))
                    expected_s = begins_s + count / rate
                self.form = SourceForm(rate, len(samples_CS))
                yield Block(samples_CS, rate, position, clock.start(position / rate, count / rate))
                position += count

    def _frames(self, container: Any, stop: threading.Event) -> Generator[Any]:
        """Decoded frames of planar floats, until the end or `stop`."""
        resampler = self._av.AudioResampler(format="fltp")
        damaged = 0
        for packet in container.demux(audio=0):
            if stop.is_set():
                return
            try:
                frames = packet.decode()
            except self._av.error.InvalidDataError:
                # A packet was damaged on its way: its sound is missing. One after the other is no sound.
                damaged += 1
                if damaged > 100:
                    raise
                continue
            damaged = 0
            for frame in frames:
                yield from resampler.resample(frame)

    def _check_channels(self, channels: int) -> None:
        if channels > self._limits.channels:
            raise SourceError(
                Sentence(
                    "has {channels} channels, over the limit of {most}", channels=channels, most=self._limits.channels
                ),
                file=self.place,
                next_step=Sentence("Send those of the machines only"),
            )

    def _error(self, cause: str, error: Exception) -> SourceError:
        reason = reason_of(error)
        if isinstance(error, self._av.error.ExitError):
            reason = Sentence("nothing came for {seconds:g} s", seconds=self.patience_s or 0.0)
        why = Sentence("{cause} ({reason})", cause=cause, reason=reason)
        return SourceError(why, file=self.place, next_step=Sentence("Check the address, and the sender"))
