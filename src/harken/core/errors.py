"""Errors that users see: cause, file and next step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from harken.core.names import shown
from harken.core.sentences import Sentence
from harken.core.system_reasons import reason_of


class HarkenError(Exception):
    """An error that the user can resolve.

    Parameters
    ----------
    cause: what is wrong, as a plain sentence.
    file: the file or folder concerned, if any.
    next_step: what the user can do, as an imperative.
    Final full stops of cause and next step are removed, so that either may be the text of another error.

    The command line prints the error and exits with code 2.
    """

    def __init__(self, cause: str, *, file: str | Path | None = None, next_step: str | None = None) -> None:
        self.cause = _on_one_line(cause)
        self.file = None if file is None else str(file)
        self.next_step = None if next_step is None else _on_one_line(next_step)
        super().__init__(self.cause, self.file, self.next_step)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled between processes, which by default does not support keyword arguments.
        return _rebuild, (type(self), self.cause, self.file, self.next_step)

    def __str__(self) -> str:
        return f"{self.sentence}."

    @property
    def sentence(self) -> Sentence:
        """All of it, without the last full stop, which is said in other languages as far as its parts are sentences."""
        cause, file, step = self.cause, shown(self.file or ""), self.next_step
        if file and step:
            return Sentence("{file}: {cause}. {step}", file=file, cause=cause, step=step)
        if file:
            return Sentence("{file}: {cause}", file=file, cause=cause)
        return Sentence("{cause}. {step}", cause=cause, step=step) if step else Sentence("{cause}", cause=cause)


class AudioError(HarkenError):
    """A recording that cannot be used: unreadable, empty, too long, not finite, wrong rate or channels."""


class TooFewError(HarkenError):
    """Too few normal recordings to fit a detector: the machine is skipped, others continue."""


class BundleError(HarkenError):
    """A stored model that is missing, damaged or of another schema version."""


class WeightsError(HarkenError):
    """Encoder weights that are missing, damaged or of the wrong architecture."""


@contextmanager
def settings_of(name: str, next_step: str) -> Iterator[None]:
    """Within it, ValueError and TypeError of settings become a HarkenError on `name` with this next step."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise HarkenError(str(error), file=name, next_step=next_step) from error


@contextmanager
def reading(
    file: str | Path, next_step: str = "Check the path", *, errors: tuple[type[Exception], ...] = (ValueError,)
) -> Iterator[None]:
    """Within it, OSError and `errors` of a file's content become a HarkenError on `file` with this next step."""
    kinds: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield
    except FileNotFoundError as error:
        raise HarkenError(Sentence("there is no such file"), file=file, next_step=next_step) from error
    except kinds as error:
        cause = Sentence("cannot be read ({reason})", reason=reason_of(error))
        raise HarkenError(cause, file=file, next_step=next_step) from error


@contextmanager
def writing(file: str | Path, next_step: str) -> Iterator[None]:
    """Within it, OSError becomes a HarkenError on `file`, a file or folder, with this next step."""
    try:
        yield
    except OSError as error:
        cause = Sentence("cannot be written ({reason})", reason=reason_of(error))
        raise HarkenError(cause, file=file, next_step=next_step) from error


def did_you_mean(word: str, names: Iterable[str], otherwise: str | None = None) -> str:
    """Next step for an unknown `word`: suggests the nearest of `names`, else `otherwise`, or lists them."""
    names = list(names)
    near = get_close_matches(word, names, n=1)
    return f"Did you mean {near[0]}" if near else there_are(names) if otherwise is None else otherwise


def there_are(names: Iterable[object]) -> str:
    """Next step for a choice among `names`, of which 20 are listed."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
    return f"There are: {', '.join(listed[:20]) or 'none'}{more}"


def and_more(names: Iterable[str]) -> str:
    """The first of `names` in their order, and how many more there are: `a and 2 more`."""
    first, *others = sorted(names)
    return f"{first} and {len(others)} more" if others else first


def _on_one_line(text: str) -> str:
    """Causes may be what libraries say. A sentence stays one."""
    plain = " ".join(text.splitlines()).rstrip(". ")
    return text if text == plain else plain


def _rebuild(kind: type[HarkenError], cause: str, file: str | None, next_step: str | None) -> HarkenError:
    return kind(cause, file=file, next_step=next_step)
