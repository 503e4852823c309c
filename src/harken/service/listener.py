"""One machine that is listened to: its source, the windows that wait, and its model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harken.service.feed import Feed
from harken.service.judging import WindowJudge
from harken.service.records import HeardWindow, Recording
from harken.service.tap import Tap


class MachineListener:
    """Verdicts of one machine, in the order of its sound.

    feed: of its source, which other machines may share. tap: of this machine, among those of the feed.
    """

    def __init__(self, feed: Feed, tap: Tap, judge: WindowJudge) -> None:
        self.feed, self.tap, self.judge = feed, tap, judge
        #: whether a window waits for its turn, or is being judged
        self.judging = False

    def hear(self, timeout: float | None = None) -> Iterator[HeardWindow]:
        """Verdicts on the next sound that waits; none after `timeout` seconds, and at the end (`finished`)."""
        item = self.tap.get(timeout)
        if item is None:
            return
        source, verdicts = self.feed.source, self.judge.hear(item)
        while True:
            self.judging = True
            try:
                heard = next(verdicts, None)
            except FileNotFoundError:
                if isinstance(item, Recording):
                    source.give_back(item)
                return
            finally:
                self.judging = False
            if heard is None:
                return
            if isinstance(item, Recording):
                window = heard.window
                self.tap.live.hear(window.samples_CS, window.sample_rate, window.start)
            resume = {**source.forgotten(), **heard.window.resume}
            yield replace(heard, window=replace(heard.window, resume=resume))

    @property
    def finished(self) -> bool:
        """Whether there is no more sound."""
        return self.tap.finished
