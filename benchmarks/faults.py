"""What the commands say of small inputs that are wrong in one way each, as a table: command, exit code, what it prints.

python benchmarks/faults.py [--faults $HARKEN_SHARED/faults] [--only 01,14,text,models]

Folders of faults are numbered; `text`, `models` and `recipes` are further inputs of the same kinds, made here.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile as sf

from harken.bench.recipe import recipe_text
from harken.monitor.bundle import read_bundle, write_bundle
from shared_folder import shared_folder

HARKEN = (sys.executable, "-c", "from harken.cli.main import run; run()")
RATE = 16_000
#: folders and groups of `more_cases`
MORE = ("06-dc-offset", "08-decimal-comma-scores", "09-unknown-labels-are-normal", "10-comma-in-clip-name",
        "11-shorter-clips", "12-explanation-sign", "text", "models", "recipes")  # fmt: skip
Case = tuple[str, Path, list[str], dict[str, str]]


def machine(seed: int, seconds: float = 2.0, fault: bool = False) -> np.ndarray:
    """(samples,) harmonics in noise; a fault adds a modulated tone."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * 120 * k * time + rng.uniform(0, 6.3)) / k for k in range(1, 9))
    sound = 0.03 * sound + 0.05 * rng.normal(size=len(time))
    return (sound + 0.1 * fault * np.sin(2 * np.pi * 2_900 * time)).astype(np.float32)


def recordings(folder: Path, names: list[str], first_seed: int = 0) -> Path:
    """Normal recordings under these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names, start=first_seed):
        sf.write(os.fsencode(folder / name), machine(seed), RATE, format="WAV")
    return folder


def cases(faults: Path, work: Path) -> Iterator[Case]:
    """Folder, where to run, words of the command, variables."""
    model = work / "m.harken"
    recordings(work / "learned", [f"{seed}.wav" for seed in range(8)])
    called(["fit", "learned", "-o", model.name], work, {})
    for name in ("01-cut-off-unseen", "02-header-shorter-than-file", "03-header-never-finalised",
                 "04-flac-unknown-length", "18-unclear-refusals"):  # fmt: skip
        folder = Path(shutil.copytree(faults / name, work / name))
        (folder / "README").unlink(missing_ok=True)
        for file in sorted(folder.iterdir()):
            yield name, work, ["score", f"{name}/{file.name}", "-m", model.name, "--formats", "all"], {}
        yield name, work, ["data", "check", name], {}
    tree = work / "04"
    (tree / "fan" / "train").mkdir(parents=True)
    file = faults / "04-flac-unknown-length" / "ffmpeg_segment.flac"
    shutil.copy(file, tree / "fan" / "train" / "section_00_source_train_normal_0000_x.flac")
    yield "04-flac-unknown-length", work, ["data", "index", "04", "--headers", "--json"], {}

    names = ["a.wav", "two\nlines.wav", "esc\x1b[31m.wav", os.fsdecode(b"L\xfcfter.wav"), "\U0001f3ed.wav"]
    recordings(work / "names", names, first_seed=20)
    for number in ("13-latin1-names", "20-stdout-encoding"):
        yield number, work, ["score", "names", "-m", model.name, "--json"], {"PYTHONIOENCODING": "cp1252"}
    yield "13-latin1-names", work, ["score", "names", "-m", model.name, "--report", "r.html"], {}
    recordings(work / "latin1" / "fan" / "train", [os.fsdecode(b"section_00_source_train_normal_0000_ger\xe4t_6.wav")])
    yield "13-latin1-names", work, ["data", "index", "latin1"], {}

    recordings(work / "store" / "shift1", [f"{seed}.wav" for seed in range(4)], first_seed=40)
    recordings(work / "normal", [f"n{seed}.wav" for seed in range(4)], first_seed=50)
    (work / "only_links").mkdir()
    for link in (work / "normal" / "more", work / "only_links" / "shift1"):
        link.symlink_to("../store/shift1")
    yield "14-linked-folders", work, ["fit", "normal", "-o", "x.harken"], {}
    yield "14-linked-folders", work, ["fit", "only_links", "-o", "x.harken"], {}
    normal = Path(shutil.copytree(faults / "15-recycle-bin-and-endings" / "normal", work / "15"))
    (normal / "phone.m4a").touch()
    (normal / "old.mp3").touch()
    yield "15-recycle-bin-and-endings", work, ["fit", "15", "-o", "x.harken"], {}

    plant = ["simulate", "tree", "--machine", "fan", "--train-source", "12", "--train-target", "4", "--test", "4"]
    called([*plant, "--seconds", "1"], work, {})
    decomposed = Path(shutil.copytree(work / "tree" / "fan", work / "nfd" / "Lu\u0308fter"))
    yield "21-nfc-nfd", work, ["data", "index", "nfd", "--json"], {}
    assert decomposed.is_dir()
    shift = work / "tree" / "fan" / "test" / "shiftA"
    shift.mkdir()
    for file in sorted((work / "tree" / "fan" / "test").glob("*.wav")):
        file.rename(shift / file.name)
    yield "23-clips-below-test-subfolders", work, ["data", "index", "tree"], {}
    yield "23-clips-below-test-subfolders", work, ["run", "spectral_knn", "--data", "tree", "--workspace", "w"], {}


def more_cases(faults: Path, work: Path) -> Iterator[Case]:
    """Offsets, lengths, sentences, scores; tables, models and recipes of strangers."""
    for name in MORE[:6]:
        shutil.copytree(faults / name, work / name)
    shutil.copy(faults / "gen.py", work)
    for kind in ("mems", "u8"):
        yield "06-dc-offset", work / "06-dc-offset", ["fit", kind, "-o", "x.harken"], {}
    for script in ("06-dc-offset/alarm", "11-shorter-clips", "12-explanation-sign"):
        yield script.partition("/")[0], work / script, ["check.py"], {}
    for kind in ("german", "right"):
        yield "08-decimal-comma-scores", work / "08-decimal-comma-scores", ["evaluate", kind], {}
    for file in sorted((work / "09-unknown-labels-are-normal").glob("*.csv")):
        yield "09-unknown-labels-are-normal", file.parent, ["evaluate", file.name], {}
    commas = work / "10-comma-in-clip-name"
    yield commas.name, commas, ["run", "spectral_knn", "--data", ".", "--workspace", "w"], {}
    for scores in commas.glob("w/runs/*/scores"):
        yield commas.name, commas, ["evaluate", str(scores.relative_to(commas))], {}

    text = work / "text"
    text.mkdir()
    right = (faults / "09-unknown-labels-are-normal" / "right.csv").read_text()
    head, _, rows = right.partition("\n")
    first = rows.partition("\n")[0]
    cells = first.split(",")
    tables = {
        "header_twice": f"{head},sysA\n" + "".join(f"{row},0\n" for row in rows.splitlines()),
        **{
            name: right.replace(first, ",".join([*cells[:-1], cell]), 1)
            for name, cell in (("underscore", "1_000"), ("full_width", "\uff11"), ("nul", "0.3\0"), ("nan", "nan"))
        },
        "machine_outside": right.replace("fan,", "../../fan,"),
    }
    for name, content in tables.items():
        (text / f"{name}.csv").write_text(content, encoding="utf-8")
        yield "text", text, ["evaluate", f"{name}.csv"], {}
    with gzip.open(text / "bomb.csv.gz", "wb", 9) as handle:
        handle.write(f"{head}\n".encode())
        for _ in range(200):
            handle.write(b"0" * 10**6)
    yield "text", text, ["evaluate", "bomb.csv.gz"], {}
    called(
        ["simulate", "tree", "--machine", "fan", "--train-source", "3", "--train-target", "3", "--test", "3"], text, {}
    )
    table = text / "tree" / "fan" / "attributes_00.csv"
    table.write_text(table.read_text().replace("\n", ",more\n", 2).replace(",more\n", "\n", 1))
    yield "text", text, ["data", "index", "tree"], {}

    sound = sorted((work / "learned").glob("*.wav"))[0]
    for name in ("link", "pipe", "device", "nan"):
        copy = Path(shutil.copytree(work / "m.harken", work / "models" / f"{name}.harken"))
        (file,) = copy.glob("training.*")
        content = file.rename(work / "models" / f"content {name}")
        if name == "link":
            file.symlink_to(content)
        elif name == "pipe":
            os.mkfifo(file)
        elif name == "device":
            file.symlink_to("/dev/zero")
        else:
            shutil.rmtree(copy)
            settings, parts = read_bundle(work / "m.harken")
            parts["detector"]["bank_"] = parts["detector"]["bank_"] * np.nan
            write_bundle(copy, settings, parts)
        yield "models", work / "models", ["score", str(sound), "-m", copy.name], {}

    recipes = work / "recipes"
    recipes.mkdir()
    recipe = recipe_text("spectral_knn")
    bomb = "&a [x, x, x, x, x, x, x, x, x]"
    for level in "bcdefgh":
        bomb = f"&{level} [{', '.join([bomb] + [f'*{chr(ord(level) - 1)}'] * 8)}]"
    changed = {
        "outside": recipe.replace("name: spectral_knn", "name: ../../../outside"),
        "device": recipe.replace("name: spectral_knn", "name: con"),
        "aliases": recipe + f"\nx: {bomb}\n",
        "custom": recipe.replace("detector: knn", f"detector: {recipes / 'mine.py'}:Mine"),
    }
    (recipes / "mine.py").write_text(f"open({str(recipes / 'ran')!r}, 'w')\n")
    for name, content in changed.items():
        (recipes / f"{name}.yaml").write_text(content)
        yield "recipes", recipes, ["recipe", "show", f"{name}.yaml"], {}
    yield "recipes", recipes, ["plan", "custom.yaml", "--data", "../10-comma-in-clip-name"], {}
    run = ["run", "spectral_knn", "--data", "../10-comma-in-clip-name", "--workspace", "w"]
    yield "recipes", recipes, [*run, "--set", "stages.x.y=1"], {}


def called(words: list[str], folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own."""
    environment = {**os.environ, **variables}
    program = [sys.executable] if words[0].endswith(".py") else HARKEN
    return subprocess.run([*program, *words], cwd=folder, env=environment, capture_output=True, check=False)


def main() -> None:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=Path)
    parser.add_argument("--only", default="", help="first digits of folders, separated by commas")
    options = parser.parse_args()
    faults = options.faults or shared_folder() / "faults"
    chosen = tuple(options.only.split(","))
    with tempfile.TemporaryDirectory() as work:
        last = ""
        more = more_cases(faults, Path(work)) if any(name.startswith(chosen) for name in MORE) else iter(())
        for folder, place, words, variables in chain(cases(faults, Path(work)), more):
            if not folder.startswith(chosen):
                continue
            if folder != last:
                print(f"\n## {folder}")
                last = folder
            done = called(words, place, variables)
            before = " ".join(f"{name}={value}" for name, value in variables.items())
            program = "python" if words[0].endswith(".py") else "harken"
            print(f"{before} {program} {' '.join(words)}".strip(), f"-> {done.returncode}")
            for text in (done.stdout + done.stderr).splitlines()[-8:]:
                print("    " + text.decode("ascii", "backslashreplace").replace(work, ".")[:230])
            sys.stdout.flush()


if __name__ == "__main__":
    main()
