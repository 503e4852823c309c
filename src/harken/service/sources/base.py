"""The contract of sources: sound, one piece after the other, until they are stopped."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.service.records import Block, Recording, Resume

#: a source says that nothing has come at least so often, in seconds
BEAT_S = 0.5


class SourceError(HarkenError):
    """A source that gives no sound: its device, folder or network is not there, or was lost. It is tried again."""


@dataclass(frozen=True)
class SourceForm:
    """Sampling rate in Hz and channels of what a source gives; None where only its sound tells."""

    sample_rate: int | None = None
    channels: int | None = None


class SoundSource(ABC):
    """A source of sound. It keeps nothing open outside of `listen`, so that it can be listened to again.

    live: whether its sound passes, and is lost where nobody takes it; None: of a writer that may be live, or may write
    as fast as it is read. endless: whether an end is a failure. patience_s: after so long without sound it is silent;
    None: never, for pauses are usual. again: whether one that ended or is silent can be begun again.
    """

    live: bool | None = None
    endless: bool = True
    patience_s: float | None = None
    again: bool = True
    #: as far as it is known beforehand
    form: SourceForm = SourceForm()

    @property
    @abstractmethod
    def place(self) -> str:
        """What people call it: a path, an address, a device. It holds no password."""

    @abstractmethod
    def listen(self, stop: threading.Event) -> Generator[Block | Recording | None]:
        """Its sound from now on, with positions from 0; None at least every `BEAT_S` seconds while nothing comes.

        It ends soon after `stop` is set, from any thread. Raises SourceError for what may be better at another time,
        HarkenError for what will not.
        """

    def give_back(self, recording: Recording) -> None:
        """A recording could not be judged since its file has gone: it is given again when it is there again."""

    def forgotten(self) -> Resume:
        """What need not be stored any longer (`records.Resume`), since the last call."""
        return {}


def microphones_are(names: Sequence[str]) -> Sentence:
    """Next step for one that is not there."""
    if not names:
        return Sentence("There are no microphones")
    return Sentence("There are: {names}", names=", ".join(names))
