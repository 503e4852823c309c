"""The official score of many weightings at once: what every search for weights maximises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.data.catalog import Metric
from harken.evaluation.metrics import EPSILON, MAX_FPR
from harken.evaluation.rules import SectionScores

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: numbers between 0 and 1 that a search keeps at most: a bounded memory of mixes already seen
_MOST_REMEMBERED = 20_000


@dataclass(frozen=True)
class Boards:
    """Everything official that depends on labels, padded to one array.

    A board is a set of clips that is sorted once: a section, or a domain of one where the rule keeps domains apart.
    scores_MQN: normalised scores of M members, Q boards, N clips. anomaly_QN, there_QN: False where a board has fewer
    clips. normal_GQN: the normals of each AUC of a board. machine_Q: whose board it is. rule: of the year.
    """

    scores_MQN: Float64
    anomaly_QN: Bools
    there_QN: Bools
    normal_GQN: Bools
    machine_Q: tuple[str, ...]
    rule: Metric


def make_boards(scores: Sequence[Float64], labels: Sequence[SectionScores], rule: Metric) -> Boards:
    """scores: (members, clips) of each section; labels: its truth, with clips in the same order."""
    parts: list[tuple[Float64, Bools, list[Bools], str]] = []
    for scores_MN, section in zip(scores, labels, strict=True):
        normal_N = ~section.anomaly_N
        if rule == "domain_generalization":
            normals = [normal_N & (section.domain_N == domain) for domain in (0, 1)]
            parts.append((scores_MN, section.anomaly_N, normals, section.machine))
        elif rule == "domain_adaptation":
            for domain in (0, 1):
                inside = section.domain_N == domain
                parts.append((scores_MN[:, inside], section.anomaly_N[inside], [normal_N[inside]], section.machine))
        else:
            parts.append((scores_MN, section.anomaly_N, [normal_N], section.machine))
    members, clips = len(parts[0][0]), max(part[0].shape[1] for part in parts)
    boards = Boards(
        np.zeros((members, len(parts), clips)),
        np.zeros((len(parts), clips), dtype=bool),
        np.zeros((len(parts), clips), dtype=bool),
        np.zeros((len(parts[0][2]), len(parts), clips), dtype=bool),
        tuple(part[3] for part in parts),
        rule,
    )
    for row, (scores_MN, anomaly_N, normals, _) in enumerate(parts):
        count = scores_MN.shape[1]
        boards.scores_MQN[:, row, :count] = scores_MN
        boards.anomaly_QN[row, :count] = anomaly_N
        boards.there_QN[row, :count] = True
        for group, normal_N in enumerate(normals):
            boards.normal_GQN[group, row, :count] = normal_N
    return boards


def areas(boards: Boards, scores_BQN: Float64) -> Float64:
    """(B, S, numbers): each board's AUCs and its partial AUC, for B mixes. Ties as the official evaluators take them.

    With clips in falling order, a normal clip adds the share of anomalies above it to the area, halfway through its
    group of equal scores; the groups that the limit of the false positive rate cuts add their part below it.
    """
    order = np.argsort(np.where(boards.there_QN, -scores_BQN, np.inf), axis=-1, kind="stable")
    sorted_BQN = np.take_along_axis(scores_BQN, order, -1)
    anomaly = _taken(boards.anomaly_QN, order).astype(np.float64)
    normals = [_taken(normal_QN, order) for normal_QN in boards.normal_GQN]
    normal = _taken(boards.there_QN & ~boards.anomaly_QN, order).astype(np.float64)
    hits, false = np.cumsum(anomaly, -1), np.cumsum(normal, -1)
    all_hits, all_false = hits[..., -1:], false[..., -1:]
    # Without ties each clip is its own group, and its group begins just above it.
    start_hits, start_false, end_hits, end_false = hits - anomaly, false - normal, hits, false
    there = _taken(boards.there_QN, order)
    tied = (sorted_BQN[..., 1:] == sorted_BQN[..., :-1]) & there[..., 1:]
    if tied.any():
        first, last = _groups(tied)
        start_hits, start_false = np.take_along_axis(start_hits, first, -1), np.take_along_axis(start_false, first, -1)
        end_hits, end_false = np.take_along_axis(hits, last, -1), np.take_along_axis(false, last, -1)
    above = (start_hits + end_hits) / (2.0 * all_hits)
    numbers = [(above * group).sum(-1) / group.sum(-1) for group in normals]
    width = np.maximum(end_false - start_false, 1.0)
    share = np.clip((MAX_FPR * all_false - start_false) / width, 0.0, 1.0)
    rise = (start_hits + (end_hits - start_hits) * share / 2.0) / all_hits
    area = (normal * share * rise).sum(-1) / all_false[..., 0]
    least = 0.5 * MAX_FPR**2
    return np.stack([*numbers, 0.5 * (1.0 + (area - least) / (MAX_FPR - least))], axis=-1)


def _taken(values_QN: Bools, order_BQN: NDArray[np.intp]) -> Bools:
    return np.take_along_axis(np.broadcast_to(values_QN, order_BQN.shape), order_BQN, -1)


def _groups(tied: Bools) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last position of the group of equal scores that each position is in."""
    count = tied.shape[-1] + 1
    position = np.broadcast_to(np.arange(count), (*tied.shape[:-1], count))
    edge = np.ones((*tied.shape[:-1], 1), dtype=bool)
    first = np.maximum.accumulate(np.where(np.concatenate([edge, ~tied], -1), position, 0), -1)
    ends = np.where(np.concatenate([~tied, edge], -1), position, count)
    last = np.flip(np.minimum.accumulate(np.flip(ends, -1), -1), -1)
    return first, last


class Objective:
    """Official score of weightings on some of the machines, each counted as often as said.

    Views on other machines share the boards and the numbers of mixes that were met before, so that leaving machines
    out one by one costs little more than one search.
    """

    def __init__(self, boards: Boards, counts: Mapping[str, int] | None = None) -> None:
        self.boards = boards
        self.counts = dict.fromkeys(boards.machine_Q, 1) if counts is None else dict(counts)
        self._seen: dict[bytes, Float64] = {}
        self.shared: dict[Any, Any] = {}

    @property
    def members(self) -> int:
        return len(self.boards.scores_MQN)

    def of(self, counts: Mapping[str, int]) -> Objective:
        """The same on other machines: machine -> how often it counts; those not named are left out."""
        view = Objective(self.boards, {name: count for name, count in counts.items() if count})
        view._seen, view.shared = self._seen, self.shared
        return view

    def __call__(self, weights_BM: Float64) -> Float64:
        """(B,) official scores."""
        return self.score(self.numbers(weights_BM))

    def numbers(self, weights_BM: Float64) -> Float64:
        """(B, S, numbers) of each weighting, on all machines. The sum of the weights changes nothing."""
        keys = [row.tobytes() for row in np.ascontiguousarray(weights_BM)]
        new = [row for row, key in enumerate(keys) if key not in self._seen]
        if len(self._seen) + len(new) > _MOST_REMEMBERED:
            self._seen.clear()
            new = list(range(len(keys)))
        if new:
            self._seen.update(zip([keys[row] for row in new], self.fresh_numbers(weights_BM[new]), strict=True))
        return np.stack([self._seen[key] for key in keys])

    def fresh_numbers(self, weights_BM: Float64) -> Float64:
        """`numbers` without remembering them."""
        members, boards, clips = self.boards.scores_MQN.shape
        parts = []
        for rows in _chunks(range(len(weights_BM)), boards * clips):
            mixed_BQN = weights_BM[rows] @ self.boards.scores_MQN.reshape(members, -1)
            parts.append(areas(self.boards, mixed_BQN.reshape(-1, boards, clips)))
        return np.concatenate(parts)

    def steps(self, counts_M: Float64) -> Float64:
        """(M, S, numbers) after adding each member once more to a mix of so many copies of each."""
        key = "steps", counts_M.tobytes()
        if key not in self.shared:
            members, boards, clips = self.boards.scores_MQN.shape
            mixed_QN = (counts_M @ self.boards.scores_MQN.reshape(members, -1)).reshape(boards, clips)
            self.shared[key] = np.concatenate(
                [
                    areas(self.boards, mixed_QN + self.boards.scores_MQN[rows])
                    for rows in _chunks(range(members), boards * clips)
                ]
            )
        return np.asarray(self.shared[key])

    def score(self, numbers_BQK: Float64) -> Float64:
        """(B,) official scores from the numbers of the boards."""
        return pooled(numbers_BQK, self.boards, self.counts)


def _chunks(rows: Sequence[int], size: int) -> list[list[int]]:
    """As many mixes at once as stay within some 10 MB an array."""
    step = max(1, 1_000_000 // size)
    return [list(rows[start : start + step]) for start in range(0, len(rows), step)]


def pooled(numbers_BQK: Float64, boards: Boards, counts: Mapping[str, int]) -> Float64:
    """(B,) official scores by the rule of the year, boards of a machine counted as often as `counts` says.

    Harmonic mean over every number since 2021; in 2020 the mean over IDs, then machines, of AUC and pAUC.
    """
    count_Q = np.array([float(counts.get(machine, 0)) for machine in boards.machine_Q])
    if boards.rule == "machine_id":
        ids = {machine: boards.machine_Q.count(machine) for machine in counts}
        count_Q = count_Q / np.array([ids.get(machine, 1) for machine in boards.machine_Q])
    share_Q = count_Q / count_Q.sum()
    used = share_Q > 0
    numbers = numbers_BQK[:, used]
    if boards.rule == "machine_id":
        return np.asarray(numbers.mean(-1) @ share_Q[used])
    return np.asarray(1.0 / ((1.0 / np.maximum(numbers, EPSILON)).mean(-1) @ share_Q[used]))
