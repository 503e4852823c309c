"""File-name suffixes of audio."""

from __future__ import annotations

#: of recordings that are read from folders by default
DEFAULT_SUFFIXES = frozenset({".wav", ".wave", ".flac", ".w64", ".rf64"})
#: of all formats that can be decoded
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
