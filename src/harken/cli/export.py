"""harken export: a neural encoder -> one file that runs without torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, key_values, say


class Format(StrEnum):
    onnx = "onnx"


def export(
    encoder: Annotated[str, typer.Argument(help="A neural encoder that harken doctor lists.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)],
    format_: Annotated[Format, typer.Option("--format", help="Of the file.")] = Format.onnx,
    weights: Annotated[str | None, typer.Option(help="Encoder weights: a catalogue name or a file.")] = None,
    random: Annotated[bool, typer.Option("--random", help="Random weights, to try sizes and speed.")] = False,
    seconds: Annotated[float, typer.Option(help="Length of the clips that the file takes.", min=0.01)] = 10.0,
    any_length: Annotated[
        bool, typer.Option("--any-length", help="Take clips of any length, which few encoders allow.")
    ] = False,
    layer: Annotated[str | None, typer.Option(help="Encoder layer (default: the encoder's best).")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Round linear layers to 8 bits: smaller and faster.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="An encoder parameter, name=value.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what the file says about itself as JSON.")] = False,
) -> None:
    """Write an encoder, waveform in and features out, for ONNX Runtime; compared with torch before it is kept."""
    from harken.core.errors import HarkenError
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
