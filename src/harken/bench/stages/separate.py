"""separate: the machine in every clip, without the factory."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from harken.audio.listen import listen
from harken.audio.write import write_sound
from harken.bench import devices, estimate
from harken.bench.costs import Cost, PlannedStage, seconds_by_precision
from harken.bench.expected import number_of
from harken.bench.noises import file_stem
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.tables import Quarantined, write_clips
from harken.bench.stages.train_separator import read_separators
from harken.core.errors import AudioError
from harken.core.extras import require_packages
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.data.clips import Clip, derive
from harken.encoders.accelerator import default_device
from harken.separation.sounds import machine_key

#: seconds for which a clip passes the network at once; longer ones in chunks
CHUNK_SECONDS = 12.0


class SeparateStage(Stage):
    """`clips.parquet` and `audio/`: the machine in the recorded clips of the chosen splits, of kind `separated`, at
    their rate, length and level; no clips of a machine without a separator.

    Clip by clip: what is done when it is killed is not done again. Clips made of test clips have no labels and are
    no official test clips.
    """

    makes = "clips"
    inputs: ClassVar = {"separator": Input("separator")}
    listens = True
    shards = True
    accelerated = True
    from_tests = True

    class Parameters(Settings):
        """splits: whose clips are separated. years: of which; None is all. format: flac keeps 24 bits, wav is float.
        device: cpu, cuda, or `auto`, a GPU if there is one."""

        splits: tuple[Literal["train", "test", "supplemental"], ...] = Field(("train", "test"), min_length=1)
        years: tuple[int, ...] | None = None
        format: Literal["flac", "wav"] = "flac"
        device: Literal["auto", "cpu", "cuda"] = "auto"

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        require_packages(("torch",), "separators")
        return {}

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Of one pass per clip and channel, as if every machine had a separator."""
        chosen = [[clip for clip in clips if _is_chosen(parameters, clip)] for clips in planned.clips]
        cost = Cost(details={"clips": sum(map(number_of, chosen))})
        if estimate.why_not() is not None:
            return cost
        separator, machine = planned.input("separator").parameters, devices.this_machine(1)
        training = separator.training
        # As counted for the training; the share of attention, which grows faster, is small in chunks.
        counts = estimate.count_separator(separator.architecture(), training.seconds, training.batch)
        for clips in chosen:
            seconds, channels, _ = planned.form(clips) if clips else (1.0, 1, 0)
            work = counts.forward * (number_of(clips) * channels * seconds / training.seconds)
            cost.seconds.append(machine.seconds(work))
            cost.device_seconds.append(seconds_by_precision(planned.device, work, "fp32"))
            at_once = math.ceil(channels * min(seconds, CHUNK_SECONDS) / training.seconds)
            for device, name in ((machine, "memory"), (planned.device, "device_memory")):
                memory = estimate.embedding_memory(counts, device, at_once)
                setattr(cost, name, max(getattr(cost, name) or 0.0, memory))
        return cost

    @classmethod
    def expected_clips(
        cls, parameters: Any, clips: Sequence[Clip], inputs: Mapping[str, tuple[Any, ...]]
    ) -> Sequence[Clip]:
        """See `Stage.expected_clips`."""
        settings = parameters.model_dump_json()
        chosen = [clip for clip in clips if _is_chosen(parameters, clip)]
        return [derive(clip, f"{clip.clip_id}#separated-{settings}", clip.path, "separated") for clip in chosen]

    @classmethod
    def run_shard(cls, parameters: Any, context: Context, index: int, count: int) -> None:
        chosen = [clip for clip in context.clips if _is_chosen(parameters, clip)]
        _Separation(parameters, context).make(chosen[index::count])

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        chosen = [clip for clip in context.clips if _is_chosen(parameters, clip)]
        made = _Separation(parameters, context).make(chosen)
        (context.out / "audio").mkdir()
        clips, aside = [], []
        for clip, row in zip(chosen, made, strict=True):
            if row is None:
                continue
            if "error" in row:
                aside.append(Quarantined(clip.clip_id, row["error"]))
                continue
            file = context.out / "audio" / row.pop("file")
            shutil.copyfile(context.scratch / file.name, file)
            clips.append(derive(clip, row.pop("clip_id"), file, "separated", **row))
        write_clips(context.out, clips, aside)


def _is_chosen(parameters: Any, clip: Clip) -> bool:
    of_years = parameters.years is None or clip.year in parameters.years
    return clip.recorded and clip.payload == "sound" and clip.split in parameters.splits and of_years


class _Separation:
    """Clips separated into the scratch folder, each with a record beside it, by which it is known to be done."""

    def __init__(self, parameters: Any, context: Context) -> None:
        self.parameters, self.context = parameters, context
        self.file_of = read_separators(context.folder("separator"))
        self._read: dict[Path, Any] = {}
        # Separated with other settings they have other ids, so that several such stages can be learned from together.
        settings = json_text([parameters.model_dump(mode="json", exclude={"device"}), context.seed], sort_keys=True)
        self.mark = hashlib.sha256(settings.encode()).hexdigest()[:8]

    def make(self, clips: Sequence[Clip]) -> list[dict[str, Any] | None]:
        """Of each clip its record; None where its machine has no separator."""
        rows: list[dict[str, Any] | None] = []
        for number, clip in enumerate(clips):
            file = self.file_of.get(machine_key(clip))
            rows.append(None if file is None else self._record(clip, file))
            self.context.progress(number + 1, len(clips))
        return rows

    def _record(self, clip: Clip, separator: Path) -> dict[str, Any]:
        clip_id = f"{clip.clip_id}#separated-{self.mark}"
        stem = self.context.scratch / file_stem(clip_id)
        record = stem.with_suffix(".json")
        if not record.is_file():
            row = self._separated(clip, clip_id, stem, separator)
            write_atomically(record, json_text(row).encode())
        return dict(json.loads(record.read_text()))

    def _separated(self, clip: Clip, clip_id: str, stem: Path, separator: Path) -> dict[str, Any]:
        try:
            sound = listen(clip.path)
        except AudioError as error:
            return {"error": str(error)}
        machine_CS = self._separator(separator).separate(sound.wave_CS, sound.sample_rate)
        file = write_sound(stem, machine_CS, sound.sample_rate, self.parameters.format)
        channels, frames = machine_CS.shape
        return {"clip_id": clip_id, "file": file.name, "sample_rate": sound.sample_rate, "channels": channels,
                "frames": frames}  # fmt: skip

    def _separator(self, file: Path) -> Any:
        from harken.separation.separator import load_separator

        if file not in self._read:
            device = default_device() if self.parameters.device == "auto" else self.parameters.device
            self._read[file] = load_separator(file).to(device)
        return self._read[file]
