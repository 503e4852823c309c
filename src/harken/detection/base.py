"""Base class of detectors: fitted on embeddings of normal clips, they score others. Higher = more anomalous."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self, get_type_hints

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import TypeAdapter, ValidationError

from harken.core.arrays import Stored, check_arrays, declared_arrays
from harken.detection.space import without_rounding
from harken.detection.tail import USUAL_TAIL, TailForm

Float64 = NDArray[np.float64]
Ints = NDArray[np.int64]

#: folds of the cross-conformal held-out scores where a detector has no exact leave-one-out
FOLDS = 10


class AnomalyDetector(ABC):
    """Base class of all detectors: the scikit-learn estimator interface, with two additions.

    * `fit` sets `train_scores_`, the held-out score of each training clip. Thresholds and p-values are computed from
      them; scores of clips that the detector was fitted on are biased.
    * The fitted state is a set of arrays (`state`, `restored`), stored without pickle.

    A subclass stores its parameters in `__init__` under their names and nothing else, implements `_fit` and
    `_score`, sets `mean_`, keeps learned values in attributes that end in `_`, and may override `_held_out`. It may
    declare shapes and types of all that it learns (`core.arrays.Stored`): they are checked where a state is restored.
    Arrays of custom detectors that are not declared are checked for size and finiteness alone.
    Scores depend on the set of training clips but not on their order, and the score of a clip does not depend on the
    others scored in the same call, to the last bit.
    """

    name: ClassVar[str]
    #: whether `_score` uses what `_held_out` computes
    scores_need_held_out: ClassVar[bool] = False
    #: of the tail of its held-out scores, where it is used for details
    tail_form: ClassVar[TailForm] = USUAL_TAIL

    #: left out by members of others, which have no held-out scores themselves
    train_scores_: Annotated[Float64, Stored("N", optional=True)]
    #: (D,) mean over the training clips (zeros if the detector does not centre them); set by `_fit`
    mean_: Annotated[Float64, Stored("D")]

    def fit(
        self, embeddings_ND: ArrayLike, domains_N: ArrayLike | None = None, blocks_N: ArrayLike | None = None
    ) -> Self:
        """Fit to normal clips.

        embeddings_ND: (clips, dimensions), finite, at least three clips.
        domains_N: label per clip (`source`, `target`, an operating state, ...); None: a single domain.
        blocks_N: integer per clip, consecutive for neighbours in time. Clips of the same or adjacent blocks are
            correlated: for `train_scores_` they are held out together (purged cross-validation). None: clips are
            independent.
        Raises ValueError for invalid input.
        """
        order, bank_ND, domains, blocks = self._in_order(embeddings_ND, domains_N, blocks_N)
        self._fit_blocks(bank_ND, domains, blocks)
        held_out_N = self._held_out(bank_ND, domains, blocks)
        self.train_scores_ = np.empty(len(order))
        self.train_scores_[order] = held_out_N
        return self

    def fit_to_score(self, embeddings_ND: ArrayLike, domains_N: ArrayLike | None = None) -> Self:
        """`fit` for scores alone: `train_scores_`, which take ten times as long, are empty where scores need none."""
        if self.scores_need_held_out:
            return self.fit(embeddings_ND, domains_N)
        self._fit_blocks(*self._in_order(embeddings_ND, domains_N, None)[1:])
        self.train_scores_ = np.empty(0)
        return self

    def _in_order(
        self, embeddings_ND: ArrayLike, domains_N: ArrayLike | None, blocks_N: ArrayLike | None
    ) -> tuple[Ints, Float64, NDArray[np.str_], Ints]:
        """Canonical order, and the clips in it: sums and initial values then do not depend on the order of files."""
        bank_ND, domains, blocks = self._checked(embeddings_ND, domains_N, blocks_N)
        order = canonical_order(bank_ND)
        return order, without_rounding(bank_ND[order]), domains[order], blocks[order]

    def score(self, embeddings_ND: ArrayLike) -> Float64:
        """(clips, dimensions) -> (clips,) float64, higher = more anomalous. Raises ValueError for invalid input."""
        queries_ND = self._checked_queries(embeddings_ND)
        return self._score(queries_ND) if len(queries_ND) else np.empty(0)

    def score_with_nearest(self, embeddings_ND: ArrayLike) -> tuple[Float64, Ints | None]:
        """Scores as from `score`, and the training clip each clip was compared with, both (clips,), from one search.

        A training clip is given by its row in `canonical_order`. None for detectors that do not compare with a single
        training clip.
        """
        queries_ND = self._checked_queries(embeddings_ND)
        return self._score_with_nearest(queries_ND) if len(queries_ND) else (np.empty(0), None)

    def _checked_queries(self, embeddings_ND: ArrayLike) -> Float64:
        if not hasattr(self, "train_scores_"):
            raise ValueError(f"{type(self).__name__} is not fitted")
        queries_ND = np.asarray(embeddings_ND, dtype=np.float64)
        if queries_ND.ndim != 2 or queries_ND.shape[1] != self.dimensions:
            raise ValueError(f"expected (clips, {self.dimensions}), got {queries_ND.shape}")
        if not np.isfinite(queries_ND).all():
            raise ValueError("embeddings are not finite")
        return queries_ND

    @property
    def dimensions(self) -> int:
        """Dimension D of the embeddings it was fitted on."""
        return self.mean_.shape[0]

    @abstractmethod
    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None: ...

    def _fit_blocks(self, bank_ND: Float64, domains_N: NDArray[np.str_], blocks_N: Ints) -> None:
        """`_fit`, for detectors to which correlation in time matters: `blocks_N` as in `fit`."""
        self._fit(bank_ND, domains_N)

    @abstractmethod
    def _score(self, queries_ND: Float64) -> Float64: ...

    def _score_with_nearest(self, queries_ND: Float64) -> tuple[Float64, Ints | None]:
        return self._score(queries_ND), None

    def _held_out(self, bank_ND: Float64, domains_N: NDArray[np.str_], blocks_N: Ints) -> Float64:
        """Cross-conformal scores (Vovk 2015): each fold of blocks is scored by a refit without it and adjacent ones."""
        scores_N = np.empty(len(bank_ND))
        for held, kept in held_out_folds(blocks_N, domains_N):
            refit = type(self)(**self.get_params())
            # No detector can be fitted to a single clip; a duplicate adds no spread.
            kept = np.repeat(kept, 2) if len(kept) == 1 else kept
            refit._fit_blocks(bank_ND[kept], domains_N[kept], blocks_N[kept])
            scores_N[held] = refit._score(bank_ND[held])
        return scores_N

    @staticmethod
    def _checked(
        embeddings: ArrayLike, domains: ArrayLike | None, blocks: ArrayLike | None
    ) -> tuple[Float64, NDArray[np.str_], Ints]:
        bank_ND = np.asarray(embeddings, dtype=np.float64)
        if bank_ND.ndim != 2 or len(bank_ND) < 3 or bank_ND.shape[1] == 0:
            raise ValueError(f"expected at least three clips as (clips, dimensions), got shape {bank_ND.shape}")
        if not np.isfinite(bank_ND).all():
            raise ValueError("embeddings are not finite")
        count = len(bank_ND)
        labels = np.full(count, "") if domains is None else np.asarray(domains).astype(str)
        # Independent clips get every other number: none are adjacent.
        groups = 2 * np.arange(count) if blocks is None else np.asarray(blocks)
        if labels.shape != (count,) or groups.shape != (count,):
            raise ValueError(f"{count} clips need as many domains and blocks")
        if not np.issubdtype(groups.dtype, np.integer):
            raise ValueError("blocks must be integers")
        groups = groups.astype(np.int64)
        if len(np.unique(groups)) == 1:
            raise ValueError("all clips are in one block: none are left to compare them with")
        return bank_ND, labels, groups

    def check_parameters(self) -> None:
        """Raise ValueError for a parameter that is not what `__init__` declares (`Literal`, `PositiveInt`, ...), before
        there are embeddings to fit to."""
        for name, hint in get_type_hints(type(self).__init__, include_extras=True).items():
            if name == "return":
                continue
            try:
                TypeAdapter(hint).validate_python(getattr(self, name), strict=True)
            except ValidationError as error:
                raise ValueError(f"{name}: {error.errors()[0]['msg']}, not {getattr(self, name)!r}") from None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def state(self) -> dict[str, NDArray[Any]]:
        """Learned attributes, name -> array."""
        return {
            name: np.asarray(value)
            for name, value in sorted(vars(self).items())
            if name.endswith("_") and not name.startswith("_")
        }

    def restored(self, state: dict[str, NDArray[Any]]) -> Self:
        """This unfitted detector with the state of a fitted one; scores are the same to the last bit.

        Raises ValueError for what is no learned attribute, or of another shape, type or range than declared, and
        KeyError for what is missing.
        """
        for name in state:
            if not name.endswith("_") or name.startswith("_"):
                raise ValueError(f"{name} is not learned by {type(self).__name__}")
        declared = declared_arrays(type(self))
        sizes = check_arrays(_with_custom(declared, state) if self._is_custom else declared, state)
        for name, value in state.items():
            setattr(self, name, value)
        self._check_sizes(sizes)
        self._rebuild()
        return self

    @property
    def _is_custom(self) -> bool:
        return type(self).__module__.partition(".")[0] != "harken"

    def _check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Raise ValueError where lengths of axes do not fit the parameters or each other; the state is set."""

    def _rebuild(self) -> None:
        """Recompute what `_fit` derives from the state but does not store in it."""


def _with_custom(declared: Mapping[str, Stored], state: Mapping[str, NDArray[Any]]) -> dict[str, Stored]:
    """What a custom detector may hold: arrays that it does not declare, of any shape, and less precise numbers in those
    that it inherits or declares."""
    undeclared = {
        name: Stored(" ".join(map(str, array.shape)), array.dtype.name, empty=True) for name, array in state.items()
    }
    loose = {
        name: replace(stored, types=f"{stored.types} float32") if "float64" in stored.types.split() else stored
        for name, stored in declared.items()
    }
    return {**undeclared, **loose}


def canonical_order(embeddings_ND: ArrayLike) -> Ints:
    """(clips,) row indices sorted by the bytes of the rows: the order in which detectors are fitted."""
    rows_ND = np.asarray(embeddings_ND, dtype=np.float64)
    return np.array(sorted(range(len(rows_ND)), key=lambda row: rows_ND[row].tobytes()), dtype=np.int64)


def held_out_folds(blocks_N: Ints, domains_N: NDArray[np.str_]) -> Iterator[tuple[Ints, Ints]]:
    """Rows of each fold, and those that are neither of it nor of blocks beside it.

    Where every block is beside the fold, only its own rows are left out.
    """
    fold_N = assign_folds(blocks_N, domains_N)
    for fold in np.unique(fold_N):
        held_N = fold_N == fold
        fold_blocks = np.unique(blocks_N[held_N])
        near_N = np.isin(blocks_N, np.concatenate([fold_blocks - 1, fold_blocks, fold_blocks + 1]))
        kept = np.flatnonzero(~near_N) if (~near_N).sum() > 1 else np.flatnonzero(~held_N)
        yield np.flatnonzero(held_N), kept


def assign_folds(blocks_N: Ints, domains_N: NDArray[np.str_], folds: int = FOLDS) -> Ints:
    """(clips,) fold number of each clip: whole blocks, consecutive ones together, each domain spread over all folds.

    Domains are spread because a fold with all target clips would be scored by source clips only.
    """
    domain_of_block = dict(zip(blocks_N.tolist(), domains_N.tolist(), strict=True))
    by_domain: dict[str, list[int]] = {}
    for block in sorted(domain_of_block):
        by_domain.setdefault(domain_of_block[block], []).append(block)
    # Blocks at the same relative position of their domains go to the same fold.
    spread = sorted(
        ((position + 0.5) / len(members), domain, block)
        for domain, members in by_domain.items()
        for position, block in enumerate(members)
    )
    count = min(folds, len(spread))
    fold_of = {block: rank * count // len(spread) for rank, (_, _, block) in enumerate(spread)}
    return np.array([fold_of[block] for block in blocks_N.tolist()], dtype=np.int64)
