"""Mutated files of strangers, read in this process: refused with a HarkenError or read, never anything else.

Bundles keep valid digests, so that what stands behind them is reached: settings and arrays are mutated, not only bytes.
`python benchmarks/fuzz.py` runs it with the rest.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harken.bench.recipe import load_recipe, recipe_text
from harken.core.errors import HarkenError
from harken.core.plugins import without_custom_code
from harken.data.unpack import UnpackLimits, unpack
from harken.evaluation.score_tables import read_score_table
from harken.monitor.bundle import read_bundle, write_bundle
from harken.monitor.detector import Detector
from harken.weights.formats import read_contents

Mutate = Callable[[bytes, np.random.Generator], bytes]
#: what settings and words of a recipe are replaced by
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**70, 1e308, float("nan"), float("inf"), "", "x", "../x", "file.py:Class", "1_000", "\0", "１",
    [], {}, [[]], {"a": {}}, ["x"] * 100, "a.b:C", -0.5,
)  # fmt: skip
WORDS = (
    "[]", "{}", "~", "-1", "1e999", ".nan", "yes", "'x'", "*a", "&a [*a]", "../x", "x.py:Y", "1_0", "$x", "!!set {a}",
    "<a>", '"\\0"', "[x, [y]]", "{a: {b: c}}", "??",
)  # fmt: skip


class Inputs:
    """Readers of each kind of file, and what they are given."""

    def __init__(self, folder: Path, model: Path, mutate: Mutate) -> None:
        """folder: for the files. model: a bundle that becomes many. mutate: bytes to other bytes."""
        self.folder, self.mutate = folder, mutate
        self.settings, self.arrays = read_bundle(model)
        self.sound_S = np.convolve(np.random.default_rng(0).normal(size=8_000), np.ones(8) / 80, mode="same")
        self.recipes = [recipe_text(name) for name in ("spectral_knn", "nwpu_fusion", "training_free")]
        self.table = "machine,section,file,mine\n" + "".join(f"fan,00,c{row}.wav,{row / 7}\n" for row in range(20))
        self.state = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}

    def bundle(self, rng: np.random.Generator) -> None:
        """A model whose settings or arrays, and so digests, are others."""
        settings: Any = deep_copy(self.settings)
        arrays = {part: dict(inside) for part, inside in self.arrays.items()}
        for _ in range(int(rng.integers(1, 3))):
            if rng.random() < 0.5:
                replace_value(settings, rng)
            else:
                replace_array(arrays, rng)
        target = self.folder / "m.harken"
        try:
            write_bundle(target, settings, arrays)
        except (ValueError, TypeError):
            return  # no JSON
        detector = Detector.load(target)
        assert np.isfinite(detector.threshold)
        if detector.fitted.spec.channels == 1:
            detector.score(self.sound_S, detector.fitted.spec.sample_rate)

    def manifest(self, rng: np.random.Generator) -> None:
        """A model with mutated bytes."""
        target = self.folder / "n.harken"
        write_bundle(target, self.settings, self.arrays)
        files = sorted(target.iterdir())
        file = files[int(rng.integers(len(files)))]
        file.write_bytes(self.mutate(file.read_bytes(), rng))
        read_bundle(target)

    def recipe(self, rng: np.random.Generator) -> None:
        """A recipe with lines and words exchanged, or mutated bytes."""
        text = self.recipes[int(rng.integers(len(self.recipes)))]
        if rng.random() < 0.3:
            data = self.mutate(text.encode(), rng)
        else:
            lines = text.splitlines()
            for _ in range(int(rng.integers(1, 4))):
                row = int(rng.integers(len(lines)))
                key, colon, _ = lines[row].partition(": ")
                word = WORDS[int(rng.integers(len(WORDS)))]
                match int(rng.integers(4)):
                    case 0:
                        lines[row] = f"{key}{colon or ': '}{word}"
                    case 1:
                        del lines[row]
                    case 2:
                        lines.insert(row, lines[int(rng.integers(len(lines)))])
                    case _:
                        lines[row] = lines[row].replace("  ", " " * int(rng.integers(5)), 1)
                if not lines:
                    break
            data = "\n".join(lines).encode()
        file = self.folder / "r.yaml"
        file.write_bytes(data)
        with without_custom_code():
            load_recipe(str(file), profile="tiny" if rng.random() < 0.5 else "full")

    def scores(self, rng: np.random.Generator) -> None:
        """A table of scores."""
        file = self.folder / "s.csv"
        file.write_bytes(self.mutate(self.table.encode(), rng))
        read_score_table(file)

    def zip(self, rng: np.random.Generator) -> None:
        """A published zip."""
        names = (
            *(f"fan/train/{row}.wav" for row in range(12)),
            "../x",
            "fan/../../y",
            "CON",
            "a\\b",
            "/etc/x",
            "fan/A.wav",
            "fan/a.wav",
        )
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in {names[int(rng.integers(len(names)))] for _ in range(2)}:
                archive.writestr(name, rng.bytes(30))
        data = buffer.getvalue()
        file = self.folder / "z.zip"
        file.write_bytes(self.mutate(data, rng) if rng.random() < 0.7 else data)
        place = self.folder / "unpacked" / "fan"
        before = set(self.folder.iterdir())
        try:
            unpack(file, place, limits=UnpackLimits(size=2**20, ratio=1e9))
        finally:
            assert set(self.folder.iterdir()) <= before | {self.folder / "unpacked"}

    def weights(self, rng: np.random.Generator) -> None:
        """A file of weights: torch, npz or safetensors. Numbers are the right ones, or it is refused."""
        from safetensors.numpy import save

        kind = ("pt", "npz", "safetensors")[int(rng.integers(3))]
        buffer = io.BytesIO()
        if kind == "pt":
            import torch

            torch.save({"model": {name: torch.from_numpy(array) for name, array in self.state.items()}}, buffer)
        elif kind == "npz":
            np.savez(buffer, **self.state)
        else:
            buffer.write(save(self.state))
        file = self.folder / f"w.{kind}"
        file.write_bytes(self.mutate(buffer.getvalue(), rng))
        tensors = read_contents(file, None).tensors
        if kind != "safetensors":  # which has no checks of its own
            for name, array in self.state.items():
                assert name not in tensors or np.array_equal(tensors[name], array), f"{name} has other numbers"


KINDS = ("bundle", "manifest", "recipe", "scores", "zip", "weights")


def fuzz_files(count: int, folder: Path, model: Path, mutate: Mutate, seed: int = 0) -> dict[str, Counter[str]]:
    """Outcomes by kind of `count` inputs in all: see `outcome`."""
    kinds = make_kinds(folder, model, mutate)
    outcomes = {kind: Counter[str]() for kind in kinds}
    for number in range(count):
        kind = list(kinds)[number % len(kinds)]
        outcomes[kind][outcome(partial(kinds[kind], np.random.default_rng((seed, number))))] += 1
    return outcomes


def make_kinds(folder: Path, model: Path, mutate: Mutate) -> dict[str, Callable[[np.random.Generator], None]]:
    """What makes and reads an input of each kind: of this file, of `fuzz_kept` and of `fuzz_versions`."""
    from fuzz_kept import KEPT, KeptFiles
    from fuzz_versions import VERSIONS, ModelVersions

    groups = ((KINDS, Inputs), (KEPT, KeptFiles), (VERSIONS, ModelVersions))
    kinds: dict[str, Callable[[np.random.Generator], None]] = {}
    for names, readers in groups:
        inputs = readers(folder, model, mutate)
        kinds |= {kind: getattr(inputs, kind) for kind in names}
    return kinds


def outcome(attempt: Callable[[], None]) -> str:
    """`read`, `refused`, or the error that should not have been."""
    try:
        attempt()
    except HarkenError as error:
        return "refused" if "\n" not in str(error) else "refused in several lines"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]}"
    return "read"


def deep_copy(value: Any) -> Any:
    """Settings whose dictionaries and lists may be changed."""
    if isinstance(value, dict):
        return {key: deep_copy(inside) for key, inside in value.items()}
    return [deep_copy(inside) for inside in value] if isinstance(value, list | tuple) else value


def replace_value(value: Any, rng: np.random.Generator) -> None:
    """Another value at a random place, at any depth."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = keys[int(rng.integers(len(keys)))]
    if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.6:
        replace_value(value[key], rng)
    elif isinstance(value, dict) and rng.random() < 0.2:
        del value[key]
    else:
        value[key] = deep_copy(ODD[int(rng.integers(len(ODD)))])  # which the next change may reach into


def replace_array(arrays: dict[str, dict[str, np.ndarray]], rng: np.random.Generator) -> None:
    """Another array of a part: left out, not finite, of another shape or type, or of another name."""
    part = sorted(arrays)[int(rng.integers(len(arrays)))]
    if not arrays[part]:
        return
    name = sorted(arrays[part])[int(rng.integers(len(arrays[part])))]
    array = np.array(arrays[part][name])
    match int(rng.integers(6)):
        case 0:
            del arrays[part][name]
        case 1 if array.size and array.dtype.kind == "f":
            array.reshape(-1)[int(rng.integers(array.size))] = (np.nan, np.inf, -np.inf)[int(rng.integers(3))]
            arrays[part][name] = array
        case 2:
            arrays[part][name] = array[: len(array) // 2] if array.ndim else np.zeros(3)
        case 3:
            arrays[part][name] = array[..., None]
        case 4:
            arrays[part][name] = array.astype((np.int8, np.float64, np.uint8, np.bool_)[int(rng.integers(4))])
        case _:
            arrays[part][("_score", "fit", "x_", "mean")[int(rng.integers(4))]] = array
