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
#: of sound that is not read, whatever the setting: lossy coding of phones and recorders, video, containers of data
UNREAD_SUFFIXES = frozenset(
    {
        ".3ga", ".3gp", ".aac", ".ac3", ".alac", ".amr", ".ape", ".dff", ".dsf", ".dts", ".dvf", ".m4a", ".m4b",
        ".mka", ".mp2", ".mp4", ".mpc", ".msv", ".mov", ".ra", ".shn", ".spx", ".tak", ".tta", ".webm", ".wma",
        ".wv",
    }
)  # fmt: skip
