"""labels: the classes that an encoder is trained to tell apart."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator

from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.core.errors import HarkenError
from harken.core.plugins import check_name, code_identity
from harken.data.labels import label_clips, list_policies


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
    def run(cls, parameters: Any, context: Context) -> None:
        clips = [clip for clip in context.clips if parameters.years is None or clip.year in parameters.years]
        table = label_clips(
            clips, parameters.policy, pool_years=parameters.pool_years, parameters=parameters.parameters
        )
        if len(table) < 2:
            raise HarkenError(
                f"there is nothing to tell apart: {len(table)} classes among {len(clips)} clips by the policy "
                f"{parameters.policy}",
                next_step="Add machines or years, or choose another policy",
            )
        table.write(context.out / "classes.json")
        (context.out / "classes.txt").write_text(table.to_text())
