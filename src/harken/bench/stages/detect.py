"""detect: a detector learns a machine's (or section's) normal embeddings and scores the test clips."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.tables import Scored, by_section, read_arrays, read_ids, write_arrays, write_scores
from harken.core.errors import HarkenError
from harken.core.plugins import blamed, check_name, code_identity
from harken.core.threads import one_thread
from harken.data.clips import origins
from harken.detection import create_detector, list_detectors
from harken.detection.calibration import Calibration, parse_rate


class DetectStage(Stage):
    """`scores.parquet` of the test clips; `train_scores.safetensors`: held-out scores of the training clips, a
    section; `thresholds.json`; `notes.json`: sections that could not be learned. Learns from training clips only; those
    of its input `clips` are some of them, but have no part in thresholds and held-out scores."""

    makes = "scores"
    inputs: ClassVar = {"embeddings": Input("embeddings"), "clips": Input("clips", optional=True, many=True)}
    payloads: ClassVar = ("sound", "spectrogram")

    class Parameters(Settings):
        """detector, parameters: of `harken.list_detectors()`, or one's own, `file.py:Class` or `package.module:Class`.
        model: one for each section, or one for the machine.
        false_alarms: share of normal clips that may be decided anomalous; the threshold comes from held-out scores.
        """

        detector: str = "local_density"
        parameters: dict[str, Any] = Field(default_factory=dict)
        model: Literal["section", "machine"] = "section"
        false_alarms: str = "10%"

        @field_validator("detector")
        @classmethod
        def _known(cls, detector: str) -> str:
            check_name("detector", detector, list_detectors())
            return detector

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        return code_identity(parameters.detector, parameters.parameters)

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        folder = context.folder("embeddings")
        kept, _ = read_ids(folder)
        embeddings = read_arrays(folder / "embeddings.safetensors")["embeddings"]
        row_of = {clip_id: row for row, clip_id in enumerate(kept)}
        rate = parse_rate(parameters.false_alarms, clip_seconds=10.0)
        groups = {
            split: {
                section: [row for row in rows if context.clips[row].clip_id in row_of]
                for section, rows in by_section(context.clips, split=split, derived=True).items()
            }
            for split in ("train", "test")
        }
        if parameters.model == "machine":
            groups = {
                split: {"all sections": [row for rows in sections.values() for row in rows]}
                for split, sections in groups.items()
            }
        origin_of = origins(context.clips)
        scored: list[Scored] = []
        held_out: dict[str, np.ndarray] = {}
        thresholds: dict[str, float] = {}
        left_out: list[HarkenError] = []
        for section, test in sorted(groups["test"].items()):
            train = groups["train"].get(section, [])
            where = f"{context.clips[0].machine} section {section}"
            if len(train) < 3:
                cause = f"{len(train)} training clips are too few to learn from"
                step = "Download the training data too, or leave the machine out with --machines"
                left_out.append(HarkenError(cause, file=where, next_step=step))
                continue
            vectors = {
                split: embeddings[[row_of[context.clips[row].clip_id] for row in rows]]
                for split, rows in (("train", train), ("test", test))
            }
            recorded_N = np.array([context.clips[row].recorded for row in train])
            blocks_N = None
            if not recorded_N.all():
                # What was made of one recording does not vouch for it, nor it for that.
                names = sorted({origin_of[context.clips[row].clip_id] for row in train})
                blocks_N = [2 * names.index(origin_of[context.clips[row].clip_id]) for row in train]
            detector = create_detector(parameters.detector, parameters.parameters)
            try:
                with one_thread(), blamed(parameters.detector):
                    detector.fit(vectors["train"], [context.clips[row].domain for row in train], blocks_N)
                    values = detector.score(vectors["test"])
                    for found, rows in ((detector.train_scores_, train), (values, test)):
                        if np.shape(found) != (len(rows),) or not np.isfinite(found).all():
                            raise ValueError("its scores are not one finite number a clip")
            except ValueError as error:
                raise HarkenError(str(error), file=where, next_step="Check its training clips") from error
            # Test clips are recordings: what was made of others says nothing of their scores.
            held_out[section] = detector.train_scores_[recorded_N] if recorded_N.any() else detector.train_scores_
            thresholds[section] = Calibration.fit(held_out[section]).threshold(rate)
            for row, score in zip(test, values, strict=True):
                clip = context.clips[row]
                decision = int(score > thresholds[section])
                scored.append(Scored(clip.clip_id, clip.machine, clip.section, clip.path.name, float(score), decision))
        write_scores(context.out, scored)
        (context.out / "notes.json").write_text(json.dumps([str(error) for error in left_out]))
        write_arrays(context.out / "train_scores.safetensors", **held_out)
        (context.out / "thresholds.json").write_text(json.dumps(thresholds))
