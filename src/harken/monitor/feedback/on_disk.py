"""A model on the disk learns from feedback, in versions that can be gone back to.

    list_versions(path)                    what each version is: kind, who, when, why, effect
    load_fitted(path, version)             an earlier version; Detector(...) of it judges
    change_model(path, change, ...)        one more version: `change` makes a ModelChange of the Fitted in use
    roll_back(path)                        the version before the last change, or another, is in use again

    heard = [Heard("2026-03-01 14:20:10", features, time_s=1772374810.0), ...]
    change = change_model("pump.harken", update, heard, who="ANNA", why="new recipe", origin="heard by the monitor")
    print(*change.effect.sentences(), sep="\\n")
    roll_back("pump.harken", who="ANNA", why="it was a fault after all")

`features` are what the model's embedder makes of the sound (`Embedder.features`), so that no old sound is needed. While
a version is made, other writers of the same model wait; readers do not, and a process that is killed leaves the version
before or the new one in use. A refused change (`ChangeRefused`) writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Concatenate, ParamSpec

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.monitor.feedback.change import ModelChange, time_text
from harken.monitor.feedback.effect import effect_of
from harken.monitor.fitted import Fitted
from harken.monitor.stored import add_fitted, load_fitted
from harken.monitor.versions import Version, check_texts, json_effect, list_versions, version_before

P = ParamSpec("P")


def change_model(
    path: str | Path,
    change: Callable[Concatenate[Fitted, P], ModelChange],
    /,
    *arguments: P.args,
    **options: P.kwargs,
) -> ModelChange:
    """Put what `change` makes of the version in use in its place; the version before is kept.

    change: such as `updating.update`, `known_faults.add_faults`, `rebaselining.rebaseline` or `change.set_alarm`, which
    has the other arguments, too. Raises BundleError where the model cannot be read or written, and what `change`
    raises: nothing is changed then.
    """
    made: list[ModelChange] = []

    def apply(fitted: Fitted) -> Fitted:
        made.append(change(fitted, *arguments, **options))
        return made[0].fitted

    add_fitted(path, apply)
    return made[0]


def roll_back(
    path: str | Path,
    *,
    who: str,
    why: str = "",
    origin: str = "",
    to: int | None = None,
    now: datetime | None = None,
) -> ModelChange:
    """What an earlier version learned and was set to is in use again, as one more version; known faults stay.

    to: its number (default: the version before the last change, see `version_before`). Raises HarkenError where there
    is none, or it is not kept.
    """
    check_texts(who, why, origin)

    def back(fitted: Fitted) -> ModelChange:
        versions = list_versions(path)
        if to == fitted.version.number:
            raise HarkenError(
                Sentence("version {number} is in use", number=to),
                file=path,
                next_step=Sentence("Choose an earlier one"),
            )
        target = version_before(versions) if to is None else Version(number=to)
        earlier = load_fitted(path, target.number)
        after = replace(earlier, faults=fitted.faults)
        effect = effect_of(fitted, after, "rollback")
        version = Version(
            number=fitted.version.number + 1,
            kind="rollback",
            who=who,
            when=time_text(now),
            why=why,
            origin=origin,
            recordings=len(after.training.names),
            parent=fitted.version.number,
            to=target.number,
            effect=json_effect(effect.as_json()),
        )
        return ModelChange(replace(after, version=version), effect)

    return change_model(path, back)
