"""Ensembles on real scores: every method on machines left out; the Bayesian search beside plain Optuna; its speed.

python benchmarks/ensemble.py [--only methods|grid|speed] [--bed 2022_dev] [--trials 100] [--speed-trials 300]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from harken.core.threads import one_thread
from harken.ensemble.bayes import bayes
from harken.ensemble.fit import Row, fit
from harken.ensemble.member import Member
from harken.ensemble.members import read_members
from harken.ensemble.objective import Objective
from harken.ensemble.problem import Method, Problem
from harken.ensemble.search import SearchSettings, greedy, uniform
from harken.evaluation.evaluate import evaluate_system
from harken.evaluation.scores import ScoreRow, Scores
from shared_folder import shared_folder

Float64 = NDArray[np.float64]

#: a title, the method and its settings
WAYS: list[tuple[str, Method, SearchSettings]] = [
    ("best single", "single", SearchSettings()),
    ("uniform", "uniform", SearchSettings()),
    *[(f"top {count}", "top", SearchSettings(best=count)) for count in (3, 5, 10)],
    ("agreement", "agreement", SearchSettings()),
    ("least variance", "variance", SearchSettings()),
    *[(f"greedy {steps}", "greedy", SearchSettings(steps=steps)) for steps in (1, 3, 5, 8, 10, 12, 15, 20, 30)],
    ("greedy 15, half uniform", "greedy", SearchSettings(shrink=0.5)),
    ("greedy 15, shrink auto", "greedy", SearchSettings(shrink=-1.0)),
    ("bayes", "bayes", SearchSettings()),
]


def beds() -> dict[str, list[Member]]:
    golden = shared_folder() / "golden"
    return {
        "2022_dev": read_members([golden / "2022_dev" / "scores.csv.gz"])[0],
        "2025_dev": read_members([golden / "2025_dev"])[0],
    }


def methods(name: str, members: Sequence[Member], trials: int) -> None:
    """Here: on the clips that weights were fitted on; left out: each machine by weights of the others; kept: the same
    for the method and the decision together, which is made without that machine too."""
    print(f"\n{name}: {len(members)} systems, normalised by test clips (transductive)")
    print(f"{'':<26}{'in sample':>10}{'left out':>10}{'kept':>9}{'gain':>9}{'error':>8}{'seconds':>9}")
    for title, method, settings in WAYS:
        problem = Problem(members, None, "transductive", settings=replace(settings, trials=trials))
        everywhere = problem.everywhere
        began = time.perf_counter()
        with one_thread():
            in_sample = problem.score(problem.numbers(problem.fit(method, everywhere)), everywhere)
            spent = time.perf_counter() - began
            left = problem.score(problem.held_out(partial(problem.fit, method), everywhere), everywhere)
            gate = problem.gate(method, everywhere)
            kept = "-"
            if method not in ("bayes", "uniform", "agreement", "variance"):
                numbers = problem.held_out(partial(problem.gated, method), everywhere)
                kept = f"{problem.score(numbers, everywhere):.4f}"
        assert gate is not None
        passed = "+" if gate.passed else " "
        print(
            f"{title:<26}{in_sample:>10.4f}{left:>10.4f}{kept:>9}{gate.gain:>+8.4f}{passed}{gate.error:>8.4f}{spent:>9.2f}"
        )
    rows = {row.name: row for row in fit(members, draws=0).rows}
    print(f"default: {_pair(rows['kept'])}, plain mean {_pair(rows['uniform'])}, best single {_pair(rows['single'])}")


def _pair(row: Row) -> str:
    return f"{row.in_sample.value:.4f} in sample, {row.held_out.value if row.held_out else float('nan'):.4f} left out"


def small_grids(members: Sequence[Member]) -> None:
    """Grids of few members, chosen by what they score alone, beside the greedy search of the same ones."""
    problem = Problem(members, None, "transductive")
    order = np.argsort(-problem.of_all()(np.eye(len(members))))
    print(
        f"\n{'grid on the best of 2022_dev':<32}{'in sample':>10}{'left out':>10}{'greedy':>9}{'left out':>10}"
        f"{'seconds':>9}"
    )
    for count, step in ((3, 0.05), (4, 0.1), (5, 0.1), (6, 0.1)):
        few = [problem.members[row] for row in order[:count]]
        cells = []
        began = time.perf_counter()
        for method in ("grid", "greedy"):
            part = Problem(few, None, "transductive", settings=SearchSettings(step=step))
            everywhere = part.everywhere
            found = part.held_out(partial(part.fit, method), everywhere)
            cells += [part.score(part.numbers(part.fit(method, everywhere)), everywhere), part.score(found, everywhere)]
        spent = time.perf_counter() - began
        print(
            f"{f'{count} members, step {step:g}':<32}{cells[0]:>10.4f}{cells[1]:>10.4f}{cells[2]:>9.4f}"
            f"{cells[3]:>10.4f}{spent:>9.2f}"
        )


def many_members(count: int = 74, seed: int = 0) -> list[Member]:
    """So many members on 1,400 clips of seven machines: mixtures of the 13 real systems, each with noise of its own."""
    members = read_members([shared_folder() / "golden" / "2025_dev"])[0]
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        share = rng.dirichlet(np.full(len(members), 0.3))
        noise = rng.uniform(0.2, 1.5)
        table: list[ScoreRow] = []
        for key in members[0].scores.sections():
            part = members[0].scores.of_section(key)
            rows = np.stack([one.scores.of_section(key).score_N for one in members])
            rows = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
            mixed = share @ rows + noise * rng.normal(size=len(part))
            table += [row._replace(score=score) for row, score in zip(part.rows(), mixed.tolist(), strict=True)]
        made.append(Member(Scores.of_rows(table, f"member {number:02d}")))
    return made


def plain_optuna(members: Sequence[Member], trials: int, seed: int, limit_s: float) -> tuple[Float64, float, int]:
    """The search as one writes it first: a weight a member, all members mixed and evaluated anew in every trial."""
    import optuna
    import torch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    keys = members[0].scores.sections()
    rows = {key: np.stack([member.scores.of_section(key).score_N for member in members]) for key in keys}
    rows = {key: (one - one.mean(1, keepdims=True)) / one.std(1, keepdims=True) for key, one in rows.items()}

    def objective(trial: optuna.Trial) -> float:
        weights = np.array([trial.suggest_float(member.name, 0.0, 1.0) for member in members])
        weights /= weights.sum()
        table = [
            row._replace(score=score)
            for key in keys
            for row, score in zip(members[0].scores.of_section(key).rows(), (weights @ rows[key]).tolist(), strict=True)
        ]
        return evaluate_system(Scores.of_rows(table, "mix"), None).official_score

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.GPSampler(seed=seed))
    study.optimize(objective, n_trials=trials, timeout=limit_s)
    weights = np.array([study.best_params[member.name] for member in members])
    return weights / weights.sum(), study.best_value, len(study.trials)


def speed(trials: int, limit_s: float) -> None:
    """74 members x 1,400 clips."""
    members = many_members()
    problem = Problem(members, None, "transductive", settings=SearchSettings(trials=trials))
    objective = problem.of_all()
    print(f"\n{len(members)} members x {sum(len(label.names) for label in problem.labels)} clips, {trials} trials")
    print(f"{'':<34}{'score':>9}{'trials':>8}{'seconds':>9}")
    with one_thread():
        _timed("uniform", objective, lambda: uniform(len(members)))
        _timed("greedy 15", objective, lambda: greedy(objective, 15))
        fresh = Objective(objective.boards)
        first = _timed("bayes, 16 coordinates", fresh, lambda: bayes(fresh, SearchSettings(trials=trials)), trials)
        wide = SearchSettings(trials=trials, coordinates=80)
        _timed("bayes, a coordinate a member", objective, lambda: bayes(objective, wide), trials)
        began = time.perf_counter()
        _, score, done = plain_optuna(members, trials, 0, limit_s)
        print(f"{'optuna used plainly':<34}{score:>9.4f}{done:>8}{time.perf_counter() - began:>9.1f}")
        again = bayes(Objective(objective.boards), SearchSettings(trials=min(trials, 60)))
        once_more = bayes(Objective(objective.boards), SearchSettings(trials=min(trials, 60)))
        print(f"same seed, same weights: {np.array_equal(again, once_more)}")
        weights = np.random.default_rng(0).dirichlet(np.ones(len(members)), size=200)
        began = time.perf_counter()
        Objective(objective.boards)(weights)
        ours = (time.perf_counter() - began) / 200
        mixed = members[0].scores
        began = time.perf_counter()
        for _ in range(5):
            evaluate_system(mixed, None)
        theirs = (time.perf_counter() - began) / 5
    print(f"one weighting: {1000 * ours:.2f} ms, harken evaluate without reading files: {1000 * theirs:.1f} ms")
    print(f"members with a weight above 0.01: {int((first > 0.01).sum())} of {len(members)}")


def _timed(title: str, objective: Objective, search: Callable[[], Float64], trials: int | None = None) -> Float64:
    began = time.perf_counter()
    weights = search()
    spent = time.perf_counter() - began
    score = float(objective(weights[None])[0])
    print(f"{title:<34}{score:>9.4f}{trials if trials is not None else '':>8}{spent:>9.1f}", flush=True)
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["methods", "grid", "speed"])
    parser.add_argument("--trials", type=int, default=100, help="of each Bayesian search of the table")
    parser.add_argument("--speed-trials", type=int, default=300)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for plain Optuna")
    parser.add_argument("--bed", help="2022_dev or 2025_dev only")
    words = parser.parse_args()
    if words.only in (None, "methods"):
        for name, members in beds().items():
            if words.bed in (None, name):
                methods(name, members, words.trials)
    if words.only in (None, "grid"):
        small_grids(beds()["2022_dev"])
    if words.only in (None, "speed"):
        speed(words.speed_trials, words.limit)


if __name__ == "__main__":
    main()
