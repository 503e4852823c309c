"""The official score of many weightings at once, which every search for weights maximises."""

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
#: mixes whose numbers a search keeps at most
_MOST_REMEMBERED = 20_000


@dataclass(frozen=True)
class Boards:
    """Scores and labels that the official rule needs, padded to one array.

    A board is a set of clips that is ranked once: a section, or a domain of it where the rule ranks domains separately.
    scores_MQN: normalised scores of M members, Q boards, N clips. anomaly_QN, present_QN: False in the
    padding of boards with fewer clips. normal_GQN: the normal clips of each AUC. machine_Q: of each board. rule: of the
    year.
    """

    scores_MQN: Float64
    anomaly_QN: Bools
    present_QN: Bools
    normal_GQN: Bools
    machine_Q: tuple[str, ...]
    rule: Metric


def make_boards(scores: Sequence[Float64], labels: Sequence[SectionScores], rule: Metric) -> Boards:
    """Boards of sections. scores: (members, clips) of each section; labels: its truth, clips in the same order."""
    rows: list[tuple[Float64, Bools, list[Bools], str]] = []
    for scores_MN, section in zip(scores, labels, strict=True):
        normal_N = ~section.anomaly_N
        if rule == "domain_generalization":
            normals = [normal_N & (section.domain_N == domain) for domain in (0, 1)]
            rows.append((scores_MN, section.anomaly_N, normals, section.machine))
        elif rule == "domain_adaptation":
            for domain in (0, 1):
                inside = section.domain_N == domain
                rows.append((scores_MN[:, inside], section.anomaly_N[inside], [normal_N[inside]], section.machine))
        else:
            rows.append((scores_MN, section.anomaly_N, [normal_N], section.machine))
    members, clips = len(rows[0][0]), max(board[0].shape[1] for board in rows)
    boards = Boards(
        np.zeros((members, len(rows), clips)),
        np.zeros((len(rows), clips), dtype=bool),
        np.zeros((len(rows), clips), dtype=bool),
        np.zeros((len(rows[0][2]), len(rows), clips), dtype=bool),
        tuple(board[3] for board in rows),
        rule,
    )
    for row, (scores_MN, anomaly_N, normals, _) in enumerate(rows):
        count = scores_MN.shape[1]
        boards.scores_MQN[:, row, :count] = scores_MN
        boards.anomaly_QN[row, :count] = anomaly_N
        boards.present_QN[row, :count] = True
        for group, normal_N in enumerate(normals):
            boards.normal_GQN[group, row, :count] = normal_N
    return boards


def areas(boards: Boards, scores_BQN: Float64) -> Float64:
    """(B, Q, numbers): each board's AUCs and its partial AUC, for B mixes; ties as in the official evaluators.

    With clips in descending order, a normal clip adds the share of anomalies above it to the area, halfway through its
    group of equal scores; a group that the limit of the false positive rate cuts adds the area below the limit.
    """
    order = np.argsort(np.where(boards.present_QN, -scores_BQN, np.inf), axis=-1, kind="stable")
    sorted_BQN = np.take_along_axis(scores_BQN, order, -1)
    anomaly = _taken(boards.anomaly_QN, order).astype(np.float64)
    normals = [_taken(normal_QN, order) for normal_QN in boards.normal_GQN]
    normal = _taken(boards.present_QN & ~boards.anomaly_QN, order).astype(np.float64)
    hits, false = np.cumsum(anomaly, -1), np.cumsum(normal, -1)
    all_hits, all_false = hits[..., -1:], false[..., -1:]
    # Without ties each clip is a group, which begins just above it.
    start_hits, start_false, end_hits, end_false = hits - anomaly, false - normal, hits, false
    present = _taken(boards.present_QN, order)
    tied = (sorted_BQN[..., 1:] == sorted_BQN[..., :-1]) & present[..., 1:]
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
    """First and last position of the group of equal scores around each position."""
    count = tied.shape[-1] + 1
    position = np.broadcast_to(np.arange(count), (*tied.shape[:-1], count))
    edge = np.ones((*tied.shape[:-1], 1), dtype=bool)
    first = np.maximum.accumulate(np.where(np.concatenate([edge, ~tied], -1), position, 0), -1)
    ends = np.where(np.concatenate([~tied, edge], -1), position, count)
    last = np.flip(np.minimum.accumulate(np.flip(ends, -1), -1), -1)
    return first, last


class Objective:
    """Official score of weightings on some of the machines. counts: machine -> how often it counts (default: once).

    Views on other machines share the boards and the numbers of earlier mixes, so that leave-one-machine-out costs
    little more than one search.
    """

    def __init__(self, boards: Boards, counts: Mapping[str, int] | None = None) -> None:
        self.boards = boards
        self.counts = dict.fromkeys(boards.machine_Q, 1) if counts is None else dict(counts)
        self._seen: dict[bytes, Float64] = {}
        self.shared: dict[Any, Any] = {}

    @property
    def members(self) -> int:
        """M, the number of members."""
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
        """(B, Q, numbers) of each weighting, on all machines. The scale of the weights changes nothing."""
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
        chunks = []
        for rows in _chunks(range(len(weights_BM)), boards * clips):
            mixed_BQN = weights_BM[rows] @ self.boards.scores_MQN.reshape(members, -1)
            chunks.append(areas(self.boards, mixed_BQN.reshape(-1, boards, clips)))
        return np.concatenate(chunks)

    def steps(self, counts_M: Float64) -> Float64:
        """(M, Q, numbers) after adding each member once more to a mix of so many copies of each."""
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
    """As many mixes at once as stay within about 10 MB per array."""
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
