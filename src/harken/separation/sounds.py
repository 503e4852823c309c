"""What there is of each machine to train a separator on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from harken.data.clips import Clip

#: guided: by clean sound of the machine. invariant: by noise alone
Mode = Literal["guided", "invariant"]


@dataclass(frozen=True)
class MachineSounds:
    """Clips of one machine: supplemental clean ones and noise, and its normal training clips; each in order of ids."""

    clean: tuple[Clip, ...]
    noise: tuple[Clip, ...]
    normal: tuple[Clip, ...]

    @property
    def mode(self) -> Mode | None:
        """How it can be learned; None without supplemental clips, and for noise without a recording it is in."""
        if self.clean:
            return "guided"
        return "invariant" if self.noise and self.normal else None


def machine_key(clip: Clip) -> str:
    """Machines of the same name in several corpora are different ones: `dcase2025/fan`."""
    return "/".join(filter(None, (clip.corpus, clip.machine)))


def sounds_of(clips: Iterable[Clip]) -> dict[str, MachineSounds]:
    """Sounds of each machine, by its key in order; recordings only, and none of a test split."""
    rows: Mapping[str, dict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    for clip in sorted(clips, key=lambda clip: clip.clip_id):
        if not clip.recorded or not clip.machine or clip.payload != "sound" or clip.condition == "anomaly":
            continue
        if clip.split == "supplemental" and clip.kind in ("clean", "noise"):
            rows[machine_key(clip)][clip.kind].append(clip)
        elif clip.split == "train" and clip.kind == "machine" and clip.condition == "normal":
            rows[machine_key(clip)]["normal"].append(clip)
    return {
        key: MachineSounds(*(tuple(kinds.get(kind, ())) for kind in ("clean", "noise", "normal")))
        for key, kinds in sorted(rows.items())
    }
