"""harken generate: more clips of a machine's operating condition."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, line, progress, say
from harken.core.names import shown


def generate(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of normal recordings, one sub-folder per class.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what is written.", show_default=False)],
    name: Annotated[
        str | None, typer.Option("--class", help="Sub-folder whose clips are generated.", show_default=False)
    ] = None,
    number: Annotated[int, typer.Option("--number", "-n", help="Clips to generate.", min=1, max=100_000)] = 10,
    encoder: Annotated[str, typer.Option("--encoder", help="Encoder that is to learn from the clips.")] = "beats",
    size: Annotated[str, typer.Option("--size", help="Of the network: tiny, compact or small.")] = "compact",
    steps: Annotated[int, typer.Option("--steps", help="Steps of the training.", min=1)] = 2000,
    sampling_steps: Annotated[int, typer.Option("--sampling-steps", help="Steps per clip.", min=1, max=1000)] = 50,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", help="Length of a clip; default: of the recordings, at most 10.", min=0.1),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of all that is drawn.", min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per clip.")] = False,
) -> None:
    """Learn the recordings of a machine and generate more of one class: spectrograms to train on, and previews in WAV.

    Previews are for the ear alone: a spectrogram has no phase, and what they sound like is not what a microphone would
    record.
    """
    from harken.audio.suffixes import DEFAULT_SUFFIXES
    from harken.core.errors import HarkenError, did_you_mean
    from harken.core.extras import require_packages
    from harken.data.folders import recordings_of
    from harken.encoders.accelerator import default_device
    from harken.generation.diffusion_settings import SIZES, FrontEndSpec

    require_packages(("torch", "accelerate", "diffusers"), "generators of sound")
    from harken.generation.machine_clips import classes_of_folder, generate_clips, train_on_folder

    if not folder.is_dir():
        raise HarkenError("is not a folder", file=folder, next_step="Name a folder of normal recordings")
    if output.exists() and not output.is_dir():
        raise HarkenError("is a file", file=output, next_step="Name a folder (-o)")
    if output.resolve() == folder.resolve() or folder.resolve() in output.resolve().parents:
        raise HarkenError(
            "is among the recordings, and would be learned from", file=output, next_step="Name another folder (-o)"
        )
    if size not in SIZES:
        raise HarkenError(f"there is no size {size!r}", next_step=did_you_mean(size, SIZES))
    try:
        FrontEndSpec(encoder=encoder)
    except ValueError as error:
        raise HarkenError(f"there is no encoder {encoder!r}", next_step="harken doctor lists encoders") from error
    given = recordings_of([folder], DEFAULT_SUFFIXES)
    classes = classes_of_folder(folder, given.files)
    for note in (*given.notes, *classes.notes):
        say(f"note: {note}")
    key = classes.key_of(name)
    if sampling_steps > SIZES[size].noise_steps:
        raise HarkenError(
            f"a network of size {size} is sampled in {SIZES[size].noise_steps} steps at most",
            next_step="Give fewer --sampling-steps",
        )
    with progress("training") as update:
        trained = train_on_folder(
            classes, output / "training", size=size, encoder=encoder, steps=steps, seconds=seconds, seed=seed,
            progress=lambda step, total, loss: update(step, total),
        )  # fmt: skip
    with progress("generating") as update:
        previews = generate_clips(
            trained, classes, key, number, output, steps=sampling_steps, seed=seed, device=default_device(),
            progress=update,
        )  # fmt: skip
    for reason in trained.quarantined.values():
        say(f"harken: {reason}")
    for preview in previews:
        if json:
            emit({
                "spectrogram": str(preview.spectrogram),
                "preview": None if preview.sound is None else str(preview.sound),
                "class": preview.class_name, "seed": preview.seed,
            })  # fmt: skip
        else:
            heard = "no preview" if preview.sound is None else f"preview {shown(preview.sound)}"
            line(f"{shown(preview.spectrogram)}: {shown(preview.class_name)}, {heard}")
    say(f"written to {shown(output)}; nothing has checked that they sound like {shown(previews[0].class_name)}")
    if any(preview.sound for preview in previews):
        say("previews were made of spectrograms by Griffin-Lim, for the ear alone: train on the spectrograms")
