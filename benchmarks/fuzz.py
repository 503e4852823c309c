"""Mutated recordings, bundles and other files: no crash of the parent process, no hang, no flipped byte that is read.

python benchmarks/fuzz.py [--files 100000] [--seed 0] [--folder DIR]
python benchmarks/fuzz.py --minutes 480 --seed 7      each kind for the same time; counts so far every ten minutes
"""

from __future__ import annotations

import argparse
import collections
import io
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np
import soundfile as sf

import harken
from harken.audio.decode import ALL_FORMATS
from harken.core.errors import BundleError
from harken.embeddings.embedder import make_spec
from harken.embeddings.extract import extract
from harken.monitor.bundle import read_bundle

BATCH = 2_000
#: seconds that each kind is given in turn, after which an input hangs, and between two reports
TURN, HANGS, REPORT = 3.0, 60, 600.0


def originals(rng: np.random.Generator) -> list[tuple[str, bytes]]:
    """Small recordings in every container and coding that can be written here, of one and of two channels."""
    sound = 0.1 * rng.normal(size=3_200)
    recordings = []
    for kind in sorted(ALL_FORMATS):
        for subtype in sf.available_subtypes(kind):
            for channels in (1, 2):
                buffer = io.BytesIO()
                # Some codings have one channel, or other sampling rates.
                with suppress(sf.LibsndfileError, ValueError):
                    sf.write(buffer, np.stack([sound] * channels, axis=1), 16_000, format=kind, subtype=subtype)
                    recordings.append((kind.lower(), buffer.getvalue()))
    return recordings


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut, repeat, insert, or set header fields to extremes."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        # Most decoder errors are in headers.
        position = int(rng.integers(0, min(len(changed), 120) if rng.random() < 0.7 else len(changed)))
        match int(rng.integers(6)):
            case 0:
                changed[position] ^= 1 << int(rng.integers(8))
            case 1:
                changed[position : position + 4] = rng.choice(
                    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80"]
                )
            case 2:
                del changed[position + 1 :]
            case 3:
                changed[position:position] = rng.bytes(int(rng.integers(1, 64)))
            case 4:
                del changed[position : position + int(rng.integers(1, 64))]
            case _:
                changed[position : position + 32] = rng.bytes(32)
        if not changed:
            break
    return bytes(changed)


def fuzz_recordings(count: int, folder: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    seeds = originals(rng)
    outcomes: collections.Counter[str] = collections.Counter()
    slowest, begun = 0.0, time.monotonic()
    for start in range(0, count, BATCH):
        slowest = max(slowest, decode_mutated(min(BATCH, count - start), seeds, rng, folder, outcomes))
    print(f"{count} mutated recordings in {time.monotonic() - begun:.0f} s; longest wait {slowest:.1f} s")
    for cause, number in outcomes.most_common(25):
        print(f"{number:8d}  {cause}")


def decode_mutated(
    count: int,
    seeds: list[tuple[str, bytes]],
    rng: np.random.Generator,
    folder: Path,
    outcomes: collections.Counter[str],
) -> float:
    """Count the outcomes of so many mutated recordings; the longest wait in seconds."""
    files = []
    for index in range(count):
        suffix, data = seeds[int(rng.integers(len(seeds)))]
        files.append(folder / f"{index}.{suffix}")
        files[-1].write_bytes(mutated(data, rng))
    slowest, last = 0.0, time.monotonic()
    spec = make_spec("spectral", sample_rate=16_000, channels=1)
    for extracted in extract(files, spec, timeout=10.0, formats=ALL_FORMATS, workers=1):
        slowest, last = max(slowest, time.monotonic() - last), time.monotonic()
        cause = "decoded" if extracted.error is None else extracted.error.cause
        outcomes["".join(c for c in cause.split("(")[0].split(":")[0] if not c.isdigit()).strip()] += 1
        extracted.path.unlink()
    return slowest


def small_model(folder: Path, rng: np.random.Generator) -> Path:
    """A model of four recordings of noise."""
    (folder / "normal").mkdir()
    for index in range(4):
        sf.write(folder / "normal" / f"{index}.wav", 0.1 * rng.normal(size=3_200), 16_000)
    model = folder / "m.harken"
    harken.Detector.fit(folder / "normal", workers=0, detector="knn").save(model)
    return model


def fuzz_bundles(count: int, folder: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed + 1)
    model = small_model(folder, rng)
    files = sorted(model.iterdir())
    refused = flipped = 0
    for file in files:
        original = file.read_bytes()
        for position in range(len(original)):
            changed = bytearray(original)
            changed[position] ^= 1 << int(rng.integers(8))
            file.write_bytes(bytes(changed))
            flipped += 1
            try:
                read_bundle(model)
            except BundleError:
                refused += 1
        file.write_bytes(original)
    print(f"every byte of a bundle flipped, {flipped} in {len(files)} files: {refused} refused")
    refused = same = 0
    for _ in range(count):
        file = files[int(rng.integers(len(files)))]
        original = file.read_bytes()
        changed_bytes = mutated(original, rng)
        file.write_bytes(changed_bytes)
        try:
            read_bundle(model)
            same += changed_bytes == original
        except BundleError:
            refused += 1
        file.write_bytes(original)
    print(f"{count} mutated bundles: {refused} refused, {count - refused} read, of which {same} were unchanged")


def fuzz_strangers(count: int, folder: Path, seed: int = 0) -> None:
    """Bundles with valid digests, recipes, tables, zips and weights, see `fuzz_files`."""
    from fuzz_files import fuzz_files

    (folder / "files").mkdir()
    for kind, outcomes in fuzz_files(count, folder / "files", folder / "m.harken", mutated, seed).items():
        print(f"{kind}: {', '.join(f'{number} {outcome}' for outcome, number in outcomes.most_common())}")


def fuzz_for(minutes: float, folder: Path, seed: int) -> None:
    """Each kind of input for the same time, and what came of them; an input that is waited for too long is named."""
    from fuzz_files import make_kinds, outcome

    rng = np.random.default_rng(seed)
    seeds, model = originals(rng), small_model(folder, rng)
    (folder / "files").mkdir()
    kinds = make_kinds(folder / "files", model, mutated)
    counts: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in ("recordings", *kinds)}
    signal.signal(signal.SIGALRM, _hangs)
    begun = reported = time.monotonic()
    number = 0
    while (now := time.monotonic()) < begun + 60 * minutes:
        for place, (kind, read) in enumerate(kinds.items()):
            turn = time.monotonic()
            while time.monotonic() < turn + TURN:
                number += 1
                signal.alarm(HANGS)
                came_of = outcome(partial(read, np.random.default_rng((seed, place, number))))
                signal.alarm(0)
                counts[kind][came_of] += 1
                if came_of not in ("read", "refused"):
                    print(f"{kind}, generator ({seed}, {place}, {number}): {came_of}", flush=True)
        turn = time.monotonic()
        while time.monotonic() < turn + TURN:
            slowest = decode_mutated(500, seeds, rng, folder, counts["recordings"])
            if slowest > HANGS:
                print(f"recordings: waited {slowest:.0f} s", flush=True)
        if now > reported + REPORT or time.monotonic() >= begun + 60 * minutes:
            reported = now
            _report(counts, time.monotonic() - begun)


def _report(counts: dict[str, collections.Counter[str]], seconds: float) -> None:
    total = sum(outcomes.total() for outcomes in counts.values())
    print(f"{total} inputs in {seconds / 60:.0f} minutes:", flush=True)
    for kind, outcomes in counts.items():
        print(f"  {kind} {outcomes.total()}: {', '.join(f'{n} {o}' for o, n in outcomes.most_common(6))}", flush=True)


def _hangs(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"more than {HANGS} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, help="instead of a number of files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        if arguments.minutes is not None:
            fuzz_for(arguments.minutes, folder, arguments.seed)
        else:
            fuzz_bundles(arguments.files // 10, folder, arguments.seed)
            fuzz_strangers(arguments.files, folder, arguments.seed)
            fuzz_recordings(arguments.files, folder, arguments.seed)
    finally:
        shutil.rmtree(folder)
