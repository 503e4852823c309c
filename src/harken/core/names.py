"""Names of files: as they are shown, on one line, whatever they hold; as they are compared; as every system allows."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

from harken.core.sentences import Sentence

#: devices of Windows, with any ending
_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$"}) | {
    f"{port}{number}" for port in ("com", "lpt") for number in "123456789\u00b9\u00b2\u00b3"
}
_FORBIDDEN = '<>:"/\\|?*'


def shown(name: str | Path) -> str:
    """The name with line breaks and other characters that cannot be printed as escapes: `\\n`, `\\xfc` for a byte
    that is not UTF-8."""
    return "".join(char if char.isprintable() else _escape(char) for char in str(name))


def joined(name: str) -> str:
    """The name in the form in which names are compared: NFC. macOS and some network drives write `u` and two dots
    for `ü`, which prints alike."""
    return unicodedata.normalize("NFC", name)


def _escape(char: str) -> str:
    # Python reads the bytes of names that are not UTF-8 as U+DC80 to U+DCFF.
    code = ord(char)
    return f"\\x{code & 0xFF:02x}" if 0xDC80 <= code <= 0xDCFF else char.encode("unicode_escape").decode()


def why_no_file_name(name: str) -> str | None:
    """Why some system does not allow a file or folder of this name; None if all do. Paths have no such name."""
    if not name or name in (".", ".."):
        return Sentence("is no name")
    if len(name.encode("utf-8", "surrogatepass")) > 255:
        return Sentence("is longer than 255 bytes")
    for char in name:
        if char in _FORBIDDEN or not char.isprintable():
            return (
                Sentence("has a slash")
                if char == "/"
                else Sentence("has {character!r}, which Windows does not allow", character=char)
            )
    if name[-1] in ". ":
        return Sentence("ends in a full stop or blank, which Windows leaves out")
    if name.partition(".")[0].rstrip(" ").casefold() in _DEVICES:
        return Sentence("is the name of a device on Windows")
    return None


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Two different names that are one where letters of either case, or both forms of accents, are the same."""
    first: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if first.setdefault(key, name) != name:
            return first[key], name
    return None


def why_no_files(names: Iterable[str]) -> str | None:
    """Why some system cannot keep files of these names beside each other; None if all can. `a/b` is in a folder."""
    paths = sorted({path for name in names for path in accumulate(name.split("/"), "{}/{}".format)})
    for path in paths:
        reason = why_no_file_name(path.rpartition("/")[2])
        if reason is not None:
            return f"{path!r} {reason}"
    pair = alike(paths)
    return None if pair is None else f"{pair[0]!r} and {pair[1]!r} are one name where case does not count"
