"""Class labels of training clips from what is known of them, as named policies; and pseudo-attributes where it is not.

A policy says which training clips are used and which of them are of one class. The policies are those of five systems
of DCASE 2025 Task 2, as their reports tell them:

    thuee       year x machine x section x attributes; no supplemental clips (sec. 2.2)
    sjtu_aithu  attributes where they are given as such (since 2022), else section; of each machine (sec. 2.1)
    ustc        machine x domain x attributes (sec. 2.2)
    nwpu        machine x attributes; pure noise and clean sound of each machine are classes of their own (sec. 2.1)
    unisound    machine x section x attributes; and a second label: clean, noise or mixture (sec. 1)

The year (for other corpora, the corpus) is part of every class unless years are pooled: sections are numbered anew
each year, and machines of one name are others.
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
from harken.core.plugins import blamed, check_name, is_custom, load_class
from harken.core.threads import one_thread
from harken.data.clips import Clip

Ints = NDArray[np.int64]

#: index of a clip that has no label
UNUSED = -1
#: second label of `unisound`
MIXTURE_LABELS = ("clean", "noise", "mixture")
# What a separator leaves is neither clean nor a mixture.
_MIXTURE = {"clean": "clean", "noise": "noise", "machine": "mixture", "generated": "mixture", "mixed": "mixture"}
# Their names carry conditions too, but the report falls back to sections for them.
_SECTION_YEARS = frozenset({2020, 2021})


class ClassKey(NamedTuple):
    """A class: the parts of its name after the year, and whether it stands for conditions that are not known.

    attributes: the last part of the name where there are some, see `LabelPolicy.metadata`.
    """

    parts: tuple[str, ...]
    attributes: str = ""
    attribute_free: bool = False

    def name(self, years: tuple[str, ...]) -> str:
        """Different classes have different names: no separator occurs within a part."""
        parts = [_quoted(part) or "?" for part in (*years, *self.parts)]
        return "/".join([*parts, self.attributes] if self.attributes else parts)


class ClassTable(BaseModel):
    """The classes of a policy and the class of each clip; the same for any order of the clips.

    classes: names, sorted. attribute_free: by class, whether its clips do not tell their conditions; it may want
    several centres. counts: clips by class. class_of: clip id -> index of its class, `UNUSED` for none. mixture_of:
    clip id -> index in `MIXTURE_LABELS`, None for policies without a second label.
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
            raise ValueError("a class is there twice")
        if not len(self.classes) == len(self.attribute_free) == len(self.counts):
            raise ValueError("classes, attribute_free and counts differ in length")
        found = Counter(self.class_of.values())
        if found.keys() - {UNUSED, *range(len(self.classes))}:
            raise ValueError("a clip has a class that does not exist")
        if self.counts != tuple(found[index] for index in range(len(self.classes))):
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
        """Indices of the classes that may want several centres."""
        return tuple(index for index, free in enumerate(self.attribute_free) if free)

    def indices(self, clips: Sequence[Clip]) -> Ints:
        """(N,) class of each clip, `UNUSED` for none. Raises HarkenError for a clip that was not there."""
        return self._look_up(self.class_of, clips)

    def mixture_indices(self, clips: Sequence[Clip]) -> Ints:
        """(N,) second label of each clip, `UNUSED` for none. Raises HarkenError where the policy has none."""
        if self.mixture_of is None:
            raise HarkenError(f"the policy {self.policy} has no second label", next_step="Use unisound")
        return self._look_up(self.mixture_of, clips)

    def _look_up(self, labels: dict[str, int], clips: Sequence[Clip]) -> Ints:
        for clip in clips:
            if clip.clip_id not in labels:
                raise HarkenError(f"the labels know no clip {clip.clip_id}", next_step="Make them of this clips table")
        return np.array([labels[clip.clip_id] for clip in clips], dtype=np.int64)

    def to_text(self) -> str:
        """A line a class: index, clips, `*` if it is attribute-free, name."""
        used = sum(self.counts)
        free = len(self.attribute_free_classes)
        lines = [
            f"{self.policy}: {len(self)} classes, {free} of them attribute-free (*), "
            f"{used} clips, {len(self.class_of) - used} without class"
        ]
        if self.mixture_of is not None:
            second = Counter(self.mixture_of.values())
            lines.append(", ".join(f"{second[index]} {name}" for index, name in enumerate(MIXTURE_LABELS)))
        for index, (name, free_here, count) in enumerate(
            zip(self.classes, self.attribute_free, self.counts, strict=True)
        ):
            lines.append(f"{index:5d} {count:7d} {'*' if free_here else ' '} {name}")
        return "\n".join(lines) + "\n"

    def write(self, file: Path) -> None:
        """Write as JSON; whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, self.model_dump_json(indent=1, by_alias=True).encode())

    @classmethod
    def read(cls, file: Path) -> ClassTable:
        """A table that was written. Raises HarkenError for anything else."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except FileNotFoundError as error:
            raise HarkenError("there is no such file", file=file, next_step="Check the path") from error
        except (OSError, ValidationError) as error:
            raise HarkenError("is no table of classes", file=file, next_step="Make it again") from error


class LabelPolicy(ABC):
    """Which training clips are used, and which of them are of one class; a custom one is `file.py:Class`.

    second_label: whether clips also have the label clean, noise or mixture.
    """

    second_label: bool = False

    @abstractmethod
    def class_of(self, clip: Clip) -> ClassKey | None:
        """The class of a training or supplemental clip, by its metadata alone; None where it has none."""

    @staticmethod
    def metadata(clip: Clip, *parts: str) -> ClassKey:
        """`parts`, and the clip's attributes (`car=A1,spd=28V`) where there are some; else it is attribute-free."""
        pairs = (f"{_quoted(key)}={_quoted(value)}" for key, value in sorted(clip.attributes.items()))
        attributes = ",".join(pairs)
        return ClassKey(parts, attributes, attribute_free=not attributes)


def list_policies() -> tuple[str, ...]:
    """Names of all policies."""
    return tuple(sorted(_POLICIES))


def create_policy(name: str, parameters: Mapping[str, Any] | None = None) -> LabelPolicy:
    """A policy of `list_policies`, or a custom one of these parameters. HarkenError, with the nearest, for others."""
    if is_custom(name):
        found = load_class(name, LabelPolicy)  # type: ignore[type-abstract]
        with blamed(name):
            return found(**(parameters or {}))
    try:
        check_name("policy", name, _POLICIES)
    except ValueError as error:
        cause, _, hint = str(error).partition(". ")
        raise HarkenError(cause, next_step=hint) from None
    if parameters:
        raise HarkenError(f"the policy {name} has no parameters", next_step="Leave them out")
    return _POLICIES[name]


def label_clips(
    clips: Sequence[Clip],
    policy: str | LabelPolicy,
    *,
    pool_years: bool = False,
    parameters: Mapping[str, Any] | None = None,
) -> ClassTable:
    """Classes of the training clips by a policy.

    Only clips of split train or supplemental that are not known to be anomalous get a label; all others get `UNUSED`.
    policy, parameters: see `create_policy`. pool_years: leave the year out, so that machines of one name and condition
    are one class over the years. Raises HarkenError for an unknown policy and for two clips of one id.
    """
    chosen = policy if isinstance(policy, LabelPolicy) else create_policy(policy, parameters)
    name_of_policy = policy if isinstance(policy, str) else type(policy).__name__
    names: dict[str, str | None] = {}
    free: dict[str, bool] = {}
    for clip in clips:
        if clip.clip_id in names:
            raise HarkenError(f"two clips have the id {clip.clip_id}", next_step="Make the clips table again")
        with blamed(name_of_policy):
            key = chosen.class_of(clip) if _is_training(clip) else None
        names[clip.clip_id] = None
        if key is not None:
            years = () if pool_years else (str(clip.year) if clip.year is not None else clip.corpus,)
            name = key.name(years)
            names[clip.clip_id] = name
            free[name] = key.attribute_free
    classes = tuple(sorted(free))
    index_of: dict[str | None, int] = {None: UNUSED, **{name: index for index, name in enumerate(classes)}}
    # Sorted, so that the file is the same for any order of the clips.
    class_of = {clip_id: index_of[names[clip_id]] for clip_id in sorted(names)}
    counts = Counter(class_of.values())
    mixture_of = None
    if chosen.second_label:
        found = {clip.clip_id: _MIXTURE.get(clip.kind) if _is_training(clip) else None for clip in clips}
        mixture_of = {
            clip_id: UNUSED if (label := found[clip_id]) is None else MIXTURE_LABELS.index(label)
            for clip_id in sorted(found)
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
    """A policy of one of the five reports."""

    def __init__(self, class_of: Callable[[Clip], ClassKey | None], second_label: bool = False) -> None:
        self._class_of, self.second_label = class_of, second_label

    def class_of(self, clip: Clip) -> ClassKey | None:
        return self._class_of(clip)


_POLICIES: dict[str, LabelPolicy] = {
    "thuee": _Report(_thuee),
    "sjtu_aithu": _Report(_sjtu_aithu),
    "ustc": _Report(_ustc),
    "nwpu": _Report(_nwpu),
    # Supplemental clips tell no conditions: they have the second label only.
    "unisound": _Report(_thuee, second_label=True),
}


# --- pseudo-attributes


@dataclass(frozen=True)
class Agreement:
    """How well pseudo-attributes agree with the truth: adjusted Rand index and normalised mutual information (1 is
    full agreement, 0 is chance for the former and independence for the latter), clusters found and conditions that
    there are."""

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
    """(N,) cluster of each clip of one machine, for conditions that are not told; 0 is the largest.

    Ward's agglomerative clustering (as USTC's successor, arXiv 2509.12845) or k-means, of embeddings of unit length
    (normalise) or as they are. Of 2 to `max_clusters` clusters that number is taken whose mean silhouette is the
    highest (the smaller one if equal); a single cluster if that is below `min_silhouette` or nothing differs.
    clusters: their number, if it is known (fewer where fewer clips differ). The same for any order of the clips.

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
    # k-means begins with rows it draws by number: in an order of their own, they are the same ones.
    order_N = np.lexsort(x_ND.T[::-1])
    x_ND = x_ND[order_N]
    distinct = len(np.unique(x_ND, axis=0))
    # Imported first: what is loaded later does not keep to one thread.
    import sklearn.cluster  # noqa: F401

    with one_thread():
        if clusters is not None:
            found_N = _cluster(x_ND, method, seed)(min(clusters, distinct))
        else:
            found_N = _best(x_ND, _cluster(x_ND, method, seed), min(max_clusters, distinct), min_silhouette)
    labels_N = np.empty_like(found_N)
    labels_N[order_N] = _by_size(found_N, x_ND)
    return labels_N


def _cluster(x_ND: NDArray[np.float64], method: str, seed: int) -> Callable[[int], Ints]:
    """number of clusters -> (N,) cluster of each row"""
    from scipy.cluster.hierarchy import fcluster, linkage
    from sklearn.cluster import KMeans

    if len(x_ND) == 1:
        return lambda number: np.zeros(1, dtype=np.int64)
    if method == "ward":
        tree = linkage(x_ND, method="ward")
        return lambda number: fcluster(tree, number, criterion="maxclust").astype(np.int64)
    return lambda number: KMeans(number, n_init=10, random_state=seed).fit_predict(x_ND).astype(np.int64)


def _best(x_ND: NDArray[np.float64], cluster: Callable[[int], Ints], highest: int, least: float) -> Ints:
    """Of 2 to `highest` clusters those of the highest silhouette; one cluster where none reaches `least`."""
    from scipy.spatial.distance import pdist, squareform
    from sklearn.metrics import silhouette_score

    best_N, best = np.zeros(len(x_ND), dtype=np.int64), -np.inf
    distances_NN = squareform(pdist(x_ND))
    for number in range(2, highest + 1):
        labels_N = cluster(number)
        # A silhouette is defined for 2 to N - 1 clusters; ties may leave fewer clusters than were asked for.
        if not 2 <= len(np.unique(labels_N)) < len(x_ND):
            continue
        score = silhouette_score(distances_NN, labels_N, metric="precomputed")
        if score >= least and score > best:
            best_N, best = labels_N, score
    return best_N


def _by_size(labels_N: Ints, x_ND: NDArray[np.float64]) -> Ints:
    """The same clusters numbered from the largest to the smallest; equally large ones by their means."""
    names, inverse_N, sizes = np.unique(labels_N, return_inverse=True, return_counts=True)
    keys = [(-sizes[row], tuple(x_ND[labels_N == name].mean(axis=0))) for row, name in enumerate(names)]
    rank = np.empty(len(names), dtype=np.int64)
    rank[sorted(range(len(names)), key=keys.__getitem__)] = np.arange(len(names))
    return rank[inverse_N]


def agreement(pseudo_N: Sequence[int] | Ints, truth_N: Sequence[str]) -> Agreement:
    """Score pseudo-attributes against known conditions. Raises ValueError for no clips or different numbers of them."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    if len(pseudo_N) != len(truth_N) or len(truth_N) == 0:
        raise ValueError(f"{len(pseudo_N)} pseudo-attributes for {len(truth_N)} conditions")
    return Agreement(
        ari=float(adjusted_rand_score(truth_N, pseudo_N)),
        nmi=float(normalized_mutual_info_score(truth_N, pseudo_N)),
        clusters=len(set(map(int, pseudo_N))),
        conditions=len(set(truth_N)),
    )
