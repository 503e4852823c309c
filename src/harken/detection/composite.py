"""Detectors that each look at some columns of an embedding, mixed by their held-out scores: several members in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, TypedDict, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harken.core.arrays import Stored
from harken.detection import create_detector
from harken.detection.base import AnomalyDetector, Float64
from harken.detection.normalise import INDUCTIVE, normalised

Float32 = NDArray[np.float32]
Mixing = Literal["single", "deviations", "train", "gamma", "rank", "none"]


class Columns(TypedDict):
    """Columns `start` to `stop` of an embedding; to the end if that is None; unit: brought to unit length and
    multiplied by this; None: as is."""

    start: int
    stop: int | None
    unit: float | None


class CompositeMember(TypedDict):
    """A detector of the vectors that its columns make, one after the other. weight: of its score in the sum."""

    detector: str
    parameters: dict[str, Any]
    columns: list[Columns]
    weight: float


class Composite(AnomalyDetector):
    """The sum of its members' scores, times weights, in units that make them alike.

    mixing: `single`, the score of the only member as it is; `deviations`, sum_j w_j (s_j(x) - m_j) / v_j with the mean
    m_j and deviation v_j of member j's held-out scores, as stages `combine` do; another: sum_j w_j n_j(s_j(x)) with n_j
    that of `detection.normalise`, fitted to member j's held-out scores, as ensembles do.
    Sums give the bits of the bench.
    Members are fitted as they would be alone; sums over their held-out scores go in the order of the clips in `fit`.
    """

    name: ClassVar[str] = "composite"
    scores_need_held_out: ClassVar[bool] = True

    #: (members, clips) held-out scores of each member
    held_out_: Annotated[Float64, Stored("J N")]

    def __init__(self, members: Sequence[CompositeMember], mixing: Mixing = "deviations") -> None:
        self.members = members
        self.mixing = mixing

    def fit(
        self, embeddings_ND: ArrayLike, domains_N: ArrayLike | None = None, blocks_N: ArrayLike | None = None
    ) -> Self:
        """See `AnomalyDetector.fit`. Raises ValueError too for an unknown mixing, and where the scores that a
        normalisation rests on are all equal."""
        if self.mixing not in get_args(Mixing) or (self.mixing == "single" and len(self.members) != 1):
            raise ValueError(f"{len(self.members)} members cannot be mixed by {self.mixing!r}")
        bank_ND = np.asarray(embeddings_ND, dtype=np.float32)
        self.mean_ = np.zeros(bank_ND.shape[1])
        self._made = [create_detector(member["detector"], member["parameters"]) for member in self.members]
        for detector, member in zip(self._made, self.members, strict=True):
            detector.fit(_chosen(bank_ND, member["columns"]), domains_N, blocks_N)
        self.held_out_ = np.stack([detector.train_scores_ for detector in self._made])
        self.train_scores_ = self._mixed(list(self.held_out_))
        return self

    def check_parameters(self) -> None:
        """See `AnomalyDetector.check_parameters`; of the members too."""
        if self.mixing not in get_args(Mixing) or not self.members:
            raise ValueError(f"{len(self.members)} members cannot be mixed by {self.mixing!r}")
        for member in self.members:
            create_detector(member["detector"], member["parameters"]).check_parameters()
            if not np.isfinite(member["weight"]):
                raise ValueError(f"a weight of {member['weight']}")

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        self.fit(bank_ND, domains_N)

    def _score(self, queries_ND: Float64) -> Float64:
        return self._mixed([detector.score(rows_ND) for detector, rows_ND in self.in_members(queries_ND)])

    def in_members(self, rows_ND: ArrayLike) -> list[tuple[AnomalyDetector, Float32]]:
        """Each member, and of (N, D) embeddings the vectors that it looks at."""
        single_ND = np.asarray(rows_ND, dtype=np.float32)
        return [
            (detector, _chosen(single_ND, member["columns"]))
            for detector, member in zip(self._made, self.members, strict=True)
        ]

    def _check_sizes(self, sizes: Mapping[str, int]) -> None:
        if sizes["J"] != len(self.members):
            raise ValueError(f"held-out scores of {sizes['J']} members, not of {len(self.members)}")
        for detector, rows_ND in self.in_members(np.zeros((1, sizes["D"]))):
            if detector.dimensions != rows_ND.shape[1]:
                raise ValueError(f"a member of {detector.dimensions} dimensions for {rows_ND.shape[1]}")

    def _mixed(self, scores: Sequence[Float64]) -> Float64:
        if self.mixing == "single":
            return np.array(scores[0])
        mixed_N = np.zeros(len(scores[0]))
        for scores_N, member, held_out_S in zip(scores, self.members, self.held_out_, strict=True):
            if self.mixing == "deviations":
                mixed_N = mixed_N + member["weight"] * (scores_N - held_out_S.mean()) / (held_out_S.std() or 1.0)
            else:
                train_S = held_out_S if self.mixing in INDUCTIVE else None
                mixed_N = mixed_N + member["weight"] * normalised(self.mixing, scores_N, train_S)[0]
        return mixed_N

    def state(self) -> dict[str, NDArray[Any]]:
        inside = {
            f"{number}.{name}": array
            for number, detector in enumerate(self._made)
            for name, array in detector.state().items()
        }
        return {**super().state(), **inside}

    def restored(self, state: dict[str, NDArray[Any]]) -> Self:
        self._made = []
        for number, member in enumerate(self.members):
            prefix = f"{number}."
            inside = {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
            self._made.append(create_detector(member["detector"], member["parameters"]).restored(inside))
        return super().restored({name: array for name, array in state.items() if "." not in name})


def _chosen(rows_ND: Float32, columns: Sequence[Columns]) -> Float32:
    chosen = []
    for block in columns:
        block_ND = rows_ND[:, block["start"] : block["stop"]]
        if block["unit"] is not None:
            length_N1 = np.linalg.norm(block_ND, axis=1, keepdims=True)
            unit_ND = np.asarray(block_ND / np.where(length_N1 > 0, length_N1, 1.0), dtype=np.float32)
            block_ND = np.float32(block["unit"]) * unit_ND
        chosen.append(block_ND)
    return np.concatenate(chosen, axis=1)
