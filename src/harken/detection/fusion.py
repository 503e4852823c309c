"""Unsupervised fusion of several detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from harken.core.arrays import Stored
from harken.detection import create_detector
from harken.detection.base import AnomalyDetector, Float64, Ints


class Fusion(AnomalyDetector):
    """score(x) = min_j (s_j(x) - m_j) / v_j, with m_j, v_j mean and standard deviation of detector j's normal scores.

    "Scoring backends matter more than pooling" (arXiv 2606.19269): no detector is best for every machine, and with the
    minimum a clip is anomalous if all detectors agree. m_j and v_j are taken over held-out scores.

    members: names of detectors, or {"detector": name, "parameters": {...}}. rule: `min` or `mean` over the members.
    """

    name: ClassVar[str] = "fusion"
    scores_need_held_out: ClassVar[bool] = True

    location_: Annotated[Float64, Stored("J")]
    spread_: Annotated[Float64, Stored("J", over=0)]

    def __init__(
        self,
        members: Sequence[str | Mapping[str, Any]] = ("knn", "mahalanobis", "ldn"),
        rule: Literal["min", "mean"] = "min",
    ) -> None:
        self.members = members
        self.rule = rule

    def check_parameters(self) -> None:
        super().check_parameters()
        for member in self._create():
            member.check_parameters()

    def _create(self) -> list[AnomalyDetector]:
        if self.rule not in ("min", "mean"):
            raise ValueError(f"unknown rule {self.rule!r}; choose min or mean")
        if isinstance(self.members, str) or not len(self.members):
            raise ValueError("members must be a list of at least one detector")
        detectors = []
        for member in self.members:
            spec: Mapping[str, Any] = {"detector": member} if isinstance(member, str) else member
            unknown = set(spec) - {"detector", "parameters"}
            if unknown or "detector" not in spec:
                raise ValueError(f"a member is a name or has detector and parameters, not {', '.join(sorted(spec))}")
            detectors.append(create_detector(spec["detector"], spec.get("parameters")))
        return detectors

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        self._fit_blocks(bank_ND, domains_N, np.arange(len(bank_ND)))

    def _fit_blocks(self, bank_ND: Float64, domains_N: NDArray[np.str_], blocks_N: Ints) -> None:
        self._members = self._create()
        self.mean_ = bank_ND.mean(axis=0)
        for member in self._members:
            member._fit_blocks(bank_ND, domains_N, blocks_N)

    def _held_out(self, bank_ND: Float64, domains_N: NDArray[np.str_], blocks_N: Ints) -> Float64:
        """Fused held-out scores of the members, which also give location and spread of each."""
        scores_NJ = np.stack([member._held_out(bank_ND, domains_N, blocks_N) for member in self._members], axis=1)
        self.location_, spread_J = scores_NJ.mean(axis=0), scores_NJ.std(axis=0)
        self.spread_ = np.where(spread_J > 0, spread_J, 1.0)
        return self._fused(scores_NJ)

    def _fused(self, scores_NJ: Float64) -> Float64:
        z_NJ = (np.ascontiguousarray(scores_NJ) - self.location_) / self.spread_
        return np.asarray(z_NJ.min(axis=1) if self.rule == "min" else z_NJ.mean(axis=1))

    def _score(self, queries_ND: Float64) -> Float64:
        return self._fused(np.stack([member._score(queries_ND) for member in self._members], axis=1))

    def _check_sizes(self, sizes: Mapping[str, int]) -> None:
        dimensions = [member.dimensions for member in self._members]
        if sizes["J"] != len(dimensions) or set(dimensions) != {sizes["D"]}:
            raise ValueError(f"members of {dimensions} dimensions for {sizes['J']} of {sizes['D']}")

    def state(self) -> dict[str, NDArray[Any]]:
        """Learned attributes, name -> array; names of member 0 begin with `0.`."""
        arrays = super().state()
        for number, member in enumerate(self._members):
            arrays |= {f"{number}.{name}": array for name, array in member.state().items()}
        return arrays

    def restored(self, state: dict[str, NDArray[Any]]) -> Self:
        """This unfitted detector with the state of a fitted one; scores are the same to the last bit."""
        own_state = {name: array for name, array in state.items() if "." not in name}
        self._members = []
        for number, member in enumerate(self._create()):
            prefix = f"{number}."
            member_state = {name.removeprefix(prefix): a for name, a in state.items() if name.startswith(prefix)}
            self._members.append(member.restored(member_state))
        return super().restored(own_state)
