"""harken export: a model or a neural encoder, in a form that runs without torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, key_values, say


class Format(StrEnum):
    """File formats of exported encoders."""

    onnx = "onnx"


def export(
    encoder: Annotated[
        str,
        typer.Argument(
            help="A model, or a neural encoder that harken doctor lists.", metavar="MODEL", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model or file to write.", show_default=False)],
    format_: Annotated[Format, typer.Option("--format", help="File format.")] = Format.onnx,
    weights: Annotated[str | None, typer.Option(help="Encoder weights: a catalogue name or a file.")] = None,
    random: Annotated[bool, typer.Option("--random", help="Random weights, to try sizes and speed.")] = False,
    seconds: Annotated[
        float | None,
        typer.Option(help="Clip length in seconds (default: that of the model, else 10).", min=0.01),
    ] = None,
    any_length: Annotated[
        bool, typer.Option("--any-length", help="Accept clips of any length; few encoders support it.")
    ] = False,
    layer: Annotated[str | None, typer.Option(help="Encoder layer (default: the encoder's best).")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Round linear layers to 8 bits: smaller and faster.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="An encoder parameter, name=value.")] = None,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Recordings on which to compare the model and its export.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a model that needs no torch, for harken score; or one encoder as an ONNX file, waveform in, features out.

    Networks are compared with torch before they are kept.
    """
    from harken.core.errors import HarkenError

    if Path(encoder, "manifest.json").is_file() or Path(encoder).suffix == ".harken":
        if weights or random or any_length or layer or set_:
            raise HarkenError(
                "--weights, --random, --any-length, --layer and --set apply to encoders, not to models",
                next_step="Leave them out",
            )
        _export_model(Path(encoder), output, seconds, int8, compare or [], json)
        return
    if compare:
        raise HarkenError("--compare applies to models, not to encoders", next_step="Leave it out")
    seconds = seconds or 10.0
    from harken.embeddings.embedder import weights_digest
    from harken.encoders import create_encoder, encoder_class
    from harken.encoders.checkpoints import weights_for

    if not encoder_class(encoder).needs_weights:
        raise HarkenError(f"{encoder} has no network to export", next_step="It needs no torch: use it as it is")
    from harken.export.onnx import export_onnx

    if random and weights is not None:
        raise HarkenError("--random and --weights exclude each other", next_step="Leave one out")
    config, arrays = ({}, None) if random else weights_for(encoder, weights)
    try:
        built = create_encoder(encoder, {**config, **key_values(set_ or [])}, arrays)
        card = export_onnx(
            built,
            output,
            seconds=None if any_length else seconds,
            layer=layer,
            int8=int8,
            weights_sha256=None if arrays is None else weights_digest(arrays),
        )
    except (ValueError, TypeError) as error:
        raise HarkenError(str(error), next_step="Correct the setting") from None
    size = output.stat().st_size
    if json:
        emit({"file": str(output), "bytes": size, **card.model_dump()})
    length = "any length" if card.samples is None else f"{card.samples / card.sample_rate:g} s"
    say(
        f"{output}: {card.encoder} {card.layer}, clips of {length} at {card.sample_rate} Hz, {size / 2**20:.1f} MiB; "
        f"differs from torch by {card.max_abs_diff:.2g} at most"
        + (f", cosine similarity {card.similarity:.5f} after rounding to 8 bits" if card.int8 else "")
    )


def _export_model(
    model: Path, output: Path, seconds: float | None, int8: bool, compare: list[Path], as_json: bool
) -> None:
    from harken.audio.suffixes import DEFAULT_SUFFIXES
    from harken.core.errors import HarkenError
    from harken.data.folders import find_recordings
    from harken.export.model import NOTICEABLE, compare_scores, export_model
    from harken.monitor.detector import Detector

    if output.absolute() == model.absolute():
        raise HarkenError("the model would be overwritten", file=output, next_step="Choose another --output")
    files = find_recordings(compare, DEFAULT_SUFFIXES) if compare else []
    detector = Detector.load(model)
    made = export_model(detector, int8=int8, seconds=seconds)
    made.detector.save(output)
    size = sum(file.stat().st_size for file in output.iterdir())
    say(f"{output}: {size / 2**20:.1f} MiB, needs no torch; {made.detector.notes[-1]}")
    for card in made.cards:
        if card.int8:
            say(f"{card.encoder}: cosine similarity {card.similarity:.5f} after rounding to 8 bits")
    if made.difference > NOTICEABLE and not files:
        say("warning: scores may shift: measure it with --compare and recordings, or export without --int8")
    gap = compare_scores(detector, made.detector, files) if files else None
    if gap is not None:
        say(
            f"{gap.recordings} recordings scored by both: largest difference {gap.largest:.3g} "
            f"(alarm above {detector.threshold:.4g}), {gap.decisions} decisions changed"
        )
    if as_json:
        emit(
            {
                "model": str(output),
                "bytes": size,
                "vector_difference": made.difference,
                "score_difference": None if gap is None else gap.largest,
                "decisions_changed": None if gap is None else gap.decisions,
                "encoders": [card.model_dump() for card in made.cards],
            }
        )
