"""What separated and remixed clips do to detection: official scores on a simulated plant, several seeds.

    python benchmarks/separated_detection.py [--seeds 3] [--steps 300] [--noise-db 0]

Three machines under factory noise: the fan comes with clean clips, the pump with noise clips, the valve with neither. A
small separator is trained per machine. Detectors: 1-NN by cosine distance on the `spectral` encoder, and on a small
network that learned to tell machines, domains and attributes apart from recorded clips, or from recorded, separated and
remixed ones. Test clips: as recorded; plus the score of their separated sound, added or standardised.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import yaml

import harken
from harken.bench.recipe import load_recipe
from harken.bench.run import run_recipe
from harken.bench.workspace import Workspace
from harken.plant.simulate import simulate

MACHINES = ("fan", "pump", "valve")
NEAREST = {"use": "detect", "detector": "knn", "parameters": {"space": "raw", "metric": "cosine"}, "model": "machine"}
MADE = ["separated", "remixed"]
#: row of the table -> what the detector reads beside embeddings, and what the scores of separated test clips are for
SCORES = {
    "recorded clips": ([], "apart"),
    "+ score of separated clip": (["separated"], "added"),
    "+ the same, standardised": (["separated"], "standardised"),
    "separated and remixed clips in the bank": (MADE, "apart"),
    "both": (MADE, "added"),
}


def recipe_text(steps: int, remixed: int, epochs: int) -> str:
    """Separators, separated and remixed clips, three encoders, five detectors each."""
    training = {"epochs": epochs, "batch": 16, "learning_rate": 0.001, "seconds": 2.0, "choose": "last", "keep": 1,
                "losses": [{"name": "arcface", "parameters": {"scale": 30.0, "margin": 0.2}}]}  # fmt: skip
    branches = [{"encoder": "dasheng", "size": "tiny", "head": {"kind": "attentive", "dims": [64]}}]
    stages: dict[str, object] = {
        "separators": {"use": "train_separator", "size": "tiny",
                       "training": {"steps": steps, "batch": 2, "seconds": 1.0, "snr_db": [-5.0, 10.0], "rounds": 1}},
        "separated": {"use": "separate", "from": "separators"},
        "remixed": {"use": "remix", "from": "separated", "clips": remixed, "snr_db": [0.0, 10.0]},
        "classes": {"use": "labels", "policy": "ustc"},
        "classes_made": {"use": "labels", "policy": "ustc", "from": MADE},
        "train": {"use": "train", "from": "classes", "model": {"branches": branches}, "training": training},
        "train_made": {"use": "train", "from": ["classes_made", *MADE], "model": {"branches": branches},
                       "training": training},
        "spectral": {"use": "embed", "encoder": "spectral", "from": MADE},
        "learned": {"use": "embed_trained", "from": ["train", *MADE]},
        "learned_made": {"use": "embed_trained", "from": ["train_made", *MADE]},
    }  # fmt: skip
    systems = {}
    for encoder in ("spectral", "learned", "learned_made"):
        for number, (inputs, separated) in enumerate(SCORES.values()):
            name = f"{encoder}_{number}"
            stages[name] = {**NEAREST, "from": [encoder, *inputs], "separated": separated}
            systems[name] = name
    return yaml.safe_dump(
        {
            "name": "separated_detection",
            "title": "Separated clips",
            "summary": "Separated clips",
            "stages": stages,
            "systems": systems,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--remixed", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--noise-db", type=float, default=0.0)
    args = parser.parse_args()
    scores: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        recipe_file = Path(folder) / "recipe.yaml"
        recipe_file.write_text(recipe_text(args.steps, args.remixed, args.epochs))
        for seed in range(args.seeds):
            plant = Path(folder) / f"plant_{seed}"
            simulate(plant, machines=MACHINES, train_source=40, train_target=6, test_per_condition=25, supplemental=20,
                     seconds=2.0, noise_db=args.noise_db, seed=seed)  # fmt: skip
            for kind, machines in (("machine", ("pump", "valve")), ("noise", ("fan", "valve"))):
                for machine in machines:
                    for file in plant.glob(f"{machine}/supplemental/*_{kind}_*"):
                        file.unlink()
            recipe = load_recipe(str(recipe_file), changes={"seeds": [seed]})
            run = run_recipe(recipe, plant, Workspace(Path(folder) / "work"))
            (systems,) = harken.load_run(run.folder).results["sets"].values()
            for system, result in systems.items():
                scores.setdefault(system, []).append(result["official_score"])
    print(f"official score, mean and deviation over {args.seeds} plants")
    names = ("spectral", "learned from recorded clips", "learned from all")
    print("| " + " | ".join(("", *names)) + " |")
    for number, row in enumerate(SCORES):
        cells = []
        for encoder in ("spectral", "learned", "learned_made"):
            values = np.array(scores[f"{encoder}_{number}"])
            cells.append(f"{values.mean():.3f} ±{values.std(ddof=min(1, len(values) - 1)):.3f}")
        print("| " + " | ".join((row, *cells)) + " |")


if __name__ == "__main__":
    main()
