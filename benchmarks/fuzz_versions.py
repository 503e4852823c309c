"""Mutated versions of a model: manifests of earlier ones, and arrays under the names of their content.

As in `fuzz_files`, digests stay valid in most inputs, so that what stands behind them is reached.
`python benchmarks/fuzz.py` runs it with the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import soundfile as sf

from fuzz_files import Mutate, deep_copy, replace_array, replace_value
from harken.core.errors import HarkenError
from harken.embeddings.embedder import Embedder
from harken.monitor.basis import Heard
from harken.monitor.detector import Detector
from harken.monitor.feedback.change import set_alarm
from harken.monitor.feedback.known_faults import add_faults
from harken.monitor.feedback.on_disk import change_model, roll_back
from harken.monitor.feedback.updating import update
from harken.monitor.manifests import MANIFEST, file_name, manifest_bytes
from harken.monitor.stored import load_fitted
from harken.monitor.versions import list_versions

#: changes of the alarm, so that the earliest versions are kept without what was learned from their rows
CHANGES = 4
RATE = 16_000


class ModelVersions:
    """A model with versions of each kind, and its readers and writers."""

    def __init__(self, folder: Path, model: Path, mutate: Mutate) -> None:
        """folder: for the files. model: another one, of which nothing is needed. mutate: bytes to other bytes."""
        self.folder, self.mutate = folder, mutate
        self.model = folder / "versions0.harken"
        for seed in range(6):
            sf.write(folder / f"hum{seed}.wav", _hum(seed), RATE)
        Detector.fit([folder / f"hum{seed}.wav" for seed in range(6)], workers=0).save(self.model)
        spec = load_fitted(self.model).spec
        embedder = Embedder(spec)
        heard = [
            Heard(f"{seed}.wav", embedder.analyse(_hum(seed, 1 + 4 * (seed == 103)), sample_rate=RATE))
            for seed in range(100, 104)
        ]
        change_model(self.model, update, heard[:3], who="me", force=True)
        change_model(self.model, add_faults, heard[3:], who="me")
        for change in range(CHANGES):
            change_model(self.model, set_alarm, f"{change + 1}%", None, who="me")
        roll_back(self.model, who="me")

    def versions(self, rng: np.random.Generator) -> None:
        """Other settings or arrays of one version, other bytes or names of its files: all versions are read, and it
        is gone back to."""
        target = self.folder / "versions.harken"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.model, target)
        manifests = [*sorted((target / "versions").iterdir()), target / MANIFEST]
        manifest = manifests[int(rng.integers(len(manifests)))]
        match int(rng.integers(6)):
            case 0:
                files = [file for file in (*manifests, *target.glob("*.safetensors"))]
                file = files[int(rng.integers(len(files)))]
                file.write_bytes(self.mutate(file.read_bytes(), rng))
            case 1:
                self._other_place(target, manifest, rng)
            case _:
                with suppress(ValueError, TypeError):  # no JSON
                    _rewrite(target, manifest, rng)
        error: HarkenError | None = None
        numbers = []
        try:
            numbers = [version.number for version in list_versions(target)]
            assert numbers == sorted(set(numbers)), numbers
        except HarkenError as reason:
            error = reason
        for number in (None, *numbers):
            try:
                detector = Detector(load_fitted(target, number))
                assert np.isfinite(detector.threshold)
            except HarkenError as reason:
                error = reason
        try:
            roll_back(target, who="me", to=numbers[int(rng.integers(len(numbers)))] if numbers else 1)
            in_use = list_versions(target)[-1]
            assert in_use.kind == "rollback"
            load_fitted(target)
        except HarkenError as reason:
            error = reason
        if error is not None:
            raise error

    def _other_place(self, target: Path, manifest: Path, rng: np.random.Generator) -> None:
        """A manifest under another name, a link, a pipe, or a folder in its place."""
        match int(rng.integers(6)):
            case 0:
                manifest.rename(
                    target / "versions" / ("0001.json", "0099.json", "9999999.json", "x.json")[rng.integers(4)]
                )
            case 1:
                manifest.unlink()
                manifest.symlink_to("/dev/zero")
            case 2:
                manifest.unlink()
                os.mkfifo(manifest)
            case 3:
                manifest.unlink()
                manifest.mkdir()
            case 4:
                file = sorted(target.glob("*.safetensors"))[0]
                file.unlink()
                file.symlink_to("/dev/zero")
            case _:
                shutil.rmtree(target / "versions")
                (target / "versions").symlink_to(self.model / "versions")


def _hum(seed: int, partials: int = 3) -> np.ndarray:
    """(S,) half a second of a machine."""
    rng = np.random.default_rng(seed)
    time_S = np.arange(RATE // 2) / RATE
    wave_S = sum(np.sin(2 * np.pi * 200 * k * time_S + rng.uniform(0, 6)) / k for k in range(1, partials + 1))
    noise_S = np.convolve(rng.normal(size=len(time_S)), np.ones(8) / 8, mode="same")  # not white, as amplifiers have it
    return np.asarray(0.05 * (wave_S + noise_S), dtype=np.float32)


def _rewrite(target: Path, file: Path, rng: np.random.Generator) -> None:
    """Other settings or arrays of the version of this manifest, with valid digests."""
    manifest: Any = json.loads(file.read_bytes())
    del manifest["sha256"]
    if rng.random() < 0.5:
        settings = deep_copy(manifest["about"])
        # What versions alone have comes up as often as the rest.
        place = settings.get("version") if rng.random() < 0.5 else settings
        replace_value(place or settings, rng)
        manifest["about"] = settings
    else:
        parts = {part: safetensors.numpy.load_file(target / name) for part, name in manifest["parts"].items()}
        replace_array(parts, rng)
        for part, arrays in parts.items():
            data = safetensors.numpy.save({name: np.array(array, order="C") for name, array in arrays.items()})
            sha256 = hashlib.sha256(data).hexdigest()
            name = file_name(part, sha256)
            if name != manifest["parts"][part]:
                (target / name).write_bytes(data)
                del manifest["files"][manifest["parts"][part]]
                manifest["parts"][part], manifest["files"][name] = name, sha256
    file.write_bytes(manifest_bytes(manifest))


VERSIONS = ("versions",)
