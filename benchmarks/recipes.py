"""Recipes of published systems at small size, end to end: time, second runs, resumption after kills.

python benchmarks/recipes.py runs          on a simulated plant of three machines, up to a submission, then again
python benchmarks/recipes.py kills         killed at five random moments each: same bytes at the end; with --ray, also
                                           on Ray. --after thuee_system1: in a workspace that has this recipe's stages
                                           and those of the recipes before. --set seeds=[0]: smaller
python benchmarks/recipes.py real          on real recordings of 2020 and 2023 as one tree (HARKEN_SHARED)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from harken.plant.simulate import simulate
from shared_folder import shared_folder

RECIPES = (
    "sjtu_aithu", "nwpu_fusion", "unisound", "ustc", "ustc_attributes", "thuee_system1", "thuee_system2",
    "thuee_system3", "thuee_system4", "training_free", "baseline_ae",
)  # fmt: skip
META = {
    "submission": {
        "name": "A system",
        "abbreviation": "Sys",
        "authors": [{"firstname": "Jo", "lastname": "Doe", "affiliation": {"institute": "Example Institute"}}],
    }
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["runs", "kills", "real"])
    parser.add_argument("--recipe", action="append", choices=RECIPES)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--after", choices=RECIPES)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--set", action="append", default=[], help="as of harken run; of kills")
    args = parser.parse_args()
    chosen = args.recipe or list(RECIPES)
    changes = [word for change in args.set for word in ("--set", change)]
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        if args.what == "real":
            data = here / "data"
            data.mkdir()
            for year in ("dcase2020", "dcase2023"):
                (data / year).symlink_to(shared_folder() / "corpus" / year)
            real(chosen, data, here)
            return
        plant = here / "plant"
        # One machine has hidden operating conditions; all have clean and noise clips.
        simulate(
            plant, machines=["fan", "slider", "valve"], hide_attributes=["slider"], train_source=40, train_target=5,
            test_per_condition=10, supplemental=10, seconds=2.0,
        )  # fmt: skip
        if args.what == "runs":
            runs(chosen, plant, here)
        else:
            if args.after is not None:
                finished(args.after, plant, here / "whole", *changes)
            kills(chosen, plant, here, args.kills, args.seed, changes, shared=args.after is not None, ray=args.ray)


def command(recipe: str, data: Path, workspace: Path) -> list[str]:
    return [
        sys.executable, "-m", "harken.cli.main", "run", recipe, "--profile", "tiny", "--data", str(data), "--workspace",
        str(workspace),
    ]  # fmt: skip


def finished(recipe: str, data: Path, workspace: Path, *options: str) -> tuple[float, str]:
    """Seconds, and what it told."""
    begun = time.monotonic()
    words = [*command(recipe, data, workspace), *options]
    done = subprocess.run(words, capture_output=True, text=True, env=environment())
    if done.returncode:
        raise SystemExit(f"{recipe}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return time.monotonic() - begun, done.stdout + done.stderr


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def stages_run(told: str) -> int:
    return next(int(line.split()[0]) for line in told.splitlines() if " stages run, " in line)


def results_of(workspace: Path) -> dict[str, dict[str, dict[str, object]]]:
    (file,) = workspace.glob("runs/*/results.json")
    return json.loads(file.read_text())["sets"]


def named(system: str, entry: dict[str, object]) -> str:
    """With its marks, such as "tuned on test"."""
    return system + "".join(f" ({mark})" for mark in entry.get("marks", []))


def runs(recipes: list[str], plant: Path, here: Path) -> None:
    meta = here / "meta.yaml"
    meta.write_text(yaml.safe_dump(META))
    print(f"{'recipe':<16}{'stages':>7}{'s':>6}{'again: stages':>15}{'s':>5}{'submission':>12}   official scores")
    for recipe in recipes:
        workspace = here / recipe
        seconds, told = finished(recipe, plant, workspace)
        again, told_again = finished(recipe, plant, workspace)
        (folder,) = workspace.glob("runs/*")
        out = here / f"{recipe}.zip"
        submit = [sys.executable, "-m", "harken.cli.main", "submit", str(folder), "--label", "Doe_EX_task2", "--meta"]
        subprocess.run([*submit, str(meta), "-o", str(out)], check=True, capture_output=True)
        print(
            f"{recipe:<16}{stages_run(told):>7}{seconds:>6.0f}{stages_run(told_again):>15}{again:>5.0f}"
            f"{out.stat().st_size // 1024:>8} kiB",
            flush=True,
        )
        for systems in results_of(workspace).values():
            for system, entry in systems.items():
                left_out = (entry.get("mix") or {}).get("left_out")
                apart = f", machines left out {left_out:.4f}" if left_out is not None else ""
                print(f"    {named(system, entry)}: {entry.get('official_score', float('nan')):.4f}{apart}")


def kills(
    recipes: list[str], plant: Path, here: Path, count: int, seed: int, changes: list[str], *, shared: bool, ray: bool
) -> None:
    """changes: options of every run. shared: each recipe begins with the stages of those before."""
    drawn = random.Random(seed)
    others = ("killed", "ray") if ray else ("killed",)
    for recipe in recipes:
        for name in others if shared else ():
            shutil.copytree(here / "whole", here / name)
        seconds, told = finished(recipe, plant, here / "whole", *changes)
        print(f"{recipe}: {stages_run(told)} stages, {seconds:.0f} s whole", flush=True)
        moments = []
        for _ in range(count):
            # Starting takes some seconds, each time.
            wait = 2.5 + drawn.uniform(0.0, 1.6 * seconds / count)
            process = subprocess.Popen(
                [*command(recipe, plant, here / "killed"), *changes], stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True, env=environment(),
            )  # fmt: skip
            try:
                process.wait(wait)
                moments.append("ended by itself")
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                moments.append(f"{wait:.0f} s")
        _, told = finished(recipe, plant, here / "killed", *changes)
        killed = f"killed after {', '.join(moments)}; then {stages_run(told)} stages"
        print(f"{recipe}: {killed}: {compared(here / 'whole', here / 'killed')}", flush=True)
        if ray:
            seconds, told = finished(recipe, plant, here / "ray", *changes, "--executor", "ray")
            verdict = compared(here / "whole", here / "ray")
            print(f"{recipe}: on Ray, {stages_run(told)} stages, {seconds:.0f} s: {verdict}", flush=True)
        for name in others if shared else ("whole", *others):
            shutil.rmtree(here / name)


def compared(workspace: Path, other: Path) -> str:
    same = {part: digest(workspace / part) == digest(other / part) for part in ("objects", "runs")}
    return "the same bytes" if all(same.values()) else f"DIFFERENT: {same}"


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def real(recipes: list[str], data: Path, here: Path) -> None:
    for recipe in recipes:
        seconds, told = finished(recipe, data, here / recipe)
        print(f"{recipe}: {stages_run(told)} stages, {seconds:.0f} s")
        for label, systems in results_of(here / recipe).items():
            for system, entry in systems.items():
                score = entry.get("official_score")
                print(
                    f"    {label}, {named(system, entry)}: "
                    + ("no official score" if score is None else f"{score:.4f}")
                )
        kept = ("note: ", "left out: ", "set aside: ")
        notes = [line for line in told.splitlines() if line.startswith(kept) and "attributes_" not in line]
        kinds = dict.fromkeys(
            "left out: machines with too few training clips" if "too few to learn" in line else line for line in notes
        )
        for line in kinds:
            print(f"    {line[:200]}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
