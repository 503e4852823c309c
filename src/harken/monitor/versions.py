"""Versions of a model: what made each, who, when and why. Their manifests are beside that of the version in use.

A model that was only fitted is its first version. Each change of it is one more, with the next number; going back to
an earlier version is a change as well, so that nothing that was ever in use is rewritten. The latest
`manifests.MOST_VERSIONS` and the first are kept, and share the arrays that are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from harken.core.errors import BundleError, HarkenError
from harken.core.names import shown
from harken.core.sentences import Sentence
from harken.monitor.manifests import checked_manifest, earlier_versions, manifest_data, manifest_of, version_number

ChangeKind = Literal["fit", "update", "fault", "rebaseline", "rollback", "set-alarm"]

_KEY = "version"
#: longest text of who changed a model and why
_LONGEST = 1000


@dataclass(frozen=True)
class Version:
    """One version of a model.

    number: from 1. kind: what made it. who, why: as given. when: in UTC, ISO 8601; empty for `fit`, since the same
    recordings give the same bytes. recordings: normal ones that it learned from, of which `added` are new in it; of
    known faults for `fault`. origin: where those came from. parent: number of the version before. to: the version
    gone back to, for `rollback`. forced: whether a check was overruled. effect: what the change did, see
    `effect.Effect`. sha256: of its own manifest, where it was read from one.
    """

    number: int = 1
    kind: ChangeKind = "fit"
    who: str = ""
    when: str = ""
    why: str = ""
    recordings: int = 0
    added: int = 0
    origin: str = ""
    parent: int | None = None
    to: int | None = None
    forced: bool = False
    effect: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def as_json(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        return asdict(self)

    @property
    def sentence(self) -> str:
        """It on one line."""
        by = f" by {shown(self.who)}" if self.who else ""
        change = f"{self.kind} (back to {self.to})" if self.to is not None else self.kind
        added = f", {self.added} new" if self.added else ""
        forced = ", forced" if self.forced else ""
        why = f": {shown(self.why)}" if self.why else ""
        return f"{self.number}  {self.when or '-'}  {change}{by}{forced}, {self.recordings} recordings{added}{why}"


FIRST = Version()


def stored_version(version: Version) -> dict[str, Any]:
    """The entry of a bundle's settings; none for what was only fitted."""
    if version.number == 1:
        return {}
    return {_KEY: {name: value for name, value in version.as_json().items() if name != "sha256"}}


def version_of(settings: Mapping[str, Any]) -> Version:
    """From the settings of a bundle. Raises ValueError or TypeError for what is no version."""
    stored = settings.get(_KEY)
    if stored is None:
        return Version(recordings=len(settings.get("names", ())))
    version_number(settings)
    version = Version(**stored)
    texts = (version.who, version.when, version.why, version.origin)
    counts = (version.recordings, version.added, version.parent or 0, version.to or 0)
    if not all(isinstance(text, str) and len(text) <= _LONGEST for text in texts) or version.sha256:
        raise ValueError("a version of other texts")
    if not all(type(count) is int and count >= 0 for count in counts) or type(version.forced) is not bool:
        raise ValueError("a version of other numbers")
    if version.kind not in get_args(ChangeKind) or not isinstance(version.effect, dict):
        raise ValueError("a version of another kind")
    return version


def list_versions(path: str | Path) -> list[Version]:
    """All versions of a model that are kept, the one in use last.

    Raises BundleError where the model cannot be read; an earlier version that cannot be read is left out.
    """
    path = Path(path)
    current = manifest_data(path)
    in_use = _version(path, checked_manifest(path, current), current)
    versions = []
    for number, file in earlier_versions(path).items():
        if number < in_use.number:
            try:
                manifest = manifest_of(path, current, number)
                versions.append(_version(path, manifest, file.read_bytes()))
            except (BundleError, OSError):
                continue
    return [*versions, in_use]


def _version(path: Path, manifest: Mapping[str, Any], data: bytes) -> Version:
    try:
        return replace(version_of(manifest["about"]), sha256=hashlib.sha256(data).hexdigest())
    except (ValueError, TypeError) as error:
        raise BundleError(
            Sentence("is no model: {reason}", reason=str(error)), file=path, next_step=Sentence("Fit the model again")
        ) from None


def version_before(versions: list[Version]) -> Version:
    """The one that undoing the last change goes back to: that before what is in use, whatever brought it back.

    Raises HarkenError where there is none.
    """
    of_number = {version.number: version for version in versions}
    version = versions[-1]
    while version.to is not None and version.to in of_number:
        version = of_number[version.to]
    earlier = [number for number in of_number if number < version.number]
    if not earlier:
        raise HarkenError(
            Sentence("version {number} is the first that is kept: there is none to go back to", number=version.number),
            next_step=Sentence("See harken model show"),
        )
    return of_number[max(earlier)]


def check_texts(who: str, why: str, origin: str = "") -> None:
    """Raise HarkenError unless they can be kept: who is named, and no text is longer than anybody reads."""
    if not who.strip():
        raise HarkenError(
            Sentence("a change of a model needs the name of who made it"), next_step=Sentence("Give it (--who)")
        )
    for name, text in (("who", who), ("why", why), ("origin", origin)):
        if len(text) > _LONGEST:
            raise HarkenError(
                Sentence("{name} has {count} letters", name=name, count=len(text)),
                next_step=Sentence("Give at most {most}", most=_LONGEST),
            )


def json_effect(effect: Mapping[str, Any]) -> dict[str, Any]:
    """What an effect is once it was stored and read again."""
    return json.loads(json.dumps(effect, allow_nan=False))
