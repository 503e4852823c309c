"""Captions: machine type, section, domain and attributes of a clip as a sentence, by the templates of captions.toml."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict

from harken.data.clips import Clip
from harken.data.spelling import spelled_attributes, spelled_machine


class _SingleSection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    years: frozenset[int]


class _Templates(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    machine: str
    section: str
    domain: str
    attribute: str
    value: str
    single_section: _SingleSection
    machines: dict[str, str]


def caption(clip: Clip) -> str:
    """`the sound of a toy car, source domain, car A1, speed 28 V, microphone 1`.

    What is not known of a clip is left out. Clips of one machine have the same caption only if they are of one section,
    domain and condition.
    """
    templates = _templates()
    machine = templates.machines.get(clip.machine) or spelled_machine(clip.machine) or "machine"
    article = "an" if machine[0].lower() in "aeio" else "a"
    sentence = templates.machine.format(article=article, machine=machine)
    if clip.section and clip.year not in templates.single_section.years:
        sentence += templates.section.format(section=clip.section)
    if clip.domain != "unknown":
        sentence += templates.domain.format(domain=clip.domain)
    for name, value in spelled_attributes(clip.attributes, clip.year):
        sentence += (templates.attribute if name else templates.value).format(name=name, value=value)
    return sentence


@cache
def _templates() -> _Templates:
    text = resources.files("harken.generation").joinpath("captions.toml").read_text(encoding="utf-8")
    return _Templates.model_validate(tomllib.loads(text))
