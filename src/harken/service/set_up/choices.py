"""What can be listened to from here, and the entries of what a person has chosen."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import urlsplit

from harken.core.errors import HarkenError
from harken.core.names import alike, shown, why_no_file_name
from harken.core.sentences import Sentence
from harken.service.assembly import make_source
from harken.service.configuration.model import SOURCES, FolderEntry
from harken.service.set_up.folder import SetUpFolder
from harken.service.sources.base import SoundSource, microphones_are

Kind = Literal["microphone", "stream", "folder"]
#: of streams: addresses of a network, and nothing that leads to files of this computer
SCHEMES = ("rtsp", "rtsps", "http", "https", "srt", "rtmp", "rtmps", "udp", "rtp")
LONGEST_NAME, LONGEST_ADDRESS = 60, 2000


def microphones() -> list[str]:
    """Names of the inputs of this computer; none where there are no packages for them."""
    from harken.service.sources.microphone import input_devices

    # PortAudio may raise errors of its own, of which there is no list without it.
    with suppress(Exception):
        return list(dict.fromkeys(input_devices()))
    return []


def source_entry(place: SetUpFolder, kind: Kind, choice: str) -> dict[str, Any]:
    """The entry of a source, as in a configuration.

    choice: a device (empty: the system's default), an address, or a folder below that of the set-up.
    Raises HarkenError for what is none.
    """
    choice = choice.strip()
    if kind == "microphone":
        devices = microphones()
        if choice and choice not in devices:
            raise HarkenError(
                Sentence("there is no microphone {choice!r}", choice=shown(choice)),
                next_step=microphones_are(devices),
            )
        return {"kind": "microphone", "device": choice} if choice else {"kind": "microphone"}
    if kind == "stream":
        try:
            address = urlsplit(choice)
            well = address.scheme in SCHEMES and bool(address.hostname) and choice.isprintable()
        except ValueError:
            well = False
        if not well or len(choice) > LONGEST_ADDRESS or any(char.isspace() for char in choice):
            raise HarkenError(
                Sentence("that is no address of a stream"),
                next_step=Sentence("Write rtsp://HOST/PATH, or http://HOST/PATH"),
            )
        return {"kind": "stream", "url": choice}
    place.below(choice)
    return {"kind": "folder", "path": choice}


def machine_name(name: str, others: Collection[str]) -> str:
    """A name that files, topics and labels can have. Raises HarkenError for one that cannot be, or is another's."""
    name = name.strip()
    reason = why_no_file_name(name)
    if reason is None and set(name) & set("+#${}%"):
        reason = Sentence("has one of + # $ {{ }} %")
    if reason is None and name.startswith("."):
        reason = Sentence("begins with a full stop")
    if reason is None and len(name) > LONGEST_NAME:
        reason = Sentence("is longer than {most} characters", most=LONGEST_NAME)
    if reason is not None:
        raise HarkenError(
            Sentence("{name!r} is no name for a machine: it {reason}", name=shown(name), reason=reason),
            next_step=Sentence("Write letters, digits, and - _ or blanks between them"),
        )
    if name in others or alike([*others, name]) is not None:
        raise HarkenError(
            Sentence("there is a machine {name!r} already", name=name), next_step=Sentence("Give this one another name")
        )
    return name


def source_of(place: SetUpFolder, source: dict[str, Any], machine: str) -> SoundSource:
    """The source of an entry, from its beginning. Raises HarkenError where it cannot be listened to at all."""
    entry = SOURCES[source["kind"]].model_validate(source)
    if isinstance(entry, FolderEntry):
        entry = entry.model_copy(update={"path": place.below(str(entry.path))})
    return make_source(entry, [machine], resume={})


def shown_source(source: dict[str, Any]) -> str:
    """Device, address or folder as people may see it."""
    return without_password(str(next((value for key, value in source.items() if key != "kind"), "")))


def without_password(choice: str) -> str:
    """An address without what may be a password: all before the host, and parameters."""
    scheme, mark, address = choice.partition("://")
    if not mark:
        return choice
    host, slash, path = address.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
