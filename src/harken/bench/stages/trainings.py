"""What stages that train have in common: whose clips they learn from, and what they leave beside the weights."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from harken.bench.stages.base import Context
from harken.bench.stages.tables import Quarantined, write_ids
from harken.core.json_text import json_text
from harken.data.clips import Clip


def chosen_years(years: tuple[int, ...] | None, clips: Sequence[Clip]) -> list[Clip]:
    """Clips of these years; None is all."""
    return [clip for clip in clips if years is None or clip.year in years]


def write_training(
    context: Context, history: Sequence[dict[str, Any]], clips: Sequence[Clip], quarantined: dict[str, str]
) -> None:
    """What a training leaves beside its weights."""
    shutil.copyfile(context.scratch / "training.json", context.out / "training.json")
    context.logs.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(context.scratch / "made_with.json", context.logs / "made_with.json")
    (context.out / "history.json").write_text(json_text({"evaluations": list(history)}, indent=1) + "\n")
    aside = [Quarantined(clip_id, reason) for clip_id, reason in sorted(quarantined.items())]
    write_ids(context.out, [clip.clip_id for clip in clips if clip.clip_id not in quarantined], aside)
