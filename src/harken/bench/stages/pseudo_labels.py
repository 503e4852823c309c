"""pseudo_labels: classes by a policy, and clusters in place of the operating conditions that machines hide."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from harken.bench.costs import Cost, PlannedStage
from harken.bench.stages.base import Context, Input
from harken.bench.stages.labels import LabelsStage
from harken.bench.stages.tables import read_arrays, read_ids
from harken.core.errors import HarkenError
from harken.data.pseudo_labels import with_pseudo_attributes


class PseudoLabelsStage(LabelsStage):
    """`classes.json` and `classes.txt`, as of labels; the clusters are of frozen embeddings (USTC's later system, arXiv
    2509.12845)."""

    inputs: ClassVar = {"embeddings": Input("embeddings", many=True), **LabelsStage.inputs}
    seeded = True

    class Parameters(LabelsStage.Parameters):
        """policy and the following: see `labels`. method, clusters, max_clusters, min_silhouette: see
        `pseudo_attributes`; clusters of each section, by silhouette where None."""

        method: Literal["ward", "kmeans"] = "ward"
        clusters: int | None = Field(None, ge=1)
        max_clusters: int = Field(16, ge=1)
        min_silhouette: float = 0.0

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """As of labels; the number of classes is known when the clusters are."""
        cost = super().cost(parameters, planned)
        if "classes" in cost.details:
            cost.details["at_least"] = True
        return cost

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        rows: dict[str, Any] = {}
        for folder in context.folders("embeddings"):
            vectors = read_arrays(folder / "embeddings.safetensors")["embeddings"]
            rows |= dict(zip(read_ids(folder)[0], vectors, strict=True))
        chosen = [clip for clip in context.clips if parameters.years is None or clip.year in parameters.years]
        try:
            table = with_pseudo_attributes(
                cls.classes(parameters, context.clips), chosen, rows,
                method=parameters.method, clusters=parameters.clusters, max_clusters=parameters.max_clusters,
                min_silhouette=parameters.min_silhouette, seed=context.seed,
            )  # fmt: skip
        except ValueError as error:
            raise HarkenError(str(error), next_step="Read one stage that embeds") from error
        table.write(context.out / "classes.json")
        (context.out / "classes.txt").write_text(table.to_text())
