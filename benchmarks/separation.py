"""Separation where the truth is known: SI-SNR of the machine above that of the mixture, in dB, beside trivial answers.

    python benchmarks/separation.py [--steps N] [--seed N] [--only plant|real]

plant: simulated machines without factory noise, mixed with factory noise that was not trained on. Fan, bearing and
valve have clean clips and are learned guided by them; gearbox, pump and slider have noise clips only and are learned by
mixture-invariant training. real: recordings of a slider, taken for clean sound, and recordings of other machines.
Networks of the size `tiny`, trained for so many steps of two mixtures of half a second.

subtraction: from each magnitude, that of the quietest fifth of frames. Wiener: gains of the true mean spectrum of the
noise, per frequency; it knows what no separator does.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harken.audio.listen import listen
from harken.audio.mix import mix_at_snr
from harken.audio.stft import overlap_add, overlapped_stft
from harken.data.clips import Clip, clips_from_files
from harken.plant.simulate import simulate
from harken.separation.config import SIZES
from harken.separation.losses import si_snr_db
from harken.separation.separator import Separator
from harken.separation.settings import SeparationSpec
from harken.separation.training import train_separators
from shared_folder import shared_folder

Wave = NDArray[np.float32]
RATE = 16_000
N_FFT, HOP = 1024, 256
SNRS_DB = (-5, 0, 5)
GUIDED, INVARIANT = ("fan", "bearing", "valve"), ("gearbox", "pump", "slider")


def subtraction(mixture_S: Wave, noise_S: Wave) -> Wave:
    """Boll, IEEE TASSP 1979, with the noise taken from the quietest fifth of frames."""
    spectrum_TF = overlapped_stft(mixture_S, N_FFT, HOP)
    magnitude_TF = np.abs(spectrum_TF)
    quiet_F = np.quantile(magnitude_TF, 0.2, axis=0)
    gain_TF = np.maximum(0.05, 1 - quiet_F / np.maximum(magnitude_TF, 1e-9))
    return overlap_add((spectrum_TF * gain_TF).astype(np.complex64), N_FFT, HOP, len(mixture_S))


def wiener(mixture_S: Wave, noise_S: Wave) -> Wave:
    """Gains 1 - noise / mixture of mean powers."""
    spectrum_TF = overlapped_stft(mixture_S, N_FFT, HOP)
    power_F, noise_F = (np.square(np.abs(overlapped_stft(x, N_FFT, HOP))).mean(axis=0) for x in (mixture_S, noise_S))
    gain_F = np.maximum(0.0, 1 - noise_F / np.maximum(power_F, 1e-12))
    return overlap_add((spectrum_TF * gain_F).astype(np.complex64), N_FFT, HOP, len(mixture_S))


def improvement_db(answer: Callable[[Wave, Wave], Wave], machine_S: Wave, mixture_S: Wave) -> float:
    """How much nearer to the machine an answer is than the mixture."""
    estimate, mixture, machine = map(torch.from_numpy, (answer(mixture_S, mixture_S - machine_S), mixture_S, machine_S))
    return float(si_snr_db(estimate, machine) - si_snr_db(mixture, machine))


def table(machines: Sequence[Clip], noises: Sequence[Clip], separator: Separator, seconds: float) -> None:
    """Print improvements by SNR, mean over machines and clips."""
    answers: dict[str, Callable[[Wave, Wave], Wave]] = {
        "mixture": lambda mixture_S, noise_S: mixture_S,
        "subtraction": subtraction,
        "Wiener": wiener,
        "separator": lambda mixture_S, noise_S: separator.separate(mixture_S[None], RATE)[0],
    }
    samples = round(seconds * RATE)
    print(f"{'':14}" + "".join(f"{snr:>+8} dB" for snr in SNRS_DB), flush=True)
    for name, answer in answers.items():
        means = []
        for snr_db in SNRS_DB:
            values = []
            for number, clip in enumerate(machines):
                machine_CS = listen(clip.path).at(RATE)[:1, :samples]
                noise_CS = listen(noises[number % len(noises)].path).at(RATE)[:1]
                mixture_S = mix_at_snr(machine_CS, noise_CS, snr_db)[0]
                values.append(improvement_db(answer, machine_CS[0], mixture_S))
            means.append(float(np.mean(values)))
        print(f"{name:14}" + "".join(f"{value:>+8.1f}   " for value in means), flush=True)


def clips_of(root: Path) -> list[Clip]:
    """Clips of a simulated plant."""
    return [
        replace(clip, machine=folder.name, corpus="plant")
        for folder in sorted(root.iterdir())
        for clip in clips_from_files(sorted(folder.rglob("*.wav")))
    ]


def plant(spec: SeparationSpec, seed: int, folder: Path) -> None:
    """Both ways of learning, on machines that are simulated twice: as they are recorded, and without noise."""
    names = [*GUIDED, *INVARIANT]
    sizes = {"train_target": 0, "seconds": 4.0}
    simulate(
        folder / "noisy", machines=names, train_source=24, test_per_condition=1, supplemental=36, seed=seed, **sizes
    )  # type: ignore[arg-type]
    simulate(
        folder / "clean",
        machines=names,
        train_source=1,
        test_per_condition=4,
        supplemental=1,
        noise_db=-60.0,
        seed=seed + 1,
        **sizes,
    )  # type: ignore[arg-type]
    noisy, clean = clips_of(folder / "noisy"), clips_of(folder / "clean")
    noises = [clip for clip in noisy if clip.kind == "noise"]
    heard = {clip.clip_id for number, clip in enumerate(noises) if number % 3}
    unheard = [clip for clip in noises if clip.clip_id not in heard]
    learned = [
        clip for clip in noisy
        if clip.split != "test" and (clip.kind != "noise" or clip.clip_id in heard)
    ]  # fmt: skip
    tests = [clip for clip in clean if clip.split == "test" and clip.condition == "normal" and clip.domain == "source"]
    trained = train_separators(SIZES["tiny"], spec, learned, folder / "trained")
    for mode, machines in (("guided", GUIDED), ("invariant", INVARIANT)):
        print(f"\nplant, {mode}: {', '.join(machines)}", flush=True)
        table([clip for clip in tests if clip.machine in machines], unheard, trained[mode].separator, 4.0)  # type: ignore[index]


def real(spec: SeparationSpec, folder: Path) -> None:
    """A slider, whose recordings are taken for clean sound."""
    root = shared_folder() / "corpus/dcase2020"
    sliders = sorted((root / "slider").rglob("*normal_id_00*"))
    others = [
        file for name in ("fan", "pump", "ToyCar", "ToyConveyor") for file in sorted((root / name).rglob("*normal*"))
    ]
    blank = Clip("", root, corpus="real", split="supplemental", section="00", condition="normal")
    clean = [replace(blank, clip_id=str(file), path=file, machine="slider", kind="clean") for file in sliders]
    noise = [replace(blank, clip_id=str(file), path=file, machine="others", kind="noise") for file in others]
    learned = [*clean[:-12], *(clip for number, clip in enumerate(noise) if number % 4)]
    trained = train_separators(SIZES["tiny"], spec, learned, folder / "real")["guided"]
    print("\nreal, guided: slider, with noise of fans, pumps, toy cars and conveyors", flush=True)
    table(clean[-12:], noise[::4], trained.separator, 4.0)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("plant", "real"))
    options = parser.parse_args()
    spec = SeparationSpec(
        seed=options.seed, steps=options.steps, batch=2, seconds=0.5, learning_rate=6e-3,
        warmup=min(30, options.steps // 10), evaluate_every=options.steps,
    )  # fmt: skip
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        if options.only != "real":
            plant(spec, options.seed, Path(name))
        if options.only != "plant":
            real(spec, Path(name))


if __name__ == "__main__":
    main()
