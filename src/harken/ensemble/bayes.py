"""Bayesian optimisation of weights: a Gaussian process predicts the score of weights not tried yet.

As THUEE and SJTU-AITHU combined their systems (DCASE 2025, Task 2), with the sampler of Optuna.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError, reading, writing
from harken.core.extras import need
from harken.core.json_text import json_text
from harken.ensemble.objective import Objective
from harken.ensemble.search import SearchSettings, greedy_path, singles, uniform

Float64 = NDArray[np.float64]

#: beyond this, a trial of Optuna's Gaussian process takes seconds
MOST_MEMBERS = 80


def bayes(objective: Objective, settings: SearchSettings) -> Float64:
    """(M,) the best weights of `settings.trials` trials.

    The first trials are the uniform weights and the steps of the greedy search. The `settings.coordinates` members that
    it chose, or that improve its mix most, have one coordinate per member; the others share one. A weight is the square
    of its coordinate, so that most of the cube holds mixes of few members.
    Each trial depends on the earlier ones and on (seed, number) alone: a stopped search continues from its journal to
    the same weights, also with more trials. Raises HarkenError where Optuna is missing, for too many members, or for a
    file that is not a journal.
    """
    if objective.members > MOST_MEMBERS:
        raise HarkenError(
            f"{objective.members} members are too many for a Gaussian process: at most {MOST_MEMBERS}",
            next_step="Group seeds first (--group auto), or take --method greedy",
        )
    optuna = _optuna()
    starts = _starts(objective, settings)
    space = _Space(objective, starts[-1], settings.coordinates)
    floats = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in space.names}
    journal = _Journal(settings.journal, objective, settings, space)
    study = optuna.create_study(direction="maximize")
    best_score, best_M = -1.0, starts[0]
    with _quietly():
        for number in range(settings.trials):
            recorded = journal.trials[number] if number < len(journal.trials) else None
            if recorded is None and number >= len(starts):
                # A sampler with a state over all trials could not be restored after a stop.
                study.sampler = optuna.samplers.GPSampler(
                    seed=_seed(settings.seed, number), n_startup_trials=len(starts), deterministic_objective=True
                )
                place = study.ask(floats).params
            else:
                place = recorded if recorded is not None else space.place_of(starts[number])
            weights_M = space.weights(place)
            score = float(objective(weights_M[None])[0])
            if recorded is None:
                journal.add(place)
            if recorded is None and number >= len(starts):
                study.tell(number, score)
            else:
                study.add_trial(optuna.trial.create_trial(params=place, distributions=floats, value=score))
            if score > best_score:
                best_score, best_M = score, weights_M
            if settings.tried is not None:
                settings.tried(number + 1, settings.trials)
    return best_M


def _starts(objective: Objective, settings: SearchSettings) -> list[Float64]:
    path = greedy_path(objective, settings.steps)
    steps = sorted({1, 2, 3, 5, 8, 10, len(path)} & set(range(1, len(path) + 1)))
    return [uniform(objective.members), *(path[step - 1] for step in steps)]


class _Space:
    """Coordinates of a search: one per member of `single`, and one for all members of `shared`."""

    def __init__(self, objective: Objective, sparse_M: Float64, coordinates: int) -> None:
        order = np.lexsort((-singles(objective), -objective.score(_blends(objective, sparse_M)), -sparse_M))
        self.members = objective.members
        self.single = sorted(int(row) for row in order[: max(1, coordinates)])
        self.shared = sorted(set(range(objective.members)) - set(self.single))
        self.names = [f"member {row}" for row in self.single] + (["the rest"] if self.shared else [])

    def weights(self, place: dict[str, float]) -> Float64:
        weights_M = np.zeros(self.members)
        weights_M[self.single] = [place[f"member {row}"] ** 2 for row in self.single]
        if self.shared:
            weights_M[self.shared] = place["the rest"] ** 2
        total = float(weights_M.sum())
        return weights_M / total if total > 1e-12 else uniform(self.members)

    def place_of(self, weights_M: Float64) -> dict[str, float]:
        root_M = np.sqrt(weights_M / weights_M.max())
        place = {f"member {row}": float(root_M[row]) for row in self.single}
        return {**place, "the rest": float(root_M[self.shared].mean())} if self.shared else place


def _blends(objective: Objective, sparse_M: Float64) -> Float64:
    """(M, Q, numbers) of the mix with a tenth of each member added."""
    return objective.numbers(0.9 * sparse_M + 0.1 * np.eye(objective.members))


class _Journal:
    """Trials of searches, one JSON line per trial; each search in the file has its key."""

    def __init__(self, file: Path | None, objective: Objective, settings: SearchSettings, space: _Space) -> None:
        self.file = file
        self.trials: list[dict[str, float]] = []
        digest = hashlib.sha256(objective.boards.scores_MQN.tobytes() + objective.boards.anomaly_QN.tobytes())
        identity = [sorted(objective.counts.items()), settings.seed, settings.steps, space.names, objective.boards.rule]
        digest.update(json_text(identity).encode())
        self.key = digest.hexdigest()[:16]
        if file is None or not file.exists():
            return
        for text in _lines(file):
            try:
                row = json.loads(text)
                same = row["search"] == self.key
                trial = {str(name): float(value) for name, value in row["place"].items()}
            except (ValueError, KeyError, TypeError, AttributeError):
                raise HarkenError(
                    "is not a journal of a search", file=file, next_step="Name another file, or remove it"
                ) from None
            if same and row["trial"] == len(self.trials):
                self.trials.append(trial)

    def add(self, place: dict[str, float]) -> None:
        self.trials.append(place)
        if self.file is not None:
            row = {"search": self.key, "trial": len(self.trials) - 1, "place": place}
            with writing(self.file, "Choose another journal"), self.file.open("a", encoding="utf-8") as handle:
                handle.write(json_text(row) + "\n")
                handle.flush()
                os.fsync(handle.fileno())


def _lines(file: Path) -> list[str]:
    """The complete lines; an incomplete last one, of a search that was stopped, is removed from the file."""
    with reading(file, "Choose another file, or remove it"):
        text = file.read_bytes().decode()
        complete = text[: text.rfind("\n") + 1]
        if complete != text:
            with file.open("r+b") as handle:
                handle.truncate(len(complete.encode()))
    return complete.splitlines()


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _optuna() -> Any:
    optuna = need("optuna", "Bayesian searches")
    need("torch", "Bayesian searches")  # of the Gaussian process
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextmanager
def _quietly() -> Iterator[None]:
    """One thread, which is fastest for small Gaussian processes, and none of Optuna's warnings."""
    import warnings

    from harken.core.threads import torch_threads

    with torch_threads(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="optuna")
        warnings.filterwarnings("ignore", message=".*experimental.*")
        yield
