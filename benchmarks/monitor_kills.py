"""A monitor that is killed (SIGKILL) again and again: what is judged twice, and what is lost.

    python benchmarks/monitor_kills.py [--kills 200] [--continuous] [--store postgresql://...]

A folder holds a recording per second of a simulated hum. The monitor is started, killed at a random moment after it has
begun to judge, and started again; at the end it may finish. Windows have numbers and positions: each must be in the
store once, in order, with the score of `harken score`.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
import sqlalchemy as sa

import harken

RATE, SECONDS, DISTINCT = 16_000, 1.0, 20


def hum(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(int(SECONDS * RATE)) / RATE
    speed = 50 * (1 + 0.01 * rng.normal())
    sound = 0.1 * sum(np.sin(2 * np.pi * speed * k * t + rng.uniform(0, 6)) / k for k in range(1, 8))
    return sound + 0.03 * rng.normal(size=len(t))


def prepare(folder: Path, count: int) -> list[float]:
    """Model and recordings; their scores."""
    for name in ("normal", "distinct", "in"):
        (folder / name).mkdir()
    for seed in range(40):
        sf.write(folder / "normal" / f"{seed}.wav", hum(seed), RATE)
    detector = harken.Detector.fit(folder / "normal", workers=0)
    detector.save(folder / "pump.harken")
    for seed in range(DISTINCT):
        sf.write(folder / "distinct" / f"{seed:02d}.wav", hum(1000 + seed), RATE)
    scores = [verdict.score for verdict in detector.score_many(sorted((folder / "distinct").iterdir()), workers=0)]
    for number in range(count):
        (folder / "in" / f"{number:06d}.wav").hardlink_to(folder / "distinct" / f"{number % DISTINCT:02d}.wav")
    return [float(scores[number % DISTINCT]) for number in range(count)]  # type: ignore[arg-type]


def stored(url: str) -> list[tuple[int, int, float]]:
    """(number, position, score) of all windows."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT number, position, score FROM windows ORDER BY number")).all()
    engine.dispose()
    return [(row[0], row[1], row[2]) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--continuous", action="store_true", help="files continue each other")
    parser.add_argument("--store", help="default: SQLite in a temporary folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        expected = prepare(folder, 25 * arguments.kills)
        store = arguments.store or str(folder / "monitor.db")
        url = arguments.store or f"sqlite:///{folder / 'monitor.db'}"
        config = f"""
store: {store}
sources:
  in: {{kind: folder, path: {folder / "in"}, continuous: {str(arguments.continuous).lower()}}}
machines:
  pump: {{source: in, model: {folder / "pump.harken"}}}
"""
        (folder / "plant.yaml").write_text(config)
        command = [Path(sys.executable).with_name("harken"), "monitor", "run", "--config", folder / "plant.yaml"]
        judged: list[int] = []
        for _ in range(arguments.kills):
            process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            assert process.stdout is not None
            process.stdout.readline()  # the first window
            time.sleep(rng.uniform(0, 0.3))
            process.kill()
            process.communicate()
            judged.append(len(stored(url)))
        subprocess.run([*command, "--once", "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        windows = stored(url)
    numbers = [number for number, _, _ in windows]
    positions = [number * int(SECONDS * RATE) for number in range(len(expected))]
    print(f"{arguments.kills} kills, windows stored: {judged[:3]} ... {judged[-1:]}; at the end {len(windows)}")
    print(f"lost: {len(expected) - len(set(numbers))}, twice: {len(numbers) - len(set(numbers))}")
    print(f"positions as expected: {[position for _, position, _ in windows] == positions}")
    print(f"scores as of harken score: {[score for _, _, score in windows] == expected}")


if __name__ == "__main__":
    main()
