"""Classes whose hidden operating conditions are replaced by clusters of embeddings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.data.clips import Clip, origins
from harken.data.labels import UNUSED, ClassTable, pseudo_attributes

#: of a class's attributes
FIELD = "pseudo"


def with_pseudo_attributes(
    table: ClassTable, clips: Sequence[Clip], embedding_of: Mapping[str, NDArray[Any]], **settings: Any
) -> ClassTable:
    """A table in which clips of attribute-free classes have the cluster of their embedding as attribute.

    Clips of each section are clustered together, whatever their class and domain; a section with one cluster keeps its
    classes as they are. embedding_of: (D,) by clip id; a clip without one has the cluster of the recording that it was
    made of, and no class where that has none either. settings: of `pseudo_attributes`. Raises ValueError as that does.
    """
    free = set(table.attribute_free_classes)
    sections: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.clip_id):
        if table.class_of.get(clip.clip_id) in free and clip.clip_id in embedding_of:
            sections[clip.corpus, str(clip.year), clip.machine, clip.section].append(clip.clip_id)
    cluster_of: dict[str, int | None] = {}
    for ids in sections.values():
        clusters_N = pseudo_attributes(np.stack([embedding_of[clip_id] for clip_id in ids]), **settings)
        single = int(clusters_N.max()) == 0
        cluster_of |= {clip_id: None if single else int(row) for clip_id, row in zip(ids, clusters_N, strict=True)}
    origin_of = origins(clips)
    names: dict[str, str | None] = {}
    hidden: dict[str, bool] = {}
    for clip_id, index in table.class_of.items():
        if index == UNUSED:
            names[clip_id] = None
            continue
        name, source = table.classes[index], clip_id if clip_id in cluster_of else origin_of.get(clip_id, clip_id)
        names[clip_id] = name
        if index in free:
            if source not in cluster_of:
                names[clip_id] = None
                continue
            cluster = cluster_of[source]
            names[clip_id] = name if cluster is None else f"{name}/{FIELD}={cluster}"
        hidden[str(names[clip_id])] = index in free and names[clip_id] == name
    classes = tuple(sorted(hidden))
    index_of: dict[str | None, int] = {None: UNUSED, **{name: index for index, name in enumerate(classes)}}
    class_of = {clip_id: index_of[name] for clip_id, name in names.items()}
    counts = Counter(class_of.values())
    return ClassTable(
        harken_labels=1,
        policy=f"{table.policy} with pseudo-attributes",
        classes=classes,
        attribute_free=tuple(hidden[name] for name in classes),
        counts=tuple(counts[index] for index in range(len(classes))),
        class_of=class_of,
        mixture_of=table.mixture_of,
    )
