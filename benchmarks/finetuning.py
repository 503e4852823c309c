"""Fine-tuning: scores, cost of a step, resumption of killed training.

    python benchmarks/finetuning.py plant [--seeds 3] [--steps 300]   simulated machines: frozen, fine-tuned, LoRA
    python benchmarks/finetuning.py hidden                            hidden attributes: centres, prototypes, clusters
    python benchmarks/finetuning.py noise                             noise-aware training at a low SNR
    python benchmarks/finetuning.py real                              efficientat on real clips
    python benchmarks/finetuning.py toycar                            a CNN on normal clips of ToyCar id_04
    python benchmarks/finetuning.py steps                             time and memory of a step of BEATs
    python benchmarks/finetuning.py kills [--kills 20]                SIGKILL at random moments

Scores are official scores of 1-NN by cosine distance on raw embeddings, mean and deviation over seeds; `frozen` is the
same encoder before training with mean pooling, `random` the same architecture with random weights.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harken.bench.run import load_clips
from harken.data.clips import Clip
from harken.data.labels import agreement, label_clips, pseudo_attributes
from harken.detection import create_detector
from harken.embeddings.trained import TrainedEmbedder
from harken.evaluation.metrics import SectionResult, official_score, section_result
from harken.plant.simulate import simulate
from harken.training.checkpoints import read_checkpoint
from harken.training.loop import TrainedModel, train
from harken.training.model_spec import ModelSpec
from harken.training.models import ASDModel, build_model
from harken.training.settings import TrainingSpec
from shared_folder import shared_folder

#: best settings: mean pooling, mixup, several centres per class
HEAD: dict[str, Any] = {"kind": "mean"}
# The scale of that loss is adaptive, so that held-out losses of different steps are not comparable.
LEARNING: dict[str, Any] = {"losses": [{"name": "scadacos"}], "augmentation": {"mixup": {}}, "choose": "last"}
#: alternative: a dense head, ArcFace
DENSE = {"head": {"kind": "attentive", "dims": [64]}}


def real_weights() -> str:
    """Weights of efficientat mn04, trained on AudioSet."""
    return str(shared_folder() / "weights" / "mn04_as_mAP_432.pt")


def branch(encoder: str, weights: str | None, **more: Any) -> dict[str, Any]:
    size = {} if weights else {"size": "tiny"}
    return {"encoder": encoder, "weights": weights, **size, "head": HEAD, **more}


def spec_of(seed: int, *branches: dict[str, Any]) -> ModelSpec:
    return ModelSpec.model_validate({"branches": branches, "seed": seed})


def embeddings(model: ASDModel, clips: Sequence[Clip], training: TrainingSpec) -> np.ndarray:
    embed = TrainedEmbedder(model, training)
    return np.stack([embed(clip) for clip in clips])


def score(model: ASDModel, clips: Sequence[Clip], training: TrainingSpec) -> float:
    """Official score over machines."""
    found = embeddings(model, clips, training)
    rows: dict[str, list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        rows[clip.machine].append(row)
    results: list[SectionResult] = []
    for members in rows.values():
        bank = [row for row in members if clips[row].split == "train"]
        test = [row for row in members if clips[row].split == "test"]
        detector = create_detector("knn", {"space": "raw", "metric": "cosine"})
        detector.fit(found[bank])
        results.append(
            section_result(
                np.array([clips[row].condition == "anomaly" for row in test]),
                np.array([clips[row].domain == "target" for row in test]),
                detector.score(found[test]),
            )
        )
    return official_score(results)


def trained(model: ModelSpec, training: TrainingSpec, clips: Sequence[Clip], policy: str, **more: Any) -> TrainedModel:
    normal = [clip for clip in clips if clip.split != "test"]
    table = more.pop("table", None) or label_clips(normal, policy)
    with tempfile.TemporaryDirectory() as place:
        done = train(model, training, normal, table, Path(place), **more)
        # The best checkpoint by held-out clips, not the last.
        done.model.load_state(dict(_state_of(done)))
    return done


def _state_of(done: TrainedModel) -> Any:
    arrays = read_checkpoint(done.checkpoints[0]).arrays
    return {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}


def spread(values: Sequence[float], scale: float = 100.0) -> str:
    return f"{scale * np.mean(values):6.1f} ±{scale * np.std(values):4.1f}"


def make_plant(root: Path, seed: int = 0, **more: Any) -> list[Clip]:
    sizes = {"train_source": 72, "train_target": 8, "test_per_condition": 20, "supplemental": 16, "seconds": 2.0}
    machines = ["fan", "valve", "pump", "gearbox"]
    simulate(root, machines=machines, seed=seed, **{**sizes, **more})
    return load_clips(root)[0]


def plain_settings(seed: int, steps: int, **more: Any) -> TrainingSpec:
    return TrainingSpec.model_validate({
        "seed": seed, "steps": steps, "batch": 16, "seconds": 2.0, "learning_rate": 1e-3, "warmup": steps // 20,
        "held_out": 0.1, "evaluate_every": max(1, steps // 6), "keep": 1, **more,
    })  # fmt: skip


def last_signals(done: TrainedModel) -> Any:
    return [row.signals for row in done.history if row.signals][-1]


# ------------------------------------------------------------ learning


def plant(options: argparse.Namespace) -> None:
    """Pre-trained weights for efficientat; the transformers are small and start from random weights."""
    weights = real_weights()
    margin = {"losses": [{"name": "subcentre_arcface"}], "augmentation": {}}
    cases: list[tuple[str, str, str | None, dict[str, Any]]] = [
        ("efficientat, real, full", "efficientat", weights, {}),
        ("  dense head, ArcFace", "efficientat", weights, DENSE),
        ("beats tiny, random, full", "beats", None, {}),
        ("beats tiny, random, LoRA", "beats", None, {"adapter": {"rank": 8}}),
        ("dasheng tiny, random, full", "dasheng", None, {}),
        ("dasheng tiny, random, LoRA", "dasheng", None, {"adapter": {"rank": 8}}),
    ]
    with tempfile.TemporaryDirectory() as place:
        clips = make_plant(Path(place))
        print(f"{len(clips)} clips; {len(label_clips(clips, 'thuee'))} classes; {options.steps} steps")
        head = f"{'random':>12} {'frozen':>12} {'fine-tuned':>12} {'accuracy':>12} {'chance':>7} {'learned':>10}"
        print(f"{'':<30} {head}")
        known: dict[tuple[str, str | None, int], float] = {}
        for title, encoder, name, more in cases:
            none, before, after, accuracy, chance = [], [], [], [], 0.0
            for seed in range(options.seeds):
                rate = 3e-4 if name else 1e-3
                way = margin if "head" in more else LEARNING
                settings = plain_settings(seed, options.steps, learning_rate=rate, **way)
                for weights, scores in ((None, none), (name, before)):
                    plain = {**branch(encoder, weights), "head": {}}
                    if encoder == "efficientat":
                        # Same size with and without weights.
                        plain["size"] = "full"
                    key = (encoder, weights, seed)
                    if key not in known:
                        known[key] = score(build_model(spec_of(seed, plain)), clips, settings)
                    scores.append(known[key])
                done = trained(spec_of(seed, branch(encoder, name, **more)), settings, clips, "thuee")
                after.append(score(done.model, clips, settings))
                accuracy.append(last_signals(done).accuracy)
                chance = last_signals(done).chance
            learned = done.model.parameter_counts().trainable
            cells = " ".join(f"{spread(values):>12}" for values in (none, before, after, accuracy))
            print(f"{title:<30} {cells} {100 * chance:7.1f} {learned:10,}", flush=True)


def hidden(options: argparse.Namespace) -> None:
    """Hidden attributes on half of the machines. A small network with random initial weights."""
    with tempfile.TemporaryDirectory() as place:
        clips = make_plant(Path(place) / "told")
        secret = {"pump", "gearbox"}
        blind = [replace(clip, attributes={}) if clip.machine in secret else clip for clip in clips]
        # Conditions estimated as clusters of frozen embeddings.
        frozen = build_model(
            ModelSpec.model_validate({"branches": [{"encoder": "efficientat", "weights": real_weights()}]})
        )
        guessed = list(blind)
        for machine in sorted(secret):
            rows = [i for i, clip in enumerate(blind) if clip.machine == machine and clip.split == "train"]
            found = pseudo_attributes(embeddings(frozen, [blind[i] for i in rows], plain_settings(0, 1)))
            truth = [json.dumps(clips[i].attributes, sort_keys=True) for i in rows]
            told = agreement(found, truth)
            print(f"{machine}: {told.clusters} clusters of {told.conditions}, ARI {told.ari:.2f}, NMI {told.nmi:.2f}")
            for row, label in zip(rows, found, strict=True):
                guessed[row] = replace(blind[row], attributes={"pseudo": str(label)})
        cases = [
            ("all attributes told", clips, "subcentre_arcface", {}),
            ("hidden, one centre", blind, "arcface", {}),
            ("hidden, 4 sub-centres", blind, "subcentre_arcface", {"subcentres": 4}),
            ("hidden, 16 sub-centres", blind, "subcentre_arcface", {"subcentres": 16}),
            ("hidden, 16 prototypes", blind, "adaptive_prototype", {"prototypes": 16}),
            ("hidden, clusters instead", guessed, "arcface", {}),
        ]
        print(f"{'':<28} {'official score':>14} {'of the machines that hide':>26}")
        for title, known, loss, parameters in cases:
            scores, of_secret = [], []
            for seed in range(options.seeds):
                terms = [{"name": loss, "parameters": parameters}]
                settings = plain_settings(seed, options.steps, losses=terms, choose="last")
                done = trained(spec_of(seed, branch("dasheng", None, **DENSE)), settings, known, "thuee")
                scores.append(score(done.model, clips, settings))
                of_secret.append(score(done.model, [c for c in clips if c.machine in secret], settings))
            print(f"{title:<28} {spread(scores):>14} {spread(of_secret):>26}", flush=True)


def noise(options: argparse.Namespace) -> None:
    """Factory noise above the default level. A small network with random initial weights."""
    for level in (0.0, 6.0):
        with tempfile.TemporaryDirectory() as place:
            clips = make_plant(Path(place), noise_db=level)
            frozen = build_model(spec_of(0, branch("dasheng", None)))
            print(f"\nnoise {level:+.0f} dB; frozen {100 * score(frozen, clips, plain_settings(0, 1)):.1f}")
            cases: list[tuple[str, dict[str, Any], str]] = [
                ("plain", {}, "thuee"),
                ("noise-aware, 5-20 dB", {"noise_mix": {}}, "thuee"),
                ("noise-aware, -5-10 dB", {"noise_mix": {"snr_db": [-5, 0, 5, 10]}}, "thuee"),
                ("clean and noise as classes", {}, "nwpu"),
            ]
            for title, augmentation, policy in cases:
                scores = []
                for seed in range(options.seeds):
                    settings = plain_settings(
                        seed, options.steps, losses=LEARNING["losses"], choose="last",
                        augmentation={"mixup": {}, **augmentation},
                    )  # fmt: skip
                    model = spec_of(seed, branch("dasheng", None))
                    scores.append(score(trained(model, settings, clips, policy).model, clips, settings))
                print(f"{title:<28} {spread(scores):>14}", flush=True)


def real(options: argparse.Namespace) -> None:
    """Fine-tuned on the normal clips of dcase2020 and dcase2023: 1-NN accuracy of the machine type, slider AUC."""
    from sklearn.metrics import roc_auc_score

    corpus = shared_folder() / "corpus"
    clips = [
        clip
        for year in ("dcase2020", "dcase2021", "dcase2023")
        for clip in load_clips(corpus / year)[0]
        if clip.machine and clip.kind == "machine"
    ]
    normal = [clip for clip in clips if clip.condition == "normal"]
    learned = [clip for clip in normal if clip.corpus != "dcase2021"]
    # Few of them are training clips by name: all normal clips except every fourth are used for training.
    taught = [replace(clip, split="train") for index, clip in enumerate(learned) if index % 4]
    asked = [clip for index, clip in enumerate(learned) if not index % 4]
    slider = [clip for clip in clips if clip.machine == "slider" and clip.corpus == "dcase2020"]
    print(f"{len(taught)} clips learned from, {len(label_clips(taught, 'sjtu_aithu'))} classes; {len(asked)} asked")
    print(f"{'':<28} {'machine type, new clips':>24} {'slider AUC':>14}")
    cases = [
        ("random, frozen", None, None), ("real, frozen", real_weights(), None),
        ("real, fine-tuned", real_weights(), {}), ("random, trained", None, {}),
    ]  # fmt: skip
    for title, weights, more in cases:
        accuracy, areas = [], []
        for seed in range(options.seeds):
            settings = plain_settings(
                seed, options.steps, seconds=4.0, learning_rate=3e-4, held_out=0.0, choose="last",
                losses=LEARNING["losses"], augmentation={"mixup": {}, "shift": {"gain_db": 6}},
            )  # fmt: skip
            if more is None:
                spec = {"branches": [{**branch("efficientat", weights), "head": {}}], "seed": seed}
                model = build_model(ModelSpec.model_validate(spec))
            else:
                # Query clips are held out; slider test clips are excluded.
                unheard = [clip for clip in taught if not (clip.machine == "slider" and "test" in clip.path.parts)]
                done = trained(spec_of(seed, branch("efficientat", weights)), settings, unheard, "sjtu_aithu")
                model = done.model
            bank, new = embeddings(model, taught, settings), embeddings(model, asked, settings)
            nearest = (new @ bank.T).argmax(axis=1)
            hits = [taught[n].machine == clip.machine for n, clip in zip(nearest, asked, strict=True)]
            accuracy.append(np.mean(hits))
            train_rows = embeddings(model, [clip for clip in slider if clip.split == "train"], settings)
            tested = [clip for clip in slider if clip.split == "test"]
            distance = 1 - (embeddings(model, tested, settings) @ train_rows.T).max(axis=1)
            areas.append(roc_auc_score([clip.condition == "anomaly" for clip in tested], distance))
        print(f"{title:<28} {spread(accuracy):>24} {spread(areas):>14}", flush=True)


# ------------------------------------------------------------ cost


def steps(options: argparse.Namespace) -> None:
    """BEATs-base, random weights, batch 8 of 10 s; one process per case, fastest of several steps."""
    print(f"{'BEATs-base, batch 8 x 10 s':<34} {'s/step':>8} {'CPU-s':>8} {'peak RSS GiB':>13} {'learned':>12}")
    for case in ("full", "lora", "full recompute", "lora recompute"):
        done = subprocess.run(
            [sys.executable, __file__, "one-step", "--case", case, "--steps", str(options.steps)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        told = json.loads(done.stdout.splitlines()[-1])
        cells = f"{told['wall']:8.1f} {told['cpu']:8.1f} {told['peak']:13.2f} {told['learned']:12,}"
        print(f"{case:<34} {cells}", flush=True)


def one_step(options: argparse.Namespace) -> None:
    from harken.training.optimiser import adamw, parameter_groups
    from harken.training.recompute import recompute_blocks
    from harken.training.settings import LossSpec
    from harken.training.step import TrainingStep

    torch.set_num_threads(2)
    adapter = {"adapter": {"rank": 64}} if "lora" in options.case else {}
    spec = {"encoder": "beats", "head": {"kind": "attentive", "dims": [256]}, **adapter}
    model = build_model(ModelSpec.model_validate({"branches": [spec]})).train()
    if "recompute" in options.case:
        recompute_blocks(model)
    step = TrainingStep(model, [LossSpec(name="arcface")], classes=1114)
    optimiser = adamw(parameter_groups(step, learning_rate=1e-4, weight_decay=0.01, layer_decay=1.0))
    wave = 0.1 * torch.randn(8, 160_000, generator=torch.Generator().manual_seed(0))
    walls, cpus = [], []
    for number in range(options.steps):
        begun, used = time.perf_counter(), time.process_time()
        torch.stack(list(step(wave, torch.arange(8), None, 0, str(number)).values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        walls.append(time.perf_counter() - begun)
        cpus.append(time.process_time() - used)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    told = {"wall": min(walls), "cpu": min(cpus), "peak": peak, "learned": model.parameter_counts().trainable}
    print(json.dumps(told))


# ------------------------------------------------------------ kills


def kills(options: argparse.Namespace) -> None:
    """A small network with SpecAugment, mixup and noise, killed repeatedly."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make_plant(root / "plant", train_source=12, train_target=3, test_per_condition=1, supplemental=4, seconds=1.0)

        def command(folder: str) -> list[str]:
            return [sys.executable, __file__, "killed", "--folder", str(root / folder), "--data", str(root / "plant")]

        subprocess.run(command("whole"), check=True, capture_output=True)
        draw = random.Random(0)
        count = 0
        while count < options.kills:
            child = subprocess.Popen(command("killed"), stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            # Steps are printed as they are done: killed after one to six more.
            more = draw.randint(1, 6)
            told = [child.stdout.readline() for _ in range(more)]
            if not told[-1]:
                sys.exit("it ended before it was killed: give more steps")
            time.sleep(draw.uniform(0, 0.15))
            child.send_signal(signal.SIGKILL)
            child.wait()
            count += 1
        subprocess.run(command("killed"), check=True, capture_output=True)
        names = sorted(file.name for file in (root / "whole").glob("*.safetensors"))
        assert names == sorted(file.name for file in (root / "killed").glob("*.safetensors"))
        for name in names:
            assert (root / "whole" / name).read_bytes() == (root / "killed" / name).read_bytes(), name
        print(f"{count} kills: the same bits in {', '.join(names)}")


def killed(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    settings = TrainingSpec.model_validate({
        "steps": 120, "batch": 8, "seconds": 0.5, "learning_rate": 1e-3, "evaluate_every": 20,
        "losses": [{"name": "scadacos"}], "augmentation": {"mixup": {}, "noise_mix": {}, "spec_augment": {}},
    })  # fmt: skip
    clips = [clip for clip in load_clips(options.data)[0] if clip.split != "test"]
    train(
        spec_of(0, branch("dasheng", None)), settings, clips, label_clips(clips, "thuee"), options.folder,
        save_every=1, progress=lambda step, *_: print(step, flush=True),
    )  # fmt: skip


def toycar(options: argparse.Namespace) -> None:
    """A small CNN trained to classify changes in mel space of normal clips, compared with 1-NN."""
    from toycar_cnn import compare

    compare(options.seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["plant", "hidden", "noise", "real", "toycar", "steps", "kills", "one-step",
                                         "killed"])  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.steps = options.steps or {"steps": 2, "one-step": 2}.get(options.what, 300)
    if options.what != "one-step":
        # More threads than cores would slow training down.
        torch.set_num_threads(1)
    globals()[options.what.replace("-", "_")](options)


if __name__ == "__main__":
    main()
