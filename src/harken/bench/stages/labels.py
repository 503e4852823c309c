"""labels: the classes that an encoder is trained to recognise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator

from harken.bench.costs import Cost, PlannedStage
from harken.bench.expected import classes_are_whole, number_of
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.core.errors import HarkenError
from harken.core.plugins import check_name, code_identity
from harken.data.clips import Clip
from harken.data.labels import UNUSED, ClassTable, label_clips, list_policies


class LabelsStage(Stage):
    """`classes.json`: a `ClassTable` of the training clips of all machines; `classes.txt`: the same to be read."""

    makes = "labels"
    inputs: ClassVar = {"clips": Input("clips", optional=True, many=True)}
    payloads: ClassVar = ("sound", "spectrogram")
    scope = "all"

    class Parameters(Settings):
        """policy, parameters, pool_years: see `label_clips`; a custom policy is `file.py:Class`. years: which to train
        on; None is all there are."""

        policy: str = "thuee"
        parameters: dict[str, Any] = Field(default_factory=dict)
        pool_years: bool = False
        years: tuple[int, ...] | None = None

        @field_validator("policy")
        @classmethod
        def _known(cls, policy: str) -> str:
            check_name("policy", policy, list_policies())
            return policy

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        return code_identity(parameters.policy, parameters.parameters)

    @classmethod
    def classes(cls, parameters: Any, clips: Sequence[Clip]) -> ClassTable:
        chosen = [clip for clip in clips if parameters.years is None or clip.year in parameters.years]
        table = label_clips(
            chosen, parameters.policy, pool_years=parameters.pool_years, parameters=parameters.parameters
        )
        if len(table) < 2:
            raise HarkenError(
                f"there is nothing to classify: {len(table)} classes among {number_of(chosen)} clips by the policy "
                f"{parameters.policy}",
                next_step="Add machines or years, or choose another policy",
            )
        return table

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Classes and clips; the time is left out."""
        table = planned.classes
        if table is None or not planned.clips:
            return Cost()
        used = number_of(clip for clip in planned.clips[0] if table.class_of.get(clip.clip_id, UNUSED) != UNUSED)
        details: dict[str, Any] = {
            "classes": len(table), "attribute_free": len(table.attribute_free_classes), "clips": used,
        }  # fmt: skip
        years = {clip.year for clips in planned.clips for clip in clips if clip.year is not None}
        if planned.expected and not classes_are_whole(parameters.years or years):
            details["at_least"] = True
        return Cost(details=details)

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        table = cls.classes(parameters, context.clips)
        table.write(context.out / "classes.json")
        (context.out / "classes.txt").write_text(table.to_text())
