"""Citations of a recipe, its encoders and data, as BibTeX."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from harken.bench.recipe import Recipe
from harken.data import catalog as data_catalog
from harken.weights.catalog import catalog as weights_catalog

#: what follows a title in a reference: a venue, a number, a year
_VENUE = re.compile(
    r"(technical report|Unisound|EUSIPCO|ICASSP|ICML|IJCAI|Interspeech|arXiv|DCASE (Workshop|\d)|\d{4}$)"
)


def bibtex(recipe: Recipe) -> str:
    """Entries of Harken, of the recipe's references, its encoders' checkpoints and the years of data it names, each
    once. Only what recipes and catalogues say: authors, title, venue, year, address."""
    entries: dict[str, str] = {"harken": _entry("harken", author="{The Harken authors}", title="Harken")}
    references = [text.strip() for text in (recipe.reference or "").split(";") if text.strip()]
    for number, text in enumerate(references, 1):
        key = f"{recipe.name}_{number}" if len(references) > 1 else recipe.name
        entries[key] = _of_reference(key, text)
    words = set(_words(recipe.model_dump(mode="json")))
    seen = set()
    for checkpoint in weights_catalog():
        named = checkpoint.name in words
        # A recipe that names an encoder only uses the first checkpoint of it.
        first = checkpoint.encoder in words and not any(
            listed.name in words for listed in weights_catalog() if listed.encoder == checkpoint.encoder
        )
        if (named or first) and checkpoint.citation not in seen:
            seen.add(checkpoint.citation)
            entries[checkpoint.encoder] = _of_reference(checkpoint.encoder, checkpoint.citation, checkpoint.source)
    for year in recipe.score_years or ():
        if year in data_catalog.years():
            records = dict.fromkeys(release.record for release in data_catalog.year(year).parts.values())
            key = f"dcase{year}t2"
            entries[key] = _entry(
                key,
                title=f"DCASE {year} Challenge Task 2: data sets",
                year=str(year),
                howpublished="Zenodo",
                note=", ".join(f"\\url{{https://zenodo.org/records/{record}}}" for record in records),
            )
    return "\n\n".join(entries.values()) + "\n"


def _of_reference(key: str, text: str, address: str = "") -> str:
    """An entry of `Authors: title, venue year` or `Authors: title. Venue year`."""
    authors, _, remainder = " ".join(text.split()).rstrip(".").partition(": ")
    pieces = re.split(r"(?<=\w)[.,] (?=\S)", remainder)
    title = [pieces[0]]
    while len(title) < len(pieces) and not _VENUE.match(pieces[len(title)]):
        title.append(pieces[len(title)])
    venue = ", ".join(pieces[len(title) :])
    years = re.findall(r"\b(?:19|20)\d{2}\b(?![.\d])", venue) or re.findall(r"\b20\d{2}\b", remainder)
    names = [name.removesuffix(" et al.") for name in authors.split(", ") if name != "et al."]
    others = " and others" if "et al." in authors else ""
    return _entry(
        key,
        author=" and ".join(names) + others,
        title="{" + ", ".join(title) + "}",
        howpublished=venue,
        year=years[-1] if years else "",
        url=address if address.startswith("http") else "",
    )


def _entry(key: str, **fields: str) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{key},", *lines, "}"])


def _words(value: Any) -> Iterator[str]:
    """Every text in nested mappings and sequences."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inside in value.values():
            yield from _words(inside)
    elif isinstance(value, (list, tuple)):
        for inside in value:
            yield from _words(inside)
