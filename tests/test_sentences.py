"""Sentences of the monitor: English everywhere, and in other languages where people read them."""

from __future__ import annotations

import ast
import copy
import errno
import json
import os
import pickle
import re
import string
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

import harken
from harken.core.errors import AudioError, HarkenError, reading, writing
from harken.core.sentences import Sentence
from harken.detection.rates import in_words, one_in
from harken.monitor.wording import Region, differs, normals_of
from harken.page.texts import LANGUAGES, sentence_catalogue, texts
from harken.service.changes import AlarmRecord, Changes, EvidenceRecord, ModelInUse, SensorRecord
from harken.service.learner import refusal_of
from harken.service.sources.base import SourceError
from harken.service.store.rows import sentence
from harken.service.store.store import Store

OTHERS = [language for language in LANGUAGES if language != "en"]
#: English words that are none of another language
LEFTOVERS = re.compile(
    r"\b(the|of|and|is|are|it|its|not|with|above|below|any|at|from|to|first|recordings?|alarms?|machine|sound|sensor"
    r"|samples?|level|new|no|one|more|after|which|has|have|by|since|until|days|hours)\b"
)


def _templates() -> set[str]:
    """All that stand in the code: a sentence is made of a literal, here or by `partial`."""
    found = set()
    for file in Path(harken.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call):
                continue
            names = [getattr(each, "id", "") for each in (call.func, *call.args[:1])]
            if "Sentence" in names[:1] or names[:2] == ["partial", "Sentence"]:
                literal = call.args[names.index("Sentence")]
                assert isinstance(literal, ast.Constant), f"{file}:{call.lineno}: the template is no literal"
                found.add(literal.value)
    return found


def _fields(template: str) -> set[str]:
    return {name for _, name, *_ in string.Formatter().parse(template) if name}


@pytest.mark.parametrize("language", OTHERS)
def test_every_sentence_has_words_in_every_language(language: str) -> None:
    catalogue = sentence_catalogue(language)
    file = Path(harken.__file__).parent / "page" / "texts" / "sentences" / f"{language}.toml"
    earlier = set(tomllib.loads(file.read_text(encoding="utf-8"))["earlier"])
    assert set(catalogue) - earlier == _templates()
    for template, words in catalogue.items():
        assert _fields(template) == _fields(words), template
        said = re.sub(r"\{.*?\}|--[a-z-]+", "", words)
        if language == "de":
            assert not LEFTOVERS.findall(said), words


#: errors of these are shown on the page: refusals of learning, of what is asked, and of setting up; sources that fail
SHOWN = (
    "core/errors.py", "monitor/feedback", "monitor/fit.py", "monitor/learn.py", "monitor/relearn.py",
    "monitor/versions.py", "page/actions.py", "page/scorer.py", "page/set_up.py", "page/teaching.py",
    "service/learner.py", "service/learning.py", "service/requests.py", "service/set_up", "service/sources",
)  # fmt: skip


def test_errors_that_the_page_shows_are_sentences() -> None:
    """Their causes and next steps: neither plain text nor put together by other means than a template."""
    package = Path(harken.__file__).parent
    plain = []
    for place in SHOWN:
        for file in [package / place] if place.endswith(".py") else sorted((package / place).glob("*.py")):
            for call in ast.walk(ast.parse(file.read_text())):
                name = getattr(call.func, "id", "") if isinstance(call, ast.Call) else ""
                if isinstance(call, ast.Call) and name.endswith(("Error", "Refused")) and name != "ValueError":
                    parts = [*call.args[:1], *(each.value for each in call.keywords if each.arg == "next_step")]
                    plain += [
                        f"{file}:{part.lineno}"
                        for part in parts
                        if isinstance(part, ast.JoinedStr | ast.Constant | ast.BinOp) and ast.unparse(part) != "None"
                    ]
    assert plain == []


def test_an_error_is_said_in_german_to_its_last_part() -> None:
    german = texts("de")
    with pytest.raises(HarkenError) as caught, reading("plant.yaml", Sentence("Correct the file")):
        Path("/nowhere/plant.yaml").read_text()
    assert german.error(caught.value) == "plant.yaml: die Datei gibt es nicht. Die Datei berichtigen."
    with pytest.raises(HarkenError) as caught, writing("plant.yaml", "Try elsewhere"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(caught.value) == "plant.yaml: cannot be written (No space left on device). Try elsewhere."
    assert german.error(caught.value).startswith(
        "plant.yaml: lässt sich nicht schreiben (Kein Platz mehr auf dem Datenträger). "
    )
    source = SourceError(Sentence("was lost"), file="microphone", next_step=Sentence("Plug it in again"))
    sensor = Sentence("gives no sound: {error}", error=source.sentence)
    assert sensor == "gives no sound: microphone: was lost. Plug it in again"
    assert german.sentence(sensor) == "liefert keinen Ton: microphone: ging verloren. Wieder anschließen"
    refused = refusal_of(HarkenError(Sentence("version {number} is in use", number=3), next_step=None))
    assert refused == "refused: version 3 is in use"


def test_a_sentence_is_its_english_text_and_keeps_what_it_is_made_of() -> None:
    whole = Sentence("gives no sound: {error}", error=Sentence("{count} days", count=1.5))
    assert whole == "gives no sound: 1.5 days"
    assert json.loads(json.dumps([whole])) == ["gives no sound: 1.5 days"]
    for other in (pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole), Sentence.from_json(whole.to_json())):
        assert other == whole
        assert other.to_json() == whole.to_json()
    json.dumps(whole.to_json())
    # An error keeps it, also from one process to another.
    error = pickle.loads(pickle.dumps(AudioError(Sentence("the file is empty"), file="a.wav")))
    assert texts("de").sentence(error.cause) == "die Datei ist leer"


def test_numbers_are_written_as_the_language_does() -> None:
    region = Region(2990, 3050, 3012.0, 2, 0.0, 9.0, ((0.0, 9.0),), 25.2, True, 1.0)
    english = differs(region, 10.0, normals_of(75, segments=False))
    assert english == "new tone near 3.0 kHz throughout, 25 dB above any of 75 normal recordings"
    german = texts("de").sentence(english)
    assert german == "neuer Ton bei 3,0 kHz durchgehend, 25 dB über allen 75 normalen Aufnahmen"
    assert texts("de").sentence(one_in(1 / 12_345)) == "1 von 12.000"
    assert texts("de").sentence(in_words(3.4 * 86_400)) == "3,4 Tage"
    # What is not known stays English.
    assert texts("de").sentence(Sentence("nobody wrote this")) is None


def test_the_store_gives_sentences_back_and_leaves_plain_text(tmp_path: Path) -> None:
    store, now = Store.open(tmp_path / "store.db", "plant"), datetime.now(UTC)
    heard = Sentence("sounds like the normal recording {nearest}", nearest="a.wav")
    silent, limits = Sentence("gives no sound"), Sentence("{count} days", count=2)
    changes = Changes(
        sensors=[SensorRecord("pump", "failure", now, silent)],
        alarms={"a": AlarmRecord("a", "pump", "unacknowledged", now, now, sentence=heard)},
        models=[ModelInUse("pump", "abc", "pump.harken", now, sentences=[limits])],
        evidence=[EvidenceRecord("e", "pump", "", now, 1, sentence=Sentence("noise"), kind="live")],
    )
    store.commit(changes)
    store.commit(
        Changes(sensors=[SensorRecord("fan", "failure", now, silent), SensorRecord("saw", "failure", now, "x")])
    )
    with store.reading() as connection:
        for text in (heard, silent, limits):
            made = sentence(connection, str(text))
            assert made is not None
            assert made.to_json() == text.to_json()
        assert sentence(connection, "x") is None
        # That of each window is not shown, and would fill the store.
        assert sentence(connection, "noise") is None
    store.close()
