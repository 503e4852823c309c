"""What the operating system says of an error, as sentences where it is often said."""

from __future__ import annotations

from harken.core.sentences import Sentence

_REASONS = {
    str(sentence): sentence
    for sentence in (
        Sentence("Address already in use"),
        Sentence("Connection refused"),
        Sentence("Connection reset by peer"),
        Sentence("Connection timed out"),
        Sentence("Device or resource busy"),
        Sentence("Disk quota exceeded"),
        Sentence("File name too long"),
        Sentence("Input/output error"),
        Sentence("Is a directory"),
        Sentence("Name or service not known"),
        Sentence("Network is unreachable"),
        Sentence("No route to host"),
        Sentence("No space left on device"),
        Sentence("No such device"),
        Sentence("No such file or directory"),
        Sentence("Not a directory"),
        Sentence("Operation not permitted"),
        Sentence("Permission denied"),
        Sentence("Read-only file system"),
        Sentence("Stale file handle"),
        Sentence("Temporary failure in name resolution"),
        Sentence("Too many open files"),
        Sentence("Transport endpoint is not connected"),
    )
}


def reason_of(error: BaseException) -> str:
    """The message of an error in one line; of an OSError without number and path."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return _REASONS.get(text, text)
