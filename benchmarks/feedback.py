"""A model that learns from feedback, on simulated machines: new states, faults called normal, and fifty updates.

    python benchmarks/feedback.py [--machines fan pump gearbox bearing] [--updates 50]

Models learn from 100 clips of 4 s in the operating states `source` and are set to 1 %. First table: they learn that a
dozen clips of the states `target` were normal. Shares of alarms among other normal clips of both, and of faulty clips
of both that are found, before and after; `refused`: with a known fault, of each kind in turn, the same update is
refused though nothing is wrong with it.
Second table: three clips of a fault are called normal. With ten others of that fault known: how often that is refused.
With none known: other clips of the fault that are found before, after, and after rolling back.
Third table: so many updates of a dozen clips, of alternating states, of one machine; what the model then costs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from harken.data.clips import Clip
from harken.detection import create_detector
from harken.embeddings.embedder import ClipFeatures, Embedder, make_spec
from harken.monitor.basis import Heard
from harken.monitor.feedback.effect import ChangeRefused
from harken.monitor.feedback.known_faults import add_faults
from harken.monitor.feedback.on_disk import change_model, list_versions, load_fitted, roll_back
from harken.monitor.feedback.rebaselining import chronology_of
from harken.monitor.feedback.updating import update
from harken.monitor.fitted import Fitted
from harken.monitor.judged import judged_clips
from harken.monitor.learn import learn
from harken.monitor.stored import save_fitted
from harken.plant.simulate import MACHINES, Item, render

RATE, SECONDS, SEVERITY = 16_000, 4.0, 0.7
SPEC = make_spec("spectral", sample_rate=RATE, channels=1, monitoring=True)
EMBEDDER = Embedder(SPEC)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
WHO = "benchmark"


def features(machine: str, domain: str, first: int, count: int, fault: str | None = None) -> list[ClipFeatures]:
    """Of simulated clips with these indices, normal or of a fault."""
    clips = []
    for index in range(first, first + count):
        item = Item(machine, "test", domain, "anomaly" if fault else "normal", index)  # type: ignore[arg-type]
        severity = (fault, SEVERITY) if fault else None
        samples_S = render(item, samples=round(SECONDS * RATE), rate=RATE, fault=severity)
        clips.append(EMBEDDER.analyse(samples_S.astype(np.float32) / 2**15, sample_rate=RATE))
    return clips


def heard(name: str, clips: Sequence[ClipFeatures], start_s: float) -> list[Heard]:
    """Clips recorded every ten seconds."""
    return [Heard(f"{name} {index}.wav", clip, start_s + 10.0 * index) for index, clip in enumerate(clips)]


def fitted(clips: list[Heard]) -> Fitted:
    """A model of normal clips at 1 %."""
    detector = create_detector("local_density", None)
    rows = [Clip(clip_id=clip.name, path=Path(clip.name)) for clip in clips]
    learned = learn(detector, rows, [clip.features for clip in clips], chronology_of(clips), None)
    return Fitted(
        SPEC, None, detector, learned.calibration, learned.training, "1%",
        block=learned.block, events=learned.events, tones=learned.tones, basis=learned.basis,
    )  # fmt: skip


def alarms(model: Fitted, clips: Sequence[ClipFeatures]) -> float:
    """Share of clips that are alarms."""
    return [judged.kind for judged in judged_clips(model, clips)].count("alarm") / len(clips)


def refused(change: Callable[[], object]) -> bool:
    """Whether a change is refused."""
    try:
        change()
    except ChangeRefused:
        return True
    return False


def compare(machine: str) -> tuple[str, str]:
    """Rows of the first and the second table."""
    faults = MACHINES[machine].faults
    normal = heard("normal", features(machine, "source", 0, 100), 0.0)
    new = heard("new", features(machine, "target", 0, 12), 1e6)
    later = {domain: features(machine, domain, 500, 100) for domain in ("source", "target")}
    faulty = {
        (fault, domain): features(machine, domain, 1000, 23 if domain == "source" else 10, fault)
        for fault in faults
        for domain in ("source", "target")
    }
    model = fitted(normal)
    after = update(model, new, who=WHO, now=NOW)
    cells = []
    for version in (model, after.fitted):
        found = [np.mean([alarms(version, faulty[fault, domain]) for fault in faults]) for domain in later]
        cells += [f"{alarms(version, later[domain]):7.0%}" for domain in later] + [f"{share:7.0%}" for share in found]
    false_refusals, refusals = 0, 0
    found_at: list[list[float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for fault in faults:
            clips = faulty[fault, "source"]
            known = add_faults(model, heard(fault, clips[:10], 2e6), who=WHO, now=NOW).fitted
            called = heard(f"called {fault}", clips[10:13], 3e6)
            false_refusals += refused(lambda known=known: update(known, new, who=WHO, now=NOW))
            refusals += refused(lambda known=known, called=called: update(known, called, who=WHO, now=NOW))
            path = Path(folder) / f"{fault}.harken"
            save_fitted(path, model)
            change_model(path, update, called, who=WHO, now=NOW)
            spoilt = load_fitted(path)
            roll_back(path, who=WHO, now=NOW)
            versions = (model, spoilt, load_fitted(path))
            found_at.append([alarms(version, clips[13:]) for version in versions])
    thresholds = f"{after.effect.threshold_before:6.1f} {after.effect.threshold_after:6.1f}"
    first = f"{machine:<9}{''.join(cells)}  {thresholds}   {false_refusals} of {len(faults)}"
    means = np.mean(found_at, axis=0)
    second = f"{machine:<9}{refusals} of {len(faults)}" + "".join(f"{share:9.0%}" for share in means)
    return first, second


def grow(machine: str, updates: int) -> None:
    """Print the third table."""
    normal = heard("normal", features(machine, "source", 0, 100), 0.0)
    later = [*features(machine, "source", 5000, 60), *features(machine, "target", 5000, 60)]
    faulty = [clip for fault in MACHINES[machine].faults for clip in features(machine, "source", 6000, 20, fault)]
    labels = np.repeat([0, 1], [len(later), len(faulty)])
    print(f"\n{machine}: updates  recordings  AUC    normal alarms  faults found  learns s  ms per clip  bundle MB")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.harken"
        start = time.process_time()
        save_fitted(path, fitted(normal))
        seconds = time.process_time() - start
        for turn in range(updates + 1):
            if turn:
                domain = ("source", "target")[turn % 2]
                clips = heard(f"update {turn}", features(machine, domain, 100 * turn + 7000, 12), 1e6 + 1e5 * turn)
                start = time.process_time()
                change_model(path, update, clips, who=WHO, now=NOW)
                seconds = time.process_time() - start
            if turn not in (0, 1, 10, 25, updates):
                continue
            model = load_fitted(path)
            start = time.process_time()
            judged = judged_clips(model, [*later, *faulty])
            per_clip = 1e3 * (time.process_time() - start) / len(labels)
            area = roc_auc_score(labels, [clip.score for clip in judged])
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 2**20
            print(
                f"{turn:>{len(machine) + 9}}{len(model.training.names):>12}{area:>8.4f}{alarms(model, later):>13.1%}"
                f"{alarms(model, faulty):>14.0%}{seconds:>11.2f}{per_clip:>12.2f}{size:>11.1f}"
            )
        print(f"versions that are kept: {len(list_versions(path))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", nargs="+", default=["fan", "pump", "gearbox", "bearing"], choices=list(MACHINES))
    parser.add_argument("--updates", type=int, default=50)
    options = parser.parse_args()
    rows = [compare(machine) for machine in options.machines]
    print("         alarms before: normal, faulty      after: normal, faulty          threshold       refused")
    print("         source target source target source target source target   before  after")
    print("\n".join(first for first, _ in rows))
    print("\n         refused   faults found before, after, rolled back")
    print("\n".join(second for _, second in rows))
    grow(options.machines[0], options.updates)


if __name__ == "__main__":
    main()
