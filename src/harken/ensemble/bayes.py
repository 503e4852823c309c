"""Bayesian optimisation of weights: a Gaussian process guesses the score of weights not tried yet.

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

from harken.core.errors import HarkenError
from harken.core.extras import need
from harken.ensemble.objective import Objective
from harken.ensemble.search import Settings, greedy_path, singles, uniform

Float64 = NDArray[np.float64]

#: Optuna's process takes seconds a trial beyond this
MOST_MEMBERS = 80


def bayes(objective: Objective, settings: Settings) -> Float64:
    """The best weights of `settings.trials` trials.

    The first trials are uniform and those of the greedy search, from few members to more. The members that it chose,
    and then those that help its mix most, have a coordinate each, `settings.coordinates` of them; the others share
    one. A weight is the square of its coordinate: most of the cube are mixes in which few members count.
    Each trial depends on those before and on (seed, number) alone, so that a search that was stopped goes on from its
    journal to the same weights, also with more trials. Raises HarkenError where Optuna is missing, or the journal is of
    another search.
    """
    if objective.members > MOST_MEMBERS:
        raise HarkenError(
            f"{objective.members} members are too many for a Gaussian process, {MOST_MEMBERS} are the most",
            next_step="Group seeds first (--group auto), or take --method greedy",
        )
    optuna = _optuna()
    starts = _starts(objective, settings)
    space = _Space(objective, starts[-1], settings.coordinates)
    floats = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in space.names}
    journal = _Journal(settings.journal, objective, settings, space)
    study = optuna.create_study(direction="maximize")
    best, found = -1.0, starts[0]
    with _quietly():
        for number in range(settings.trials):
            known = journal.trials[number] if number < len(journal.trials) else None
            if known is None and number >= len(starts):
                # A sampler that has lived through all trials could not be made again after a stop.
                study.sampler = optuna.samplers.GPSampler(
                    seed=_seed(settings.seed, number), n_startup_trials=len(starts), deterministic_objective=True
                )
                place = study.ask(floats).params
            else:
                place = known if known is not None else space.place_of(starts[number])
            weights_M = space.weights(place)
            score = float(objective(weights_M[None])[0])
            if known is None:
                journal.add(place)
            if known is None and number >= len(starts):
                study.tell(number, score)
            else:
                study.add_trial(optuna.trial.create_trial(params=place, distributions=floats, value=score))
            if score > best:
                best, found = score, weights_M
    return found


def _starts(objective: Objective, settings: Settings) -> list[Float64]:
    path = greedy_path(objective, settings.steps)
    steps = sorted({1, 2, 3, 5, 8, 10, len(path)} & set(range(1, len(path) + 1)))
    return [uniform(objective.members), *(path[step - 1] for step in steps)]


class _Space:
    """Coordinates: `own` members have one each, the rest share one."""

    def __init__(self, objective: Objective, sparse_M: Float64, coordinates: int) -> None:
        order = np.lexsort((-singles(objective), -objective.score(_blends(objective, sparse_M)), -sparse_M))
        self.members = objective.members
        self.own = sorted(int(row) for row in order[: max(1, coordinates)])
        self.rest = sorted(set(range(objective.members)) - set(self.own))
        self.names = [f"member {row}" for row in self.own] + (["the rest"] if self.rest else [])

    def weights(self, place: dict[str, float]) -> Float64:
        weights_M = np.zeros(self.members)
        weights_M[self.own] = [place[f"member {row}"] ** 2 for row in self.own]
        if self.rest:
            weights_M[self.rest] = place["the rest"] ** 2
        total = float(weights_M.sum())
        return weights_M / total if total > 1e-12 else uniform(self.members)

    def place_of(self, weights_M: Float64) -> dict[str, float]:
        root_M = np.sqrt(weights_M / weights_M.max())
        place = {f"member {row}": float(root_M[row]) for row in self.own}
        return {**place, "the rest": float(root_M[self.rest].mean())} if self.rest else place


def _blends(objective: Objective, sparse_M: Float64) -> Float64:
    """Numbers of the mix with a tenth of each member added."""
    return objective.numbers(0.9 * sparse_M + 0.1 * np.eye(objective.members))


class _Journal:
    """Trials of searches, one JSON line each; another search in the same file has another key."""

    def __init__(self, file: Path | None, objective: Objective, settings: Settings, space: _Space) -> None:
        self.file = file
        self.trials: list[dict[str, float]] = []
        digest = hashlib.sha256(objective.boards.scores_MQN.tobytes() + objective.boards.anomaly_QN.tobytes())
        about = [sorted(objective.counts.items()), settings.seed, settings.steps, space.names, objective.boards.rule]
        digest.update(json.dumps(about).encode())
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
                    "is no journal of a search", file=file, next_step="Name another file, or remove it"
                ) from None
            if same and row["trial"] == len(self.trials):
                self.trials.append(trial)

    def add(self, place: dict[str, float]) -> None:
        self.trials.append(place)
        if self.file is not None:
            row = {"search": self.key, "trial": len(self.trials) - 1, "place": place}
            try:
                with self.file.open("a", encoding="utf-8") as handle:
                    handle.write(json.dumps(row) + "\n")
                    handle.flush()
                    os.fsync(handle.fileno())
            except OSError as error:
                raise HarkenError(
                    f"cannot be written ({error.strerror})", file=self.file, next_step="Name another journal"
                ) from error


def _lines(file: Path) -> list[str]:
    """Whole lines; a last one without its end was being written when the search was stopped, and is cut off."""
    try:
        text = file.read_bytes().decode()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            with file.open("r+b") as handle:
                handle.truncate(len(whole.encode()))
    except (OSError, UnicodeDecodeError) as error:
        raise HarkenError(
            f"cannot be read ({error})", file=file, next_step="Name another file, or remove it"
        ) from error
    return whole.splitlines()


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _optuna() -> Any:
    optuna = need("optuna", "Bayesian searches")
    need("torch", "Bayesian searches")  # the Gaussian process is made of it
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextmanager
def _quietly() -> Iterator[None]:
    """One thread, since the processes are small: threads cost more than they give; and without Optuna's warnings."""
    import warnings

    from harken.core.threads import torch_threads

    with torch_threads(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="optuna")
        warnings.filterwarnings("ignore", message=".*experimental.*")
        yield
