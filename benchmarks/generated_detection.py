"""What generated clips of a rare condition do to detection, and how like real ones they are: a simulated plant.

    python benchmarks/generated_detection.py [--plants 0 1 2 3 4] [--kept FOLDER]

Three machines, each with one condition of four training clips, which is its target domain: its test clips are of this
condition. A network learns to tell machines and conditions apart, in as many steps with and without more clips of the
rare condition: repeated ones, those of two generators, screened or not, and, as the best that a generator could give,
further real ones. Detector: the nearest clip by cosine distance, of recorded clips or of all.

Then the numbers of `generation_report`, against clips that nothing has learned from, the normal test clips: in the
embedding of the network that has learned recorded clips alone, and by mean log-mels.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

import harken
from harken.bench.recipe import load_recipe
from harken.bench.run import load_clips, run_recipe
from harken.bench.stages.tables import read_arrays, read_clips, read_row_of
from harken.bench.workspace import Workspace
from harken.core.files import write_atomically
from harken.data.clips import Clip
from harken.generation.conditions import ConditionKey
from harken.generation.diffusion_settings import FrontEndSpec
from harken.generation.front_end import SpectrogramFrontEnd
from harken.generation.likeness import likeness
from harken.plant.simulate import simulate
from harken.training.recordings import Reader

MACHINES = ("fan", "slider", "valve")
SECONDS = 1.0
RARE, SOURCE = 4, 48
ENCODER = "beats"
#: row of the tables -> stage that makes its clips
SOURCES = {
    "rare clips repeated": "repeated",
    "small diffusion": "diffusion",
    "small diffusion, screened": "diffusion_kept",
    "TangoFlux, tiny": "tangoflux",
    "TangoFlux, tiny, screened": "tangoflux_kept",
    "further real clips": "real",
}
#: classifier -> clips -> stage that screens them
SCREENINGS = {
    "Xception": {"small diffusion": "diffusion_kept", "further real clips": "real_by_xception"},
    "network": {"TangoFlux, tiny": "tangoflux_kept", "further real clips": "real_by_network"},
}
BASE = {"no clips": "none", "no clips, SMOTE in the bank": "none_smote", "noise and mixup": "noise"}
NEAREST: dict[str, Any] = {"use": "detect", "detector": "knn"}
COSINE = {"space": "raw", "metric": "cosine"}


def recipe_text(args: argparse.Namespace, folders: Mapping[str, Path], seed: int) -> str:
    """Of a plant, whose seed is that of everything."""
    training = {"steps": args.steps, "batch": 16, "learning_rate": 0.001, "warmup": 10, "seconds": SECONDS,
                "evaluate_every": args.steps, "choose": "last", "keep": 1,
                "losses": [{"name": "scadacos"}]}  # fmt: skip
    model = {"branches": [{"encoder": ENCODER, "size": "tiny", "head": {"kind": "attentive", "dims": [64]}}]}
    labels = {"use": "labels", "policy": "thuee"}
    generator = {"learning_rate": 0.001, "warmup": 20}
    stages: dict[str, Any] = {
        "rare": {"use": "rare_conditions", "share": 1.0, "factor": 10.0},
        "unet": {"use": "train_diffusion", "seed": seed, "size": args.size, "front_end": {"encoder": ENCODER},
                 "training": {**generator, "batch": 4, "steps": args.diffusion_steps, "seconds": SECONDS, "ema": 0.99}},
        "diffusion": {"use": "generate", "seed": seed, "from": ["rare", "unet"], "sampling": {"steps": 20}},
        "xception": {"use": "train_classifier", "seed": seed, "size": "tiny", "front_end": {"encoder": ENCODER},
                     "training": {"steps": args.steps, "batch": 16, "seconds": SECONDS, "warmup": 10}},
        "diffusion_kept": {"use": "screen", "from": ["diffusion", "xception"]},
        "flow": {"use": "finetune_tangoflux", "seed": seed, "weights": None, "size": "tiny",
                 "training": {**generator, "batch": 2, "steps": args.tangoflux_steps}},
        "tangoflux": {"use": "generate", "seed": seed, "from": ["rare", "flow"], "generator": "tangoflux",
                      "sampling": {"s0": args.s0, "steps": 20}},
        "tangoflux_kept": {"use": "screen", "classifier": "trained",
                           "from": ["tangoflux", "classes", "net"]},
        # How often the classifiers recognise real clips.
        "real_by_xception": {"use": "screen", "from": ["real", "xception"], "limit": 1.0},
        "real_by_network": {"use": "screen", "classifier": "trained", "from": ["real", "classes", "net"]},
        "repeated": {"use": "import_clips", "folder": str(folders["repeated"])},
        "real": {"use": "import_clips", "folder": str(folders["real"])},
        "classes": labels,
        "net": {"use": "train", "from": "classes", "model": model, "training": training},
        "embedding": {"use": "embed_trained", "from": "net"},
        "none": {**NEAREST, "from": "embedding", "parameters": COSINE},
        "none_smote": {**NEAREST, "from": "embedding", "parameters": {**COSINE, "oversample": "smote"}},
        "net_noise": {"use": "train", "from": "classes", "model": model,
                      "training": {**training, "augmentation": {"noise_mix": {}, "mixup": {}}}},
        "embedding_noise": {"use": "embed_trained", "from": "net_noise"},
        "noise": {**NEAREST, "from": "embedding_noise", "parameters": COSINE},
        # Of all clips, by the network that has learned recorded ones alone.
        "embedding_all": {"use": "embed_trained", "from": ["net", "diffusion", "tangoflux", "real"], },
    }  # fmt: skip
    systems = {name: name for name in BASE.values()}
    for name in SOURCES.values():
        embedding = f"embedding_{name}"
        stages |= {
            f"classes_{name}": {**labels, "from": name},
            f"net_{name}": {"use": "train", "from": [f"classes_{name}", name], "model": model, "training": training},
            embedding: {"use": "embed_trained", "from": [f"net_{name}", name]},
            f"{name}_real": {**NEAREST, "from": embedding, "parameters": COSINE},
            f"{name}_bank": {**NEAREST, "from": [embedding, name], "parameters": COSINE},
        }
        systems |= {system: system for system in (f"{name}_real", f"{name}_bank")}
    text = {"name": "generated_detection", "title": "Generated clips", "summary": "Generated clips",
            "seeds": [seed], "stages": stages, "systems": systems}  # fmt: skip
    return yaml.safe_dump(text)


def make_plant(folder: Path, seed: int) -> dict[str, Path]:
    """A plant, and folders with its rare clips repeated and with further real ones, each with a manifest."""
    plant, larger = folder / "plant", folder / "larger"
    form: dict[str, Any] = {"machines": MACHINES, "supplemental": 6, "seconds": SECONDS, "seed": seed}
    simulate(plant, train_source=SOURCE, train_target=2 * RARE, test_per_condition=40, **form)
    simulate(larger, train_source=1, train_target=2 * SOURCE // 3, test_per_condition=1, **form)
    for file in [*plant.glob("*/*/*_target_*"), *larger.glob("*/*/*_target_*")]:
        # Conditions of the target domain are used in rotation; the second one is left out.
        if int(file.name.split("_")[5]) % 2:
            file.unlink()
    for table in plant.glob("*/attributes_*.csv"):
        rows = list(csv.reader(io.StringIO(table.read_text())))
        kept = [row for row in rows if row == rows[0] or (plant / row[0]).is_file()]
        table.write_text("".join(",".join(row) + "\n" for row in kept))
    id_of = {clip.path.name: clip.clip_id for clip in load_clips(plant)[0]}
    folders = {"repeated": folder / "repeated", "real": folder / "real"}
    lines: dict[str, list[str]] = {name: ["file,id,parent"] for name in folders}
    for name in folders:
        folders[name].mkdir()
    for machine in MACHINES:
        rare = sorted((plant / machine / "train").glob("*_target_*"))
        further = sorted((larger / machine / "train").glob("*_target_*"))[RARE:]
        # As many as the largest condition has: the slider has four in the source domain, the others three.
        for number in range(SOURCE // (4 if machine == "slider" else 3) - RARE):
            parent = rare[number % RARE]
            for name, source in (("repeated", parent), ("real", further[number])):
                file = f"{machine}_{number}.wav"
                shutil.copyfile(source, folders[name] / file)
                lines[name].append(f"{file},{name}/{file},{id_of[parent.name]}")
    for name, rows in lines.items():
        (folders[name] / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folders


def spectra(clips: Sequence[Clip]) -> NDArray[np.float64]:
    """(clips, bins) mean of the normalised log-mels over time."""
    front_end = SpectrogramFrontEnd(FrontEndSpec(encoder=ENCODER), SECONDS)
    reader = Reader(front_end.sample_rate, SECONDS)
    rows = []
    for clip in clips:
        if clip.payload == "spectrogram":
            x_FM = front_end.form.read(clip)
        else:
            x_FM = front_end.spectrograms(torch.from_numpy(reader(clip)[None]))[0].numpy()
        rows.append(x_FM.mean(axis=0, dtype=np.float64))
    return np.stack(rows)


def likenesses(run: harken.LoadedRun, plant: Path) -> dict[str, list[dict[str, Any]]]:
    """Of each source, of each machine: likeness of its clips to held-out real ones, by both embeddings."""
    of_net: dict[str, NDArray[np.float64]] = {}
    for folder in run._objects("embedding_all", "embeddings.safetensors"):
        x_ND = read_arrays(folder / "embeddings.safetensors")["embeddings"].astype(np.float64)
        x_ND /= np.linalg.norm(x_ND, axis=1, keepdims=True)
        of_net |= {clip_id: x_ND[row] for clip_id, row in read_row_of(folder).items()}
    spaces: dict[str, Callable[[Sequence[Clip]], NDArray[np.float64]]] = {
        "network": lambda clips: np.stack([of_net[clip.clip_id.split("#screened")[0]] for clip in clips]),
        "log-mels": spectra,
    }
    clips = load_clips(plant)[0]
    made = {row: read_clips(run._objects(stage, "clips.parquet")[0]) for row, stage in SOURCES.items()}
    made["training clips themselves"] = [clip for clip in clips if (clip.split, clip.domain) == ("train", "target")]
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for machine in MACHINES:
        of_machine = [clip for clip in clips if clip.machine == machine]
        held_out = [clip for clip in of_machine if (clip.split, clip.condition) == ("test", "normal")]
        training = [clip for clip in of_machine if clip.split == "train"]
        for source, all_clips in made.items():
            chosen = [clip for clip in all_clips if clip.machine == machine]
            if not chosen or source == "rare clips repeated":
                continue
            row: dict[str, Any] = {"clips": len(chosen)}
            for space, vectors in spaces.items():
                key = ConditionKey.of(chosen[0])
                beside = likeness(vectors(chosen), vectors(held_out), list(map(ConditionKey.of, held_out)), key)
                copies = likeness(vectors(chosen), vectors(training), list(map(ConditionKey.of, training)), key).copies
                frechet = None if beside.frechet is None else beside.frechet / beside.floor
                row |= {f"{space}: same": beside.same, f"{space}: two-sample": beside.test, f"{space}: copies": copies,
                        f"{space}: Frechet / floor": frechet}  # fmt: skip
            rows[source].append(row)
    return rows


def mean(values: Sequence[float | None]) -> str:
    """Of those that are numbers."""
    numbers = [value for value in values if value is not None]
    return f"{np.mean(numbers):.2f}" if numbers else "-"


def measured(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Numbers of a plant: of each system the official score, and the target AUC of each machine; likenesses; notes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folders = make_plant(folder, seed)
        recipe_file = folder / "recipe.yaml"
        recipe_file.write_text(recipe_text(args, folders, seed))
        done = run_recipe(load_recipe(str(recipe_file)), folder / "plant", Workspace(folder / "work"))
        run = harken.load_run(done.folder)
        (systems,) = run.results["sets"].values()
        scores = {}
        for system, entry in systems.items():
            (result,) = entry["seeds"].values()
            targets = [result["machines"][machine]["section_00"]["auc_target"] for machine in MACHINES]
            scores[system] = {"official": result["official_score"], "targets": targets}
        notes = [f"{failure.name}: {failure.error}" for failure in done.failures] + list(done.notes)
        kept = {
            classifier: {row: verdicts(run._objects(stage, "screening.json")[0]) for row, stage in stages.items()}
            for classifier, stages in SCREENINGS.items()
        }
        return {"scores": scores, "like": likenesses(run, folder / "plant"), "kept": kept, "notes": notes}


def verdicts(folder: Path) -> dict[str, int]:
    """Number of clips by what a screening says of them."""
    return Counter(row["verdict"] for row in json.loads((folder / "screening.json").read_text())["clips"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plants", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds of the plants")
    parser.add_argument("--steps", type=int, default=100, help="of each network and classifier")
    parser.add_argument("--size", default="tiny", help="of the U-Net")
    parser.add_argument("--diffusion-steps", type=int, default=250)
    parser.add_argument("--tangoflux-steps", type=int, default=250)
    parser.add_argument("--s0", type=float, default=0.3)
    parser.add_argument("--kept", type=Path, help="folder with the numbers of plants that were done, which are kept")
    args = parser.parse_args()
    plants = []
    for seed in args.plants:
        file = None if args.kept is None else args.kept / f"{seed}.json"
        if file is not None and file.is_file():
            plants.append(json.loads(file.read_text()))
            continue
        plants.append(measured(args, seed))
        for note in plants[-1]["notes"]:
            print(f"plant {seed}: {note}")
        if file is not None:
            write_atomically(file, json.dumps(plants[-1]).encode())
    print_tables(plants)


def print_tables(plants: Sequence[Mapping[str, Any]]) -> None:
    """Change of the target AUC by machine and plant, with its standard error."""
    base_N = np.ravel([plant["scores"]["none"]["targets"] for plant in plants])
    print(
        f"{len(plants)} plants of {len(MACHINES)} machines: means and deviations; change of the target AUC per machine"
    )
    print("| clips learned from | bank | official score | target AUC | change | up |\n" + "|---" * 6 + "|")
    listed = [(row, "recorded", system) for row, system in BASE.items()]
    for row, stage in SOURCES.items():
        listed += [(row, "recorded", f"{stage}_real"), (row, "all", f"{stage}_bank")]
    for row, bank, system in listed:
        official_P = np.array([plant["scores"][system]["official"] for plant in plants])
        target_N = np.ravel([plant["scores"][system]["targets"] for plant in plants])
        change_N = target_N - base_N
        error = change_N.std(ddof=1) / len(change_N) ** 0.5
        print(f"| {row} | {bank} | {official_P.mean():.3f} ±{official_P.std(ddof=min(1, len(plants) - 1)):.3f} "
              f"| {target_N.mean():.3f} | {change_N.mean():+.3f} ±{error:.3f} "
              f"| {(change_N > 0).sum()} of {len(change_N)} |")  # fmt: skip
    names = list(plants[0]["like"]["further real clips"][0])
    print("\n| clips | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    for source in plants[0]["like"]:
        rows = [row for plant in plants for row in plant["like"].get(source, ())]
        print(f"| {source} | " + " | ".join(mean([row[name] for row in rows]) for name in names) + " |")
    for classifier, stages in SCREENINGS.items():
        for row in stages:
            counts = sum((Counter(plant["kept"][classifier][row]) for plant in plants if "kept" in plant), Counter())
            print(f"screened by the {classifier}, {row}: {dict(counts)}")


if __name__ == "__main__":
    main()
