"""File-name endings of audio."""

from __future__ import annotations

#: under which recordings are looked for in folders unless the caller asks for more
DEFAULT_SUFFIXES = frozenset({".wav", ".wave", ".flac", ".w64", ".rf64"})
#: of everything that can be decoded
ALL_SUFFIXES = DEFAULT_SUFFIXES | {
    ".aif",
    ".aiff",
    ".au",
    ".caf",
    ".mp3",
    ".oga",
    ".ogg",
    ".opus",
    ".snd",
    ".voc",
}
