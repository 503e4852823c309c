"""One machine that is listened to: its source, the windows that wait, and its model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

from harken.service.feed import Feed
from harken.service.judging import WindowJudge
from harken.service.records import HeardWindow, Recording
from harken.service.tap import Tap


class MachineListener:
    """Verdicts of one machine, in the order of its sound.

    feed: of its source, which other machines may share. tap: of this machine, among those of the feed. judging: held
    while a window is judged, so that machines that share it are judged one after the other.
    """

    def __init__(self, feed: Feed, tap: Tap, judge: WindowJudge, judging: threading.Lock | None = None) -> None:
        self.feed, self.tap, self.judge = feed, tap, judge
        self._judging = threading.Lock() if judging is None else judging

    def hear(self, timeout: float | None = None) -> Iterator[HeardWindow]:
        """Verdicts on the next sound that waits; none after `timeout` seconds, and at the end (`finished`)."""
        item = self.tap.get(timeout)
        if item is None:
            return
        source, verdicts = self.feed.source, self.judge.hear(item)
        while True:
            try:
                with self._judging:
                    heard = next(verdicts, None)
            except FileNotFoundError:
                if isinstance(item, Recording):
                    source.give_back(item)
                return
            if heard is None:
                return
            resume = {**source.forgotten(), **heard.window.resume}
            yield replace(heard, window=replace(heard.window, resume=resume))

    @property
    def finished(self) -> bool:
        """Whether there is no more sound."""
        return self.tap.finished
