"""Time of each step: decoding, resampling, filter banks, encoders, neighbours, and `harken score` in total.

    python benchmarks/throughput.py [--clips 1 1000 10000] [--learned 10 1000] [--only-score]

Each row is compared with an alternative in the same run; on a shared machine only the ratios are meaningful.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.spatial.distance import cdist

import harken
from harken.audio.decode import decode
from harken.audio.resample import resample
from harken.audio.stft import mel_bands, power_spectrogram
from harken.detection import create_detector
from harken.detection.neighbours import nearest
from harken.encoders import create_encoder

SECONDS, RATE = 10, 16_000


def best(task: Callable[[], object], repeats: int = 7) -> float:
    """Shortest of several wall times, in seconds."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        task()
        times.append(time.perf_counter() - begun)
    return min(times)


def row(step: str, seconds: float, alternative: str = "", alternative_s: float = 0.0) -> None:
    if alternative_s:
        alternative = f"{alternative:<34} {alternative_s * 1e3:9.2f} ms  x{alternative_s / seconds:.1f}"
    print(f"{step:<44} {seconds * 1e3:9.2f} ms   {alternative}", flush=True)


def record(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    time_S = np.arange(SECONDS * RATE) / RATE
    sound = sum(np.sin(2 * np.pi * 50 * k * time_S + rng.uniform(0, 6)) / k for k in range(1, 8))
    sf.write(path, 0.1 * sound + 0.03 * rng.normal(size=len(time_S)), RATE, subtype="PCM_16")


def audio_rows(wav: Path) -> None:
    flac = wav.with_suffix(".flac")
    sf.write(flac, sf.read(wav)[0], RATE)
    row("decode WAV, 10 s", best(lambda: decode(wav)), "soundfile.read, no checks", best(lambda: sf.read(wav)))
    row("decode FLAC", best(lambda: decode(flac)), "soundfile.read, no checks", best(lambda: sf.read(flac)))
    samples_CS = decode(wav).samples_CS
    import soxr

    row(
        "resample 16 -> 32 kHz (HQ)",
        best(lambda: resample(samples_CS, RATE, 32_000)),
        "soxr VHQ",
        best(lambda: soxr.resample(samples_CS[0], RATE, 32_000, quality="VHQ")),
    )
    filters_FM, _ = mel_bands(RATE, 1024, 128, 0.0, RATE / 2)
    row("log-mel of spectral", best(lambda: power_spectrogram(samples_CS[0], 1024, 512) @ filters_FM))


def fbank_rows(wav: Path) -> None:
    import kaldi_native_fbank as knf
    import torch

    from harken.audio.kaldi_fbank import beats_fbank

    torch.set_num_threads(1)
    samples_CS = decode(wav).samples_CS
    batch_BS = torch.from_numpy(np.repeat(samples_CS, 16, axis=0))

    def reference() -> None:
        options = knf.FbankOptions()
        options.frame_opts.dither = 0.0
        options.mel_opts.num_bins = 128
        bank = knf.OnlineFbank(options)
        bank.accept_waveform(RATE, (samples_CS[0] * 2**15).tolist())
        bank.input_finished()
        for frame in range(bank.num_frames_ready):
            bank.get_frame(frame)

    row("Kaldi fbank, 128 bands, batch of 16, per clip", best(lambda: beats_fbank(batch_BS)) / 16, "kaldi-native-fbank",
        best(reference))  # fmt: skip


def encoder_rows(wav: Path) -> None:
    import torch

    torch.set_num_threads(1)
    samples_CS = decode(wav).samples_CS
    for name in harken.list_encoders():
        encoder = create_encoder(name)
        wave_CS = resample(samples_CS, RATE, encoder.sample_rate)
        row(f"encode {name}, one core", best(lambda encoder=encoder, wave_CS=wave_CS: encoder.encode(wave_CS)))  # type: ignore[misc]


def neighbour_rows() -> None:
    rng = np.random.default_rng(0)
    for count in (1_000, 10_000):
        bank_ND, queries_ND = rng.normal(size=(count, 768)), rng.normal(size=(200, 768))
        exact = best(lambda bank_ND=bank_ND, queries_ND=queries_ND: nearest(queries_ND, bank_ND, 1), 3) / 200  # type: ignore[misc]
        plain = best(lambda bank_ND=bank_ND, queries_ND=queries_ND: cdist(queries_ND, bank_ND).min(axis=1), 3) / 200  # type: ignore[misc]
        row(f"1-NN on {count} x 768, a query", exact, "scipy cdist", plain)
    bank_ND = rng.normal(size=(1_000, 768))
    detector = create_detector("local_density").fit(bank_ND)
    queries_ND = rng.normal(size=(200, 768))
    row("default detector on 1000 x 768, a query", best(lambda: detector.score(queries_ND), 3) / 200)


#: different recordings that are scored; more are links to them, which nothing recognises: there is no store, and none
#: of them was learned from
DIFFERENT = 200


def score_rows(folder: Path, counts: list[int], learned: list[int]) -> None:
    """The program itself, start included: CPU time of it and its workers, and the largest memory of each."""
    program = Path(sys.executable).with_name("harken")
    normal, sounds = folder / "normal", folder / "sounds"
    normal.mkdir()
    sounds.mkdir()
    for index in range(max(learned)):
        record(normal / f"{index:05d}.wav", index)
    for index in range(min(DIFFERENT, max(counts))):
        record(sounds / f"{index:05d}.wav", 10**6 + index)
    head = f"{'learned from':>12} {'scored':>7} {'CPU-s':>8} {'ms/clip':>8} {'wall s':>8}"
    print(f"\n{head} {'MiB: program':>13} {'worker':>7}")
    for size in learned:
        model = folder / f"{size}.harken"
        clips = sorted(normal.iterdir())[:size]
        subprocess.run([program, "fit", *clips, "-o", model], check=True, capture_output=True)
        for count in counts:
            listed = folder / f"scored{count}"
            if not listed.exists():
                listed.mkdir()
                for index in range(count):
                    os.link(sounds / f"{index % DIFFERENT:05d}.wav", listed / f"{index:05d}.wav")
            watcher = f"""
import json, resource, sys
sys.argv = ["harken", "score", {str(listed)!r}, "-m", {str(model)!r}, "--json"]
from harken.cli.main import run
try:
    run()
except SystemExit:
    pass
# VmHWM starts anew with each program; ru_maxrss would show the benchmark's own memory.
own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps([own, usage[1].ru_maxrss, sum(each.ru_utime + each.ru_stime for each in usage)]), file=sys.stderr)
"""
            begun = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", watcher], capture_output=True, text=True, check=True)
            wall = time.perf_counter() - begun
            own, worker, cpu = json.loads(done.stderr.strip().splitlines()[-1])
            times = f"{cpu:8.2f} {1e3 * cpu / count:8.1f} {wall:8.2f}"
            print(f"{size:>12} {count:>7} {times} {own / 1024:13.0f} {worker / 1024:7.0f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, nargs="+", default=[1, 1_000], help="numbers of clips that are scored")
    parser.add_argument("--learned", type=int, nargs="+", default=[10, 1_000], help="numbers of clips of the models")
    parser.add_argument("--only-score", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        wav_file = Path(place) / "clip.wav"
        record(wav_file, 0)
        if not options.only_score:
            audio_rows(wav_file)
            fbank_rows(wav_file)
            encoder_rows(wav_file)
            neighbour_rows()
        score_rows(Path(place), options.clips, options.learned)
    print(f"this benchmark's own peak: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
