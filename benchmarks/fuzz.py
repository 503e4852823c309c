"""Mutated recordings, bundles and other files: no crash of the parent process, no hang, no flipped byte that is read.

python benchmarks/fuzz.py [--files 100000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import collections
import io
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile as sf

import harken
from harken.audio.decode import ALL_FORMATS
from harken.core.errors import BundleError
from harken.embeddings.embedder import make_spec
from harken.embeddings.extract import extract
from harken.monitor.bundle import read_bundle

BATCH = 2_000


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


def fuzz_recordings(count: int, folder: Path) -> None:
    rng = np.random.default_rng(0)
    seeds = originals(rng)
    spec = make_spec("spectral", sample_rate=16_000, channels=1)
    outcomes: collections.Counter[str] = collections.Counter()
    slowest, begun = 0.0, time.monotonic()
    for start in range(0, count, BATCH):
        files = []
        for index in range(start, min(start + BATCH, count)):
            suffix, data = seeds[int(rng.integers(len(seeds)))]
            files.append(folder / f"{index}.{suffix}")
            files[-1].write_bytes(mutated(data, rng))
        last = time.monotonic()
        for extracted in extract(files, spec, timeout=10.0, formats=ALL_FORMATS):
            slowest, last = max(slowest, time.monotonic() - last), time.monotonic()
            cause = "decoded" if extracted.error is None else extracted.error.cause
            outcomes["".join(c for c in cause.split("(")[0].split(":")[0] if not c.isdigit()).strip()] += 1
            extracted.path.unlink()
    print(f"{count} mutated recordings in {time.monotonic() - begun:.0f} s; longest wait {slowest:.1f} s")
    for cause, number in outcomes.most_common(25):
        print(f"{number:8d}  {cause}")


def fuzz_bundles(count: int, folder: Path) -> None:
    rng = np.random.default_rng(1)
    (folder / "normal").mkdir()
    for index in range(4):
        sf.write(folder / "normal" / f"{index}.wav", 0.1 * rng.normal(size=3_200), 16_000)
    model = folder / "m.harken"
    harken.Detector.fit(folder / "normal", workers=0, detector="knn").save(model)
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


def fuzz_strangers(count: int, folder: Path) -> None:
    """Bundles with valid digests, recipes, tables, zips and weights, see `fuzz_files`."""
    from fuzz_files import fuzz_files

    (folder / "files").mkdir()
    for kind, outcomes in fuzz_files(count, folder / "files", folder / "m.harken", mutated).items():
        print(f"{kind}: {', '.join(f'{number} {outcome}' for outcome, number in outcomes.most_common())}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        fuzz_bundles(arguments.files // 10, folder)
        fuzz_strangers(arguments.files, folder)
        fuzz_recordings(arguments.files, folder)
    finally:
        shutil.rmtree(folder)
