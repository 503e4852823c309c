"""Sentences for people that can be said in other languages where they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: what stands in a sentence; a sentence may stand in another
Value = str | int | float


class Sentence(str):
    """An English sentence that knows what it was made of: a template, and the values of its fields.

    It is its English text to all who do not ask: `Sentence("lasts {seconds:.1f} s", seconds=2)` is `"lasts 2.0 s"`.
    The template is its name in the catalogues of other languages, and stands in the code as it is. What is made of a
    sentence by other means than a template is plain text. Values are numbers and strings, of which names of files and
    what other programs say stay as they are.
    """

    template: str
    values: Mapping[str, Value]

    def __new__(cls, template: str, /, **values: Value) -> Sentence:
        # Numbers of NumPy are none of JSON.
        plain = {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}
        sentence = super().__new__(cls, template.format(**plain))
        sentence.template, sentence.values = template, plain
        return sentence

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Value]]:
        return (self.template,), dict(self.values)

    def __deepcopy__(self, memo: object) -> Sentence:
        return self

    def to_json(self) -> dict[str, Any]:
        """Template and values, JSON-able."""
        values = {n: value.to_json() if isinstance(value, Sentence) else value for n, value in self.values.items()}
        return {"template": self.template, "values": values}

    @classmethod
    def from_json(cls, made_of: Mapping[str, Any]) -> Sentence:
        """Inverse of `to_json`. Raises KeyError, TypeError, ValueError or AttributeError for others."""
        values = {
            n: cls.from_json(value) if isinstance(value, dict) else value for n, value in made_of["values"].items()
        }
        return cls(made_of["template"], **values)
