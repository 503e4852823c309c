"""detect: a detector learns a machine's (or section's) normal embeddings and scores the test clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.separated_scores import BothScores, Separated, separated_of
from harken.bench.stages.tables import by_section, read_arrays, read_row_of, score_rows
from harken.core.errors import HarkenError
from harken.core.json_text import json_text
from harken.core.plugins import check_name, code_identity, custom_names, located_errors
from harken.core.threads import one_thread
from harken.data.clips import Clip, origins
from harken.detection import create_detector, list_detectors
from harken.detection.calibration import Calibration
from harken.detection.rates import parse_rate
from harken.evaluation.scores import ScoreRow, Scores, write_scores

#: training clips that a detector needs
FEWEST = 3


class DetectStage(Stage):
    """`scores.parquet`: scores of the test clips and held-out scores of the training clips; `thresholds.json`;
    `notes.json`: sections that could not be learned. Learns from training clips only; those of its input `clips` are
    some of them, but have no part in thresholds and held-out scores."""

    version = 3

    makes = "scores"
    brief = True
    inputs: ClassVar = {"embeddings": Input("embeddings"), "clips": Input("clips", optional=True, many=True)}
    payloads: ClassVar = ("sound", "spectrogram")

    class Parameters(Settings):
        """detector, parameters: of `harken.list_detectors()`, or one's own, `file.py:Class` or `package.module:Class`.
        model: one for each section, or one for the machine.
        false_alarms: share of normal clips that may be decided anomalous; the threshold comes from held-out scores.
        separated: what the scores of separated test clips are for, see `Separated`. Sections that have none keep the
        scores of their recordings.
        """

        detector: str = "local_density"
        parameters: dict[str, Any] = Field(default_factory=dict)
        model: Literal["section", "machine"] = "section"
        false_alarms: str = "10%"
        separated: Separated = "apart"

        @field_validator("detector")
        @classmethod
        def _known(cls, detector: str) -> str:
            check_name("detector", detector, list_detectors())
            return detector

        @model_validator(mode="after")
        def _parameters_are_its(self) -> Self:
            # Custom classes are loaded when they run.
            if not custom_names([self.detector, self.parameters]):
                try:
                    create_detector(self.detector, self.parameters).check_parameters()
                except HarkenError as error:
                    raise ValueError(str(error).rstrip(".")) from None
            return self

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        # Keys of detectors without separated clips are as before there were any.
        unchanged = {"separated"} if parameters.separated == "apart" else set()
        values = {"parameters": parameters.model_dump(mode="json", exclude=unchanged)}
        return values | code_identity(parameters.detector, parameters.parameters)

    @classmethod
    def scored_sections(
        cls, parameters: Any, clips: Sequence[Clip], inputs: Sequence[frozenset[str]]
    ) -> frozenset[str]:
        """Those with training clips enough; where a model is fitted on a machine, all of them or none."""
        train, test = by_section(clips, split="train"), by_section(clips, split="test")
        if parameters.model == "machine":
            return frozenset(test if sum(map(len, train.values())) >= FEWEST else ())
        return frozenset(section for section in test if len(train.get(section, ())) >= FEWEST)

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        folder = context.folder("embeddings")
        embeddings = read_arrays(folder / "embeddings.safetensors")["embeddings"]
        row_of = read_row_of(folder)
        rate = parse_rate(parameters.false_alarms, 10.0)
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
        scored: list[ScoreRow] = []
        thresholds: dict[str, float] = {}
        partner_of = {} if parameters.separated == "apart" else separated_of(context.clips)
        notes: list[str] = []
        for section, test in sorted(groups["test"].items()):
            train = groups["train"].get(section, [])
            where = f"{context.clips[0].machine} section {section}"
            if len(train) < FEWEST:
                cause = f"{len(train)} training clips are too few to learn from"
                step = "Download the training data too, or leave the machine out with --machines"
                notes.append(str(HarkenError(cause, file=where, next_step=step)))
                continue
            recordings = [context.clips[row] for row in test]
            partners = {partner_of.get(clip.clip_id) for clip in recordings}
            separated = [
                row for row, clip in enumerate(context.clips) if clip.clip_id in partners and clip.clip_id in row_of
            ]
            tested = [*test, *separated]
            vectors = {
                split: embeddings[[row_of[context.clips[row].clip_id] for row in rows]]
                for split, rows in (("train", train), ("test", tested))
            }
            recorded_N = np.array([context.clips[row].recorded for row in train])
            blocks_N = None
            if not recorded_N.all():
                # What was made of one recording does not vouch for it, nor it for that.
                names = sorted({origin_of[context.clips[row].clip_id] for row in train})
                blocks_N = [2 * names.index(origin_of[context.clips[row].clip_id]) for row in train]
            detector = create_detector(parameters.detector, parameters.parameters)
            try:
                with one_thread(), located_errors(parameters.detector):
                    detector.fit(vectors["train"], [context.clips[row].domain for row in train], blocks_N)
                    tested_T = detector.score(vectors["test"])
                    for scores_N, rows in ((detector.train_scores_, train), (tested_T, tested)):
                        if np.shape(scores_N) != (len(rows),) or not np.isfinite(scores_N).all():
                            raise ValueError("its scores are not one finite number per clip")
            except (ValueError, TypeError) as error:
                raise HarkenError(
                    str(error),
                    file=where,
                    next_step=f"Check the parameters of {parameters.detector} in the recipe, and its training clips",
                ) from error
            # Test clips are recordings: what was made of others says nothing of their scores.
            counted_N = recorded_N if recorded_N.any() else np.ones(len(train), dtype=bool)
            values, held_out_S = tested_T[: len(test)], detector.train_scores_[counted_N]
            counted = [context.clips[row] for row, counts in zip(train, counted_N, strict=True) if counts]
            if separated:
                held, both = (
                    BothScores.of([clip.clip_id for clip in clips], _by_id(context.clips, rows, of), partner_of)
                    for clips, rows, of in ((counted, train, detector.train_scores_), (recordings, tested, tested_T))
                )
                values, held_out_S = (scores.joined(parameters.separated, held) for scores in (both, held))
                if both.lacking:
                    notes.append(f"{where}: {both.lacking} test clips without separated clips count twice")
            elif parameters.separated != "apart":
                notes.append(f"{where}: {len(test)} test clips without separated clips keep their scores")
            thresholds[section] = Calibration.fit(held_out_S).threshold(rate)
            scored += score_rows(recordings, values, thresholds[section])
            scored += score_rows(counted, held_out_S)
        write_scores(Scores.of_rows(scored, fitted_on=parameters.model), context.out / "scores.parquet")
        (context.out / "notes.json").write_text(json_text(notes))
        (context.out / "thresholds.json").write_text(json_text(thresholds))


def _by_id(clips: Sequence[Clip], rows: Sequence[int], scores_N: NDArray[np.float64]) -> dict[str, float]:
    return {clips[row].clip_id: float(score) for row, score in zip(rows, scores_N, strict=True)}
