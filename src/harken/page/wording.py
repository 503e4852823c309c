"""What the store holds in English, in the language of the person."""

from __future__ import annotations

from markupsafe import Markup, escape

from harken.core.sentences import Sentence
from harken.page.state import PageState
from harken.page.texts import Texts


def said(text: str, t: Texts, state: PageState) -> Markup:
    """A sentence of the store. It stays English, and is marked as such, where the language has no words for it."""
    if t.language == "en":
        return escape(text)
    sentence = state.sentence(text)
    words = None if sentence is None else t.sentence(sentence)
    return Markup('<span lang="en">{}</span>').format(text) if words is None else escape(words)


def refusal(text: str, t: Texts, state: PageState) -> Markup:
    """Why something that was asked for was not done: an answer that begins with `refused: `."""
    plain = text.removeprefix("refused: ")
    if t.language == "en":
        return escape(plain)
    sentence = state.sentence(text)
    reason = None if sentence is None else sentence.values.get("reason")
    words = t.sentence(reason) if isinstance(reason, Sentence) else None
    return Markup('<span lang="en">{}</span>').format(plain) if words is None else escape(words)


def did(action: str, t: Texts, state: PageState) -> Markup:
    """What has happened to an alarm or a model."""
    key = f"did.{action.replace(' ', '_')}"
    return escape(t(key)) if key in t else said(action, t, state)
