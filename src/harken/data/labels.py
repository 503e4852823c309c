"""Class labels of training clips from metadata by named policies, and pseudo-attributes where metadata are missing.

A policy selects training clips and assigns them to classes. The policies are those of five systems of DCASE 2025
Task 2, as described in their reports:

    thuee       year x machine x section x attributes; no supplemental clips (sec. 2.2)
    sjtu_aithu  machine x attributes if given as such (since 2022), else machine x section (sec. 2.1)
    ustc        machine x domain x attributes (sec. 2.2)
    nwpu        machine x attributes; noise and clean sound of each machine are separate classes (sec. 2.1)
    unisound    machine x section x attributes; and a second label: clean, noise or mixture (sec. 1)

Every class includes the year (for other corpora, the corpus) unless years are pooled, since sections are renumbered
and machine names reused every year.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.core.plugins import build, check_name, is_custom, load_class, located_errors
from harken.core.threads import one_thread
from harken.data.clips import Clip

Ints = NDArray[np.int64]

#: index of a clip that has no label
UNUSED = -1
#: second label of `unisound`
MIXTURE_LABELS = ("clean", "noise", "mixture")
# Separated clips are neither clean nor mixtures.
_MIXTURE = {"clean": "clean", "noise": "noise", "machine": "mixture", "generated": "mixture", "mixed": "mixture"}
# Their names contain attributes too, but the report uses sections for them.
_SECTION_YEARS = frozenset({2020, 2021})


class ClassKey(NamedTuple):
    """Key of a class.

    fields: of its name, after the year. attributes: last field, "" without attributes, see `LabelPolicy.metadata`.
    attribute_free: whether the operating conditions of its clips are unknown.
    """

    fields: tuple[str, ...]
    attributes: str = ""
    attribute_free: bool = False

    def name(self, years: tuple[str, ...]) -> str:
        """Unique name of the class: fields are quoted, so that they contain no separator."""
        fields = [_quoted(field) or "?" for field in (*years, *self.fields)]
        return "/".join([*fields, self.attributes] if self.attributes else fields)


class ClassTable(BaseModel):
    """Classes of a policy and the class of each clip, independent of the order of the clips.

    classes: sorted names. attribute_free: per class, whether the operating conditions of its clips are unknown, so that
    it may need several sub-centres. counts: clips per class. class_of: clip id -> class index, or `UNUSED`.
    mixture_of: clip id -> index in `MIXTURE_LABELS`, or `UNUSED`; None for policies without a second label.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = Field(alias="harken_labels")
    policy: str
    classes: tuple[str, ...]
    attribute_free: tuple[bool, ...]
    counts: tuple[int, ...]
    class_of: dict[str, int]
    mixture_of: dict[str, int] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes are repeated")
        if not len(self.classes) == len(self.attribute_free) == len(self.counts):
            raise ValueError("classes, attribute_free and counts differ in length")
        counts = Counter(self.class_of.values())
        if counts.keys() - {UNUSED, *range(len(self.classes))}:
            raise ValueError("a clip has a class that does not exist")
        if self.counts != tuple(counts[index] for index in range(len(self.classes))):
            raise ValueError("counts are not those of the clips")
        if self.mixture_of is not None:
            if self.mixture_of.keys() != self.class_of.keys():
                raise ValueError("class_of and mixture_of are not of the same clips")
            if set(self.mixture_of.values()) - {UNUSED, *range(len(MIXTURE_LABELS))}:
                raise ValueError("a clip has a second label that does not exist")
        return self

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def attribute_free_classes(self) -> tuple[int, ...]:
        """Indices of attribute-free classes."""
        return tuple(index for index, free in enumerate(self.attribute_free) if free)

    def indices(self, clips: Sequence[Clip]) -> Ints:
        """(N,) class index of each clip, or `UNUSED`. Raises HarkenError for a clip that is not in the table."""
        return self._look_up(self.class_of, clips)

    def mixture_indices(self, clips: Sequence[Clip]) -> Ints:
        """(N,) second label of each clip, or `UNUSED`. Raises HarkenError if the policy has no second label."""
        if self.mixture_of is None:
            raise HarkenError(f"the policy {self.policy} has no second label", next_step="Use unisound")
        return self._look_up(self.mixture_of, clips)

    def _look_up(self, labels: dict[str, int], clips: Sequence[Clip]) -> Ints:
        for clip in clips:
            if clip.clip_id not in labels:
                raise HarkenError(f"the labels have no clip {clip.clip_id}", next_step="Create them from this table")
        return np.array([labels[clip.clip_id] for clip in clips], dtype=np.int64)

    def to_text(self) -> str:
        """Text with one line per class: index, clips, `*` if it is attribute-free, name."""
        used = sum(self.counts)
        free = len(self.attribute_free_classes)
        lines = [
            f"{self.policy}: {len(self)} classes, {free} of them attribute-free (*), "
            f"{used} clips, {len(self.class_of) - used} without class"
        ]
        if self.mixture_of is not None:
            second = Counter(self.mixture_of.values())
            lines.append(", ".join(f"{second[index]} {name}" for index, name in enumerate(MIXTURE_LABELS)))
        for index, (name, is_free, count) in enumerate(
            zip(self.classes, self.attribute_free, self.counts, strict=True)
        ):
            lines.append(f"{index:5d} {count:7d} {'*' if is_free else ' '} {name}")
        return "\n".join(lines) + "\n"

    def write(self, file: Path) -> None:
        """Write as JSON, atomically."""
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json_text(self.model_dump(by_alias=True), indent=1).encode())

    @classmethod
    def read(cls, file: Path) -> ClassTable:
        """Read a table of `write`. Raises HarkenError for a missing or invalid file."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except FileNotFoundError as error:
            raise HarkenError("there is no such file", file=file, next_step="Check the path") from error
        except (OSError, ValidationError) as error:
            raise HarkenError("is not a table of classes", file=file, next_step="Create it again") from error


class LabelPolicy(ABC):
    """Selection of training clips and their classes; custom policies are `file.py:Class`.

    second_label: whether clips also have a label clean, noise or mixture.
    """

    second_label: bool = False

    @abstractmethod
    def class_of(self, clip: Clip) -> ClassKey | None:
        """Class of a training or supplemental clip by its metadata; None: the clip is not used."""

    @staticmethod
    def metadata(clip: Clip, *fields: str) -> ClassKey:
        """Key of `fields` and the clip's attributes (`car=A1,spd=28V`); attribute-free if it has none."""
        pairs = (f"{_quoted(key)}={_quoted(value)}" for key, value in sorted(clip.attributes.items()))
        attributes = ",".join(pairs)
        return ClassKey(fields, attributes, attribute_free=not attributes)


def list_policies() -> tuple[str, ...]:
    """Names of all policies."""
    return tuple(sorted(_POLICIES))


def create_policy(name: str, parameters: Mapping[str, Any] | None = None) -> LabelPolicy:
    """Policy by name, from `list_policies` or custom, with these parameters.

    Raises HarkenError for unknown names, suggesting the nearest, and for parameters of a policy that has none.
    """
    if is_custom(name):
        return build(load_class(name, LabelPolicy), name, parameters)  # type: ignore[type-abstract]
    try:
        check_name("policy", name, _POLICIES)
    except ValueError as error:
        cause, _, hint = str(error).partition(". ")
        raise HarkenError(cause, next_step=hint) from None
    if parameters:
        raise HarkenError(f"the policy {name} has no parameters", next_step="Remove them")
    return _POLICIES[name]


def label_clips(
    clips: Sequence[Clip],
    policy: str | LabelPolicy,
    *,
    pool_years: bool = False,
    parameters: Mapping[str, Any] | None = None,
) -> ClassTable:
    """Classes of training clips by a policy.

    Clips of the splits train and supplemental that are not known to be anomalous get labels, all others `UNUSED`.
    policy, parameters: see `create_policy`. pool_years: omit the year, so that machines of the same name and condition
    are one class over all years. Raises HarkenError for an unknown policy and for repeated clip ids.
    """
    chosen = policy if isinstance(policy, LabelPolicy) else create_policy(policy, parameters)
    name_of_policy = policy if isinstance(policy, str) else type(policy).__name__
    names: dict[str, str | None] = {}
    free: dict[str, bool] = {}
    for clip in clips:
        if clip.clip_id in names:
            raise HarkenError(f"two clips have the id {clip.clip_id}", next_step="Make the clips table again")
        with located_errors(name_of_policy):
            key = chosen.class_of(clip) if _is_training(clip) else None
        names[clip.clip_id] = None
        if key is not None:
            years = () if pool_years else (str(clip.year) if clip.year is not None else clip.corpus,)
            name = key.name(years)
            names[clip.clip_id] = name
            free[name] = key.attribute_free
    classes = tuple(sorted(free))
    index_of: dict[str | None, int] = {None: UNUSED, **{name: index for index, name in enumerate(classes)}}
    # Sorted, so that files do not depend on the order of the clips.
    class_of = {clip_id: index_of[names[clip_id]] for clip_id in sorted(names)}
    counts = Counter(class_of.values())
    mixture_of = None
    if chosen.second_label:
        label_of = {clip.clip_id: _MIXTURE.get(clip.kind) if _is_training(clip) else None for clip in clips}
        mixture_of = {
            clip_id: UNUSED if (label := label_of[clip_id]) is None else MIXTURE_LABELS.index(label)
            for clip_id in sorted(label_of)
        }
    return ClassTable(
        harken_labels=1,
        policy=name_of_policy,
        classes=classes,
        attribute_free=tuple(free[name] for name in classes),
        counts=tuple(counts[index] for index in range(len(classes))),
        class_of=class_of,
        mixture_of=mixture_of,
    )


def _is_training(clip: Clip) -> bool:
    return clip.split in ("train", "supplemental") and clip.condition != "anomaly"


def _quoted(text: str) -> str:
    return quote(text, safe=" +")


def _thuee(clip: Clip) -> ClassKey | None:
    return LabelPolicy.metadata(clip, clip.machine, clip.section) if clip.split == "train" else None


def _sjtu_aithu(clip: Clip) -> ClassKey | None:
    if clip.split != "train":
        return None
    if clip.attributes and clip.year not in _SECTION_YEARS:
        return LabelPolicy.metadata(clip, clip.machine)
    return ClassKey((clip.machine, clip.section), attribute_free=True)


def _ustc(clip: Clip) -> ClassKey | None:
    return LabelPolicy.metadata(clip, clip.machine, clip.domain) if clip.split == "train" else None


def _nwpu(clip: Clip) -> ClassKey | None:
    if clip.kind in ("clean", "noise"):
        return ClassKey((clip.machine, clip.kind))
    return LabelPolicy.metadata(clip, clip.machine) if clip.split == "train" else None


class _Report(LabelPolicy):
    """Policy of one of the five reports."""

    def __init__(self, class_of: Callable[[Clip], ClassKey | None], second_label: bool = False) -> None:
        self._class_of, self.second_label = class_of, second_label

    def class_of(self, clip: Clip) -> ClassKey | None:
        return self._class_of(clip)


_POLICIES: dict[str, LabelPolicy] = {
    "thuee": _Report(_thuee),
    "sjtu_aithu": _Report(_sjtu_aithu),
    "ustc": _Report(_ustc),
    "nwpu": _Report(_nwpu),
    # Supplemental clips have unknown operating conditions: they get the second label only.
    "unisound": _Report(_thuee, second_label=True),
}


# --- pseudo-attributes


@dataclass(frozen=True)
class Agreement:
    """Agreement of pseudo-attributes with true conditions.

    ari: adjusted Rand index, 0 for chance. nmi: normalised mutual information, 0 for independence. Both are 1 for full
    agreement. clusters, conditions: numbers.
    """

    ari: float
    nmi: float
    clusters: int
    conditions: int


def pseudo_attributes(
    embeddings_ND: ArrayLike,
    *,
    method: Literal["ward", "kmeans"] = "ward",
    clusters: int | None = None,
    max_clusters: int = 16,
    min_silhouette: float = 0.0,
    normalise: bool = True,
    seed: int = 0,
) -> Ints:
    """(N,) cluster of each clip of one machine with unknown conditions, numbered by decreasing size.

    Ward's agglomerative clustering (as in USTC's successor, arXiv 2509.12845) or k-means of embeddings (N, D), scaled
    to unit length if `normalise`. The number of clusters, 2 to `max_clusters`, is the one of highest mean silhouette
    (of equal ones, the smallest); a single cluster if that is below `min_silhouette` or all embeddings are equal.
    clusters: their number, if known (fewer if fewer embeddings differ). Independent of the order of the clips.

    Needs memory for N^2 distances. Raises ValueError for embeddings that are not (N, D) and finite, an unknown method
    and numbers of clusters below one.
    """
    x_ND = np.asarray(embeddings_ND, dtype=np.float64)
    if x_ND.ndim != 2 or len(x_ND) == 0 or not np.isfinite(x_ND).all():
        raise ValueError(f"expected finite embeddings (N, D), got {x_ND.shape}")
    if method not in ("ward", "kmeans"):
        raise ValueError(f"method is ward or kmeans, not {method!r}")
    if max_clusters < 1 or (clusters is not None and clusters < 1):
        raise ValueError("clusters and max_clusters are at least 1")
    if normalise:
        norms_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
        x_ND = x_ND / np.where(norms_N1 > 0, norms_N1, 1.0)
    # k-means draws initial rows by index: sorted, they do not depend on the order of the clips.
    order_N = np.lexsort(x_ND.T[::-1])
    x_ND = x_ND[order_N]
    distinct = len(np.unique(x_ND, axis=0))
    # Imported first: the limit to one thread applies to loaded libraries only.
    import sklearn.cluster  # noqa: F401

    with one_thread():
        if clusters is not None:
            clusters_N = _cluster(x_ND, method, seed)(min(clusters, distinct))
        else:
            clusters_N = _best(x_ND, _cluster(x_ND, method, seed), min(max_clusters, distinct), min_silhouette)
    labels_N = np.empty_like(clusters_N)
    labels_N[order_N] = _by_size(clusters_N, x_ND)
    return labels_N


def _cluster(x_ND: NDArray[np.float64], method: str, seed: int) -> Callable[[int], Ints]:
    """Function: number of clusters -> (N,) cluster of each row."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from sklearn.cluster import KMeans

    if len(x_ND) == 1:
        return lambda number: np.zeros(1, dtype=np.int64)
    if method == "ward":
        tree = linkage(x_ND, method="ward")
        return lambda number: fcluster(tree, number, criterion="maxclust").astype(np.int64)
    return lambda number: KMeans(number, n_init=10, random_state=seed).fit_predict(x_ND).astype(np.int64)


def _best(x_ND: NDArray[np.float64], cluster: Callable[[int], Ints], highest: int, least: float) -> Ints:
    """(N,) clusters, 2 to `highest`, of the highest silhouette; one cluster if none reaches `least`."""
    from scipy.spatial.distance import pdist, squareform
    from sklearn.metrics import silhouette_score

    best_N, best = np.zeros(len(x_ND), dtype=np.int64), -np.inf
    distances_NN = squareform(pdist(x_ND))
    for number in range(2, highest + 1):
        labels_N = cluster(number)
        # A silhouette is defined for 2 to N - 1 clusters; ties may yield fewer clusters than requested.
        if not 2 <= len(np.unique(labels_N)) < len(x_ND):
            continue
        score = silhouette_score(distances_NN, labels_N, metric="precomputed")
        if score >= least and score > best:
            best_N, best = labels_N, score
    return best_N


def _by_size(labels_N: Ints, x_ND: NDArray[np.float64]) -> Ints:
    """Clusters renumbered by decreasing size, equally large ones by their means."""
    names, inverse_N, sizes = np.unique(labels_N, return_inverse=True, return_counts=True)
    keys = [(-sizes[row], tuple(x_ND[labels_N == name].mean(axis=0))) for row, name in enumerate(names)]
    rank = np.empty(len(names), dtype=np.int64)
    rank[sorted(range(len(names)), key=keys.__getitem__)] = np.arange(len(names))
    return rank[inverse_N]


def agreement(pseudo_N: Sequence[int] | Ints, truth_N: Sequence[str]) -> Agreement:
    """Compare pseudo-attributes with true conditions. Raises ValueError for no clips and different numbers."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    if len(pseudo_N) != len(truth_N) or len(truth_N) == 0:
        raise ValueError(f"{len(pseudo_N)} pseudo-attributes for {len(truth_N)} conditions")
    return Agreement(
        ari=float(adjusted_rand_score(truth_N, pseudo_N)),
        nmi=float(normalized_mutual_info_score(truth_N, pseudo_N)),
        clusters=len(set(map(int, pseudo_N))),
        conditions=len(set(truth_N)),
    )
