"""What every label policy does, as checks: of Harken's, and of custom ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harken.core.conformance import check_all, require
from harken.data.clips import Clip
from harken.data.labels import ClassKey, LabelPolicy, create_policy, label_clips

Make = Callable[[], LabelPolicy]


def check_label_policy(policy: str | type[LabelPolicy], parameters: Mapping[str, Any] | None = None) -> None:
    """Raise AssertionError, saying which check fails and how, unless the policy passes all of `CHECKS`.

    policy: a class, or any name that `label_clips` takes. parameters: of its constructor.
    """

    def make() -> LabelPolicy:
        return create_policy(policy, parameters) if isinstance(policy, str) else policy(**(parameters or {}))

    check_all(policy if isinstance(policy, str) else policy.__name__, CHECKS, make)


def classes_have_names(make: Make) -> None:
    """A clip's class is a ClassKey of texts, or None; training clips of two machines have two classes at least."""
    for clip in clips():
        key = make().class_of(clip)
        require(key is None or isinstance(key, ClassKey), f"It gives a {type(key).__name__}.")
        if key is not None:
            require(all(isinstance(text, str) for text in (*key.fields, key.attributes)), f"{key} holds no texts.")
    table = label_clips(clips(), make())
    require(len(table) >= 2, f"There are {len(table)} classes: nothing to classify.")


def only_metadata_count(make: Make) -> None:
    """A clip's class does not depend on its id, its file, or what clips were asked before."""
    policy, copy = make(), make()
    keys = [policy.class_of(clip) for clip in clips()]
    renamed = [replace(clip, clip_id=f"x{row}", path=Path(f"renamed {row}.flac")) for row, clip in enumerate(clips())]
    keys_of_renamed = [copy.class_of(clip) for clip in reversed(renamed)][::-1]
    require(keys == keys_of_renamed, "Renamed and in another order, clips are of other classes.")


def one_name_is_one_class(make: Make) -> None:
    """A class is attribute-free for all of its clips or for none."""
    free: dict[str, bool] = {}
    for clip in clips():
        key = make().class_of(clip)
        if key is not None:
            first = free.setdefault(key.name(()), key.attribute_free)
            require(first == key.attribute_free, f"{key.name(())} is both.")


CHECKS: tuple[Callable[[Make], None], ...] = (classes_have_names, only_metadata_count, one_name_is_one_class)


def clips() -> list[Clip]:
    """Training clips of two machines with attributes and without, supplemental ones, and one to be tested."""
    rows: list[Clip] = []

    def add(**fields: Any) -> None:
        name = str(len(rows))
        rows.append(Clip(name, Path(f"{name}.wav"), corpus="dcase2025", year=2025, condition="normal", **fields))

    for machine in ("fan", "valve"):
        for section in ("00", "01"):
            for domain in ("source", "target"):
                for attributes in ({}, {"spd": "1"}, {"spd": "2"}):
                    add(machine=machine, section=section, domain=domain, attributes=attributes, split="train")
        for kind in ("clean", "noise"):
            add(machine=machine, section="00", split="supplemental", kind=kind)
        add(machine=machine, section="00", split="test")
    return rows
