"""generate: clips of rare conditions, by a generator that was trained."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from harken.audio.write import write_sound
from harken.bench.costs import Cost, PlannedStage
from harken.bench.expected import alike
from harken.bench.generation_costs import sampling_cost
from harken.bench.noises import file_stem
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.rare_conditions import RareConditionsStage
from harken.bench.stages.tables import Quarantined, write_clips
from harken.core.errors import AudioError, HarkenError
from harken.core.extras import require_packages
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.data.clips import Clip, derive
from harken.encoders.accelerator import default_device
from harken.encoders.spectrogram_file import SUFFIX, write_spectrogram
from harken.generation.conditions import ConditionKey, read_conditions
from harken.generation.generator import (
    ClipRequest,
    GeneratedSound,
    GeneratedSpectrogram,
    Generator,
    check_generator,
    load_generator,
    payload_of,
    requests_of,
    sampling_of,
)

#: what is kept of each clip, beside the table
DETAILS = "generated.json"


class GenerateStage(Stage):
    """`clips.parquet` and `audio/`: clips of kind `generated`, as many of each condition as its input says.

    `generated.json`: of each by its id the condition, caption, number, seed, generator, digest of its weights, and what
    the generator says of it. The first parent is a normal training clip of the condition: the reference, if the
    generator takes one.

    Clip by clip: what is done when it is killed is not done again.
    """

    makes = "clips"
    inputs: ClassVar = {"conditions": Input("conditions"), "generator": Input("generator")}
    scope = "all"
    seeded = True
    listens = True
    shards = True
    accelerated = True

    class Parameters(Settings):
        """generator: of which the input is; small_diffusion makes spectrograms. sampling: its settings, see its
        `Sampling`. format: of sounds; flac keeps 24 bits, wav is float. device: cpu, cuda, or `auto`, a GPU if there is
        one."""

        generator: str = "small_diffusion"
        sampling: dict[str, Any] = Field(default_factory=dict)
        format: Literal["flac", "wav"] = "flac"
        device: Literal["auto", "cpu", "cuda"] = "auto"

        def model_post_init(self, context: Any) -> None:
            """Refuse unknown generators, and settings that they have not."""
            check_generator(self.generator)
            sampling_of(self.generator, self.sampling)

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        require_packages(("torch", "diffusers"), "generators of sound")
        return {}

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Of the passes of all clips."""
        clips = [clip for rows in planned.clips for clip in rows]
        rows, _ = RareConditionsStage.conditions(planned.input("conditions").parameters, clips)
        count = sum(row.generate for row in rows)
        cost = sampling_cost(
            parameters.generator, planned, sampling_of(parameters.generator, parameters.sampling), count
        )
        cost.details = {"clips": count, **cost.details}
        return cost

    @classmethod
    def expected_clips(
        cls, parameters: Any, clips: Sequence[Clip], inputs: Mapping[str, tuple[Any, ...]]
    ) -> Sequence[Clip]:
        """See `Stage.expected_clips`."""
        (conditions,) = inputs["conditions"]
        rows: list[Clip] = []
        # What is wrong with a table is an error of its stage; a machine may have no normal clips.
        with suppress(HarkenError):
            wanted = [row for row in RareConditionsStage.conditions(conditions, clips)[0] if row.generate]
            payload = payload_of(parameters.generator)
            mark = f"#generated-{parameters.model_dump_json()}"
            for request in requests_of([replace(row, generate=1) for row in wanted], clips, 0):
                (count,) = (row.generate for row in wanted if row.key == request.condition)
                clip = request.reference
                made = derive(
                    clip, f"{clip.clip_id}{mark}-{request.condition}", clip.path, "generated", payload=payload,
                    **of_condition(request),
                )  # fmt: skip
                rows.append(alike(made, count))
        return rows

    @classmethod
    def run_shard(cls, parameters: Any, context: Context, index: int, count: int) -> None:
        made = _Generation(parameters, context)
        made.make(made.requests[index::count])

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        made = _Generation(parameters, context)
        rows = made.make(made.requests)
        (context.out / "audio").mkdir()
        clips, aside, details = [], [], {}
        for request, row in zip(made.requests, rows, strict=True):
            if "error" in row:
                aside.append(Quarantined(request.reference.clip_id, row["error"]))
                continue
            file = context.out / "audio" / row.pop("file")
            shutil.copyfile(context.scratch / file.name, file)
            clip = derive(
                request.reference, row.pop("clip_id"), file, "generated", **row.pop("form"), **of_condition(request)
            )
            clips.append(clip)
            details[clip.clip_id] = row
        (context.out / DETAILS).write_text(json_text(details, indent=1) + "\n")
        write_clips(context.out, clips, list(dict.fromkeys(aside)))


def of_condition(request: ClipRequest) -> dict[str, Any]:
    """What a clip has of its condition, not of its reference; nothing where that is of the condition."""
    return {} if ConditionKey.of(request.reference) == request.condition else request.condition.fields()


def read_details(folder: Path) -> dict[str, dict[str, Any]]:
    """What `generated.json` says of the clips of a stage, by their ids; nothing without such a file."""
    file = folder / DETAILS
    return dict(json.loads(file.read_text())) if file.is_file() else {}


class _Generation:
    """Clips generated into the scratch folder, each with a record beside it, by which it is known to be done."""

    def __init__(self, parameters: Any, context: Context) -> None:
        self.parameters, self.context = parameters, context
        conditions = read_conditions(context.folder("conditions") / "conditions.csv")
        self.requests = list(requests_of(conditions, context.clips, context.seed))
        device = default_device() if parameters.device == "auto" else parameters.device
        self.generator: Generator = load_generator(context.folder("generator"), parameters.sampling, device=device)
        # Generated otherwise they have other ids, so that several such stages can be learned from together.
        settings = [parameters.model_dump(mode="json", exclude={"device"}), context.seed, self.generator.digest]
        self.mark = hashlib.sha256(json_text(settings, sort_keys=True).encode()).hexdigest()[:8]

    def make(self, requests: Sequence[ClipRequest]) -> list[dict[str, Any]]:
        """Of each request its record."""
        waiting = [request for request in requests if not self._record(request).is_file()]
        size = self.generator.together
        for start in range(0, len(waiting), size):
            self._generate(waiting[start : start + size])
            self.context.progress(len(requests) - len(waiting) + min(start + size, len(waiting)), len(requests))
        return [json.loads(self._record(request).read_text()) for request in requests]

    def _id(self, request: ClipRequest) -> str:
        clip_id = f"{request.reference.clip_id}#generated-{self.mark}-{request.number}"
        if of_condition(request):
            # The condition of the reference may have clips of these numbers too.
            clip_id += f"-{hashlib.sha256(str(request.condition).encode(errors='surrogatepass')).hexdigest()[:8]}"
        return clip_id

    def _record(self, request: ClipRequest) -> Path:
        return self.context.scratch / f"{file_stem(self._id(request))}.json"

    def _generate(self, requests: Sequence[ClipRequest]) -> None:
        try:
            made = self.generator.generate(requests)
        except AudioError as error:
            if len(requests) > 1:
                for request in requests:
                    self._generate([request])
                return
            write_atomically(self._record(requests[0]), json_text({"error": str(error)}).encode())
            return
        for request, result in zip(requests, made, strict=True):
            self._write(request, result)

    def _write(self, request: ClipRequest, result: GeneratedSound | GeneratedSpectrogram) -> None:
        stem = self.context.scratch / file_stem(self._id(request))
        form: dict[str, Any]
        if isinstance(result, GeneratedSound):
            file = write_sound(stem, result.wave_CS, result.sample_rate, self.parameters.format)
            channels, frames = result.wave_CS.shape
            form = {"sample_rate": result.sample_rate, "channels": channels, "frames": frames}
        else:
            file = stem.with_name(stem.name + SUFFIX)
            write_spectrogram(file, result.spectrogram, result.front_end)
            form = {"sample_rate": result.front_end.sample_rate, "channels": 1, "frames": result.spectrogram.samples,
                    "payload": "spectrogram"}  # fmt: skip
        row = {
            "clip_id": self._id(request), "file": file.name, "form": form, "condition": str(request.condition),
            "caption": request.caption, "number": request.number, "seed": request.seed,
            "generator": self.generator.name, "model_sha256": self.generator.digest, **result.details,
        }  # fmt: skip
        write_atomically(self._record(request), json_text(row).encode())
