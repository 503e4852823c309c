"""The one exception a user meets: it names the file, the cause and the next step."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class HarkenError(Exception):
    """Something the user can mend.

    Parameters
    ----------
    cause: what is wrong, as a plain sentence.
    file: the file or folder it is about, if any.
    next_step: what to do now, as an imperative.
    Of both, final full stops are taken away, so that the text of another error can stand there.

    The command line prints it and exits with code 2; Python callers catch it.
    """

    def __init__(self, cause: str, *, file: str | Path | None = None, next_step: str | None = None) -> None:
        self.cause = cause.rstrip(". ")
        self.file = None if file is None else str(file)
        self.next_step = None if next_step is None else next_step.rstrip(". ")
        super().__init__(self.cause, self.file, self.next_step)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders by pickling; keyword arguments need this help.
        return _rebuild, (type(self), self.cause, self.file, self.next_step)

    def __str__(self) -> str:
        text = f"{self.file}: {self.cause}" if self.file else self.cause
        return f"{text}. {self.next_step}." if self.next_step else f"{text}."


class AudioError(HarkenError):
    """A recording that cannot be used: unreadable, empty, too long, not finite, wrong rate or channels."""


class TooFewError(HarkenError):
    """Normal recordings that are too few to learn from: a machine that is left out, while others go on."""


class BundleError(HarkenError):
    """A model on disk that is missing, damaged or of another schema."""


class WeightsError(HarkenError):
    """Encoder weights that are missing, damaged or of the wrong architecture."""


def did_you_mean(word: str, names: Iterable[str], otherwise: str) -> str:
    """Next step for a word that is not known: the nearest that is, or `otherwise` where none is near."""
    near = get_close_matches(word, list(names), n=1)
    return f"Did you mean {near[0]}" if near else otherwise


def _rebuild(kind: type[HarkenError], cause: str, file: str | None, next_step: str | None) -> HarkenError:
    return kind(cause, file=file, next_step=next_step)
