"""The words of the page in each language: one catalogue per language, of the files `LANGUAGE.toml` and
`SUBJECT.LANGUAGE.toml` in `texts/`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from string import Formatter
from typing import Any

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence

LANGUAGES = ("en", "de")


class Texts:
    """Words of one language: `texts("alarm.acknowledge")`, with values for the fields in braces.

    Raises KeyError for what is in no catalogue.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = catalogue(language)

    def __call__(self, key: str, **values: object) -> str:
        return self._texts[key].format(**values)

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def sentence(self, sentence: Sentence) -> str | None:
        """A sentence of the monitor in this language; None where the catalogue has no words for it."""
        template = sentence_catalogue(self.language).get(sentence.template)
        if template is None:
            return None
        values = {
            name: (self.sentence(value) or str(value)) if isinstance(value, Sentence) else value
            for name, value in sentence.values.items()
        }
        try:
            return _Numbers(self.language).vformat(template, (), values)
        except (KeyError, ValueError, IndexError):
            return None

    def error(self, error: Exception) -> str:
        """What cannot be done, and the next step; in English as far as the catalogue has no words for it."""
        said = self.sentence(error.sentence) if isinstance(error, HarkenError) else None
        return str(error) if said is None else f"{said}."

    def when(self, time: datetime, now: datetime) -> str:
        """A time as people say it: `14:20`, `Tue 14:20`, `3 Nov 14:20`, `3 Nov 2025`; in the zone of this computer."""
        local, today = time.astimezone(), now.astimezone()
        clock = f"{local:%H:%M}"
        days = (today.date() - local.date()).days
        if days == 0:
            return clock
        if 0 < days < 7:
            return f"{self(f'day.{local.isoweekday()}')} {clock}"
        date = self("date", day=local.day, month=self(f"month.{local.month}"))
        return f"{date} {clock}" if local.year == today.year else f"{date} {local.year}"

    def ago(self, time: datetime, now: datetime) -> str:
        """How long ago: `12 s ago`, `3 min ago`, `5 h ago`, `9 days ago`."""
        seconds = max(0.0, (now - time).total_seconds())
        for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
            if seconds >= (2 if unit == "days" else 1) * size:
                return self(f"ago.{unit}", count=int(seconds // size))
        return self("ago.seconds", count=int(seconds))


class _Numbers(Formatter):
    """Numbers as the language writes them: `1.200,5` in German."""

    def __init__(self, language: str) -> None:
        self._marks = str.maketrans(".,", ",.") if language == "de" else {}

    def format_field(self, value: Any, format_spec: str) -> str:
        text = format(value, format_spec)
        return text.translate(self._marks) if isinstance(value, int | float) else text


@cache
def sentence_catalogue(language: str) -> Mapping[str, str]:
    """Template -> words of a language, of sentences that the monitor, or an earlier version, stores in English."""
    file = files("harken.page").joinpath("texts", "sentences", f"{language}.toml")
    if not file.is_file():
        return {}
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {template: words for table in tables.values() for template, words in table.items()}


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """Key -> words of a language; a key of a table within a file is `table.key`. Two files share no table."""
    folder = files("harken.page").joinpath("texts")
    tables: dict[str, str | dict[str, str]] = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if f".{file.name}".endswith(f".{language}.toml"):
            tables |= tomllib.loads(file.read_text(encoding="utf-8"))
    return {
        f"{table}.{key}" if isinstance(words, dict) else table: word
        for table, words in tables.items()
        for key, word in (words.items() if isinstance(words, dict) else [("", words)])
    }


@cache
def texts(language: str) -> Texts:
    """Words of a language."""
    return Texts(language)


def chosen_language(asked: str | None, accepted: str | None) -> str:
    """asked: by the person, if so. accepted: the browser's Accept-Language."""
    if asked in LANGUAGES:
        return asked
    for entry in (accepted or "").split(","):
        if (language := entry.split(";")[0].strip().lower()[:2]) in LANGUAGES:
            return language
    return LANGUAGES[0]
