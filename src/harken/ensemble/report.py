"""The contribution of each member to an ensemble, and how its weight varies with the machines of the fit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harken.ensemble.problem import FittedWeights, Method, Problem

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class MemberReport:
    """One member (or group) of an ensemble.

    alone: its official score; contribution: what the ensemble loses without it, its weight given to the others; both on
    the clips of the fit. held_out: lowest and highest weight when a machine is left out.
    bootstrap: mean, standard deviation and share of draws with a weight, over draws of machines; None without draws.
    nearest: the member with the highest rank correlation, over all clips.
    """

    name: str
    weight: float
    alone: float
    contribution: float | None
    held_out: tuple[float, float] | None
    bootstrap: tuple[float, float, float] | None
    nearest: tuple[str, float] | None


@dataclass(frozen=True)
class Report:
    """Reports of all members, those without weight included. correlation_GG: of ranks, mean over sections."""

    members: tuple[MemberReport, ...]
    correlation_GG: Float64
    draws: int


def report(problem: Problem, method: Method, fitted: FittedWeights, *, draws: int = 20) -> Report:
    """The report of fitted weights. draws: bootstrap samples of machines (Efron 1979), with one search per sample."""
    names = [name for name, _ in fitted.groups]
    everywhere = problem.everywhere
    objective = problem.objective(fitted.groups)
    alone_G = objective(np.eye(len(names)))
    all_of_them = float(objective(fitted.weights_G[None])[0])
    from harken.ensemble.label_free import correlation

    boards = objective.boards
    sections = [boards.scores_MQN[:, row, present_N] for row, present_N in enumerate(boards.present_QN)]
    ranks_GG = correlation(sections, ranks=True)
    held_out = None
    if len(everywhere) > 1:
        fits = [problem.fit(method, {m: 1 for m in everywhere if m != left}) for left in everywhere]
        held_out = np.array([_weights_of(names, fit) for fit in fits])
    drawn = _bootstrap(problem, method, names, draws)
    members = []
    for row, name in enumerate(names):
        weight = float(fitted.weights_G[row])
        contribution = None
        if 0 < weight < 1 - 1e-12:
            rest_G = fitted.weights_G.copy()
            rest_G[row] = 0.0
            contribution = all_of_them - float(objective((rest_G / rest_G.sum())[None])[0])
        nearest = None
        if len(names) > 1:
            closest = int(np.argmax(np.where(np.arange(len(names)) == row, -np.inf, ranks_GG[row])))
            nearest = names[closest], float(ranks_GG[row, closest])
        members.append(
            MemberReport(
                name,
                weight,
                float(alone_G[row]),
                contribution,
                None if held_out is None else (float(held_out[:, row].min()), float(held_out[:, row].max())),
                None
                if drawn is None
                else (float(drawn[:, row].mean()), float(drawn[:, row].std()), float(np.mean(drawn[:, row] > 1e-9))),
                nearest,
            )
        )
    return Report(tuple(members), ranks_GG, draws if drawn is not None else 0)


def _bootstrap(problem: Problem, method: Method, names: list[str], draws: int) -> Float64 | None:
    machines = list(problem.everywhere)
    if draws < 1 or len(machines) < 2:
        return None
    rng = np.random.default_rng(problem.settings.seed)
    rows = []
    for _ in range(draws):
        counts = Counter(machines[number] for number in rng.integers(0, len(machines), len(machines)))
        in_order = {machine: counts[machine] for machine in machines if counts[machine]}
        rows.append(_weights_of(names, problem.fit(method, in_order)))
    return np.array(rows)


def _weights_of(names: list[str], fitted: FittedWeights) -> list[float]:
    """Weights in the order of `names`."""
    of = dict(zip((name for name, _ in fitted.groups), fitted.weights_G.tolist(), strict=True))
    return [of.get(name, 0.0) for name in names]
