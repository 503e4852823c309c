"""The default detector beside standardised 1-NN on every real set at hand: AUC, and where it is behind.

    python benchmarks/against_1nn.py [--seeds 3] [--sizes 20 60 200 600]

Twelve machines at one SNR (`6 dB`, `0 dB`, `-6 dB`) and with domain shift (AUC: mean over source and target; 10 target
clips are added to the source clips), ToyCar id_04, and recordings with the encoder `spectral`: as they are, and as
windows of 1 s (bearings: 0.25 s) in order, which are correlated in time.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray
from scipy.fft import idct
from sklearn.metrics import roc_auc_score

from beds import machines, toycar
from harken.core.threads import one_thread
from harken.detection import DEFAULT_DETECTOR, create_detector
from harken.detection.blocks import block_numbers, find_blocks
from harken.detection.states import find_states
from harken.embeddings.embedder import Embedder, make_spec
from shared_folder import shared_folder

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """group, name: of the set. train, test: (clips, dimensions). test_domains: AUC is the mean over them.

    in_order: train is in chronological order, so that blocks and states are found as `fit` does.
    """

    group: str
    name: str
    train: Rows
    test: Rows
    anomaly: NDArray[np.bool_]
    train_domains: NDArray[np.str_] | None = None
    test_domains: NDArray[np.str_] | None = None
    in_order: bool = False

    def area(self, detector: str) -> float:
        states, blocks = self.train_domains, None
        if self.in_order:
            states = np.array([f"state {state}" for state in find_states(self.train)])
            length = find_blocks(self.train, states_N=states).length
            blocks = block_numbers(length, len(self.train), states_N=states) if length > 1 else None
        scores = create_detector(detector).fit(self.train, states, blocks).score(self.test)
        if self.test_domains is None:
            return float(roc_auc_score(self.anomaly, scores))
        # As in the official metric: normal clips of a domain against all anomalies.
        rows = [self.anomaly | (self.test_domains == domain) for domain in np.unique(self.test_domains)]
        return float(np.mean([roc_auc_score(self.anomaly[kept], scores[kept]) for kept in rows]))


def bed_cases(shared: Path, seeds: Iterable[int], sizes: Sequence[int]) -> Iterator[Case]:
    arrays = np.load(shared / "features" / "mimii_fan_pump_slider_feat136.npz")
    for seed in seeds:
        for number, bed in enumerate(machines(shared, seed)):
            key = bed.name.replace(" ", "__snr{}_") + "_{}"
            for size in sizes:
                source = min(size, len(bed.train) - 10)
                kept = np.r_[:source, len(bed.train) - 10 : len(bed.train)]
                train, domains = bed.train[kept], bed.train_domain[kept]
                yield Case(f"shift, N={size}", bed.name, train, bed.test, bed.anomaly, domains, bed.domain)
            for snr in ("6", "0", "_6"):
                normal, fault = (
                    np.asarray(idct(arrays[key.format(snr, state)][:, :128].astype(np.float64), norm="ortho", axis=1))
                    for state in ("normal", "abnormal")
                )
                normal = normal[np.random.default_rng([seed, number]).permutation(len(normal))]
                test = np.concatenate([normal[-150:], fault])
                for size in sizes:
                    name = f"{snr.replace('_', '-')} dB, N={size}"
                    yield Case(name, bed.name, normal[:-150][:size], test, np.arange(len(test)) >= 150)


def toycar_cases(shared: Path, sizes: Sequence[int]) -> Iterator[Case]:
    car = toycar(shared)
    for size in (*(size for size in sizes if size < len(car.train)), len(car.train)):
        yield Case("ToyCar id_04", f"N={size}", car.train[:size], car.test, car.anomaly)


def embedded(files: Sequence[Path], level: str, seconds: float | None) -> tuple[Rows, NDArray[np.int64]]:
    """Embeddings of the recordings or of their windows, and the file of each."""
    rows, origin = [], []
    embedder = None
    for number, file in enumerate(files):
        samples_SC, rate = sf.read(file, dtype="float32", always_2d=True)
        if embedder is None:
            embedder = Embedder(make_spec("spectral", sample_rate=rate, channels=samples_SC.shape[1], level=level))  # type: ignore[arg-type]
        length = len(samples_SC) if seconds is None else int(seconds * rate)
        for start in range(0, len(samples_SC) - length + 1, length):
            wave_CS = np.ascontiguousarray(samples_SC[start : start + length].T)
            rows.append(embedder.features(embedder.listen(wave_CS, sample_rate=rate)).embedding)
            origin.append(number)
    return np.asarray(rows, dtype=np.float64), np.array(origin)


def recordings(
    corpus: Path,
) -> Iterator[tuple[str, list[Path], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]]:
    """Name, files in order, and of each whether it is for training, for the test, and anomalous."""
    slider, fan = corpus / "dcase2020/slider", corpus / "mimii_fan_0dB/fan"
    for name, folder, pattern in (("slider id_00", slider, "*id_00*"), ("fan id_00, 0 dB", fan, "*")):
        train, test = (sorted((folder / split).glob(pattern)) for split in ("train", "test"))
        learned = np.arange(len(train) + len(test)) < len(train)
        yield name, train + test, learned, ~learned, _named(train + test, "anomaly")
    motors = sorted((corpus / "bldc_audio/BLDC/all").iterdir())
    faulty = _named(motors, "anomaly")
    learned = ~faulty & _named(motors, "section_0[12]")
    test = _named(motors, "propeller") | (~faulty & _named(motors, "section_03"))
    yield "BLDC 1 and 2, propeller", motors, learned, test, faulty
    for bearing in sorted((corpus / "femto").iterdir()):
        files = sorted((bearing / "stream").iterdir())
        life = np.array([int(re.findall(r"life(\d+)", file.name)[0]) for file in files])
        worn = life > 90
        yield f"FEMTO {bearing.name}, <25 %", files, life < 25, worn | ((life >= 25) & (life < 70)), worn
        even = np.arange(len(files)) % 2 == 0
        yield f"FEMTO {bearing.name}, every 2nd", files, (life < 50) & even, worn | ((life < 50) & ~even), worn


def _named(files: Sequence[Path], pattern: str) -> NDArray[np.bool_]:
    return np.array([re.search(pattern, file.name) is not None for file in files])


def recorded_cases(corpus: Path) -> Iterator[Case]:
    for name, files, train, test, anomaly in recordings(corpus):
        for level in ("normalised", "recorded"):
            for seconds in (None, 0.25 if "FEMTO" in name else 1.0):
                rows, origin = embedded(files, level, seconds)
                group = f"{'recordings' if seconds is None else 'windows'}, {level}"
                learned, tested = train[origin], test[origin]
                yield Case(group, name, rows[learned], rows[tested], anomaly[origin][tested], in_order=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=[20, 60, 200, 600])
    options = parser.parse_args()
    shared = shared_folder()
    areas: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for cases in (
        recorded_cases(shared / "corpus"),
        toycar_cases(shared, options.sizes),
        bed_cases(shared, range(options.seeds), options.sizes),
    ):
        for case in cases:
            with one_thread():
                pair = case.area("knn"), case.area(DEFAULT_DETECTOR)
            areas.setdefault(case.group, {}).setdefault(case.name, []).append(pair)
    print(f"{'set':<26} {'1-NN':>6} {'default':>8}   mean AUC; sets where the default is behind: 1-NN, default")
    for group, sets in areas.items():
        means = {name: np.mean(pairs, axis=0) for name, pairs in sets.items()}
        plain, default = np.mean(list(means.values()), axis=0)
        behind = [f"{name} {a:.3f} {b:.3f}" for name, (a, b) in means.items() if round(b, 3) < round(a, 3)]
        print(
            f"{group:<26} {plain:6.3f} {default:8.3f}   {len(behind)} of {len(sets)}: {'; '.join(behind)}", flush=True
        )


if __name__ == "__main__":
    main()
