"""Figures of a run: embeddings in two dimensions, ROC and DET curves, histories of trainings."""

from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from harken.bench.reading import LoadedRun
from harken.core.errors import HarkenError, did_you_mean, writing
from harken.core.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("embedding", "roc", "det", "history")
#: blue for normal clips, red for anomalies; light for the target domain
_GROUPS = {
    ("source", "normal"): ("#2b5f96", "o"),
    ("target", "normal"): ("#8fbbe3", "o"),
    ("unknown", "normal"): ("#2b5f96", "o"),
    ("source", "anomaly"): ("#b3372a", "X"),
    ("target", "anomaly"): ("#f0a35e", "X"),
    ("unknown", "anomaly"): ("#b3372a", "X"),
    ("unknown", "unknown"): ("#777777", "."),
}
#: colours and dashes of curves, distinguishable without colour too (Okabe and Ito)
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES = ("-", "--", "-.", ":")
#: false and missed alarms that the axes of a DET curve name
_RATES = (0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)


def plot(
    run: LoadedRun, kind: str, *, stage: str | None = None, machine: str | None = None, seed: int | None = None
) -> Figure:
    """A figure of one of `KINDS`.

    stage: of embeddings or history; None: the first with any. machine: None: all, one panel per machine. seed: None:
    the first. Raises HarkenError for an unknown kind and where the run has nothing to show.
    """
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS)
        raise HarkenError(f"there is no figure {kind!r}", next_step=hint)
    if kind == "history":
        return _history(run, stage or _stage_of(run, ("train",)), seed)
    if kind == "embedding":
        kinds = ("embed", "embed_trained", "concatenate")
        return _embedding(run, stage or _stage_of(run, kinds), machine, seed)
    return _curves(run, kind, machine, seed)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG or SVG, by its suffix, atomically. Raises HarkenError for other suffixes and failures."""
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise HarkenError("is not a name for a figure", file=path, next_step="Give a name that ends in .png or .svg")
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None}
    figure.savefig(buffer, format=kind, dpi=130, metadata=metadata)
    with writing(path, "Choose another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())


def _stage_of(run: LoadedRun, kinds: tuple[str, ...]) -> str:
    """The first stage of these kinds."""
    rows = run.tasks[run.tasks["kind"].isin(kinds)]
    if rows.empty:
        raise HarkenError(
            f"has no stage of the kind {' or '.join(kinds)}", file=run.folder, next_step="Choose another --kind"
        )
    return str(rows["stage"].iloc[0])


def _panels(names: list[str], size: float) -> tuple[Figure, Iterable[tuple[str, Any]]]:
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(size * columns + 0.4, size * lines + 0.8), layout="constrained")
    return figure, [(name, figure.add_subplot(lines, columns, number)) for number, name in enumerate(names, 1)]


def _finish(figure: Figure, title: str) -> Figure:
    """Title and one legend for all panels, above them."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        axes.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(
        list(handles.values()),
        list(handles),
        title=title,
        loc="outside upper left",
        ncols=4 if len(figure.axes) > 1 else 2,
        frameon=False,
        fontsize=9,
        title_fontsize=11,
        alignment="left",
    )
    legend.get_title().set_fontweight("bold")
    return figure


def _embedding(run: LoadedRun, stage: str, machine: str | None, seed: int | None) -> Figure:
    """t-SNE of each machine's clips: colour and marker say domain and condition."""
    from sklearn.manifold import TSNE

    vectors_ND, clips = run.embeddings(stage, machine=machine, seed=seed)
    # Recordings of the clean machine or of noise alone are far from all others.
    used_N = (clips["split"] != "supplemental").to_numpy()
    vectors_ND, clips = vectors_ND[used_N], clips[used_N]
    figure, panels = _panels(sorted(clips["machine"].unique()), 3.6)
    for name, axes in panels:
        inside_N = (clips["machine"] == name).to_numpy()
        rows = clips[inside_N]
        perplexity = min(30.0, max(2.0, (len(rows) - 1) / 3))
        x_N2 = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors_ND[inside_N])
        groups = list(zip(rows["domain"], rows["condition"], strict=True))
        for group, (colour, marker) in _GROUPS.items():
            here_N = np.array([entry == group for entry in groups])
            if here_N.any():
                label = group[1] if group[0] == "unknown" else " ".join(group)
                axes.scatter(
                    *x_N2[here_N].T, s=34, c=colour, marker=marker, linewidths=0.4, edgecolors="white", label=label
                )
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
    return _finish(figure, f"t-SNE of {stage}")


def _curves(run: LoadedRun, kind: str, machine: str | None, seed: int | None) -> Figure:
    """ROC or DET curve of each system, a panel per machine."""
    from scipy.stats import norm
    from sklearn.metrics import det_curve, roc_auc_score, roc_curve

    table = _labelled(run, machine, seed)
    figure, panels = _panels(sorted(table["machine"].unique()), 3.4)
    systems = list(dict.fromkeys(table["system"]))
    for name, axes in panels:
        for number, system in enumerate(systems):
            rows = table[(table["machine"] == name) & (table["system"] == system)]
            truth_N, scores_N = rows["condition"] == "anomaly", rows["score"]
            if truth_N.nunique() < 2:
                continue
            mark = next(iter(rows["marks"]))
            label = f"{system} ({mark})" if mark else system
            style = {"color": _COLOURS[number % len(_COLOURS)], "linestyle": _DASHES[number % len(_DASHES)]}
            if kind == "roc":
                x_N, y_N, _ = roc_curve(truth_N, scores_N)
                axes.text(
                    0.97,
                    0.05 + 0.08 * (len(systems) - 1 - number),
                    f"AUC {roc_auc_score(truth_N, scores_N):.3f}",
                    color=style["color"],
                    fontsize=8,
                    ha="right",
                )
            else:
                # Rates of 0 and 1 are at infinity on these axes.
                x_N, y_N, _ = (norm.ppf(np.clip(values, 5e-3, 1 - 5e-3)) for values in det_curve(truth_N, scores_N))
            axes.plot(x_N, y_N, linewidth=1.8, drawstyle="steps-post", label=label, **style)
        if kind == "roc":
            axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8)
        else:
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_ticks(norm.ppf(_RATES), [f"{rate:.0%}" for rate in _RATES])
            axes.tick_params(axis="x", rotation=60)
            axes.grid(color="#eeeeee")
            axes.set_xlim(*norm.ppf((4e-3, 1 - 4e-3)))
            axes.set_ylim(*norm.ppf((4e-3, 1 - 4e-3)))
        axes.tick_params(labelsize=8)
        axes.set_aspect("equal")
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_xlabel("false alarms", fontsize=9)
        axes.set_ylabel("faults found" if kind == "roc" else "faults missed", fontsize=9)
    return _finish(figure, f"{kind.upper()} curves")


def _labelled(run: LoadedRun, machine: str | None, seed: int | None) -> pd.DataFrame:
    """Test scores of clips whose condition is known."""
    table = run.scores
    table = table[(table["split"] == "test") & (table["condition"] != "unknown")]
    if machine is not None:
        machines = sorted(table["machine"].unique())
        if machine not in machines:
            hint = did_you_mean(machine, machines)
            raise HarkenError(f"has no machine {machine!r}", file=run.folder, next_step=hint)
        table = table[table["machine"] == machine]
    if table["seed"].notna().any():
        table = table[table["seed"].isna() | (table["seed"] == (table["seed"].min() if seed is None else seed))]
    if table.empty:
        raise HarkenError(
            "has no test clips with known labels",
            file=run.folder,
            next_step="Run it with --truth, or choose another seed",
        )
    return table


def _history(run: LoadedRun, stage: str, seed: int | None) -> Figure:
    """Every number of a training over its steps, a panel each. Of several trainings in one stage, whose names are in
    columns before `step`, a line each."""
    table = run.history(stage, seed)
    names = [*table.columns[: table.columns.get_loc("step")]]
    trainings = [(" ".join(map(str, key)), rows) for key, rows in table.groupby(names)] if names else [("", table)]
    numbers = [name for name in table.columns if name not in (*names, "step") and table[name].notna().any()]
    figure, panels = _panels(numbers, 2.8)
    for name, axes in panels:
        for (label, rows), colour in zip(trainings, cycle(_COLOURS), strict=False):
            axes.plot(rows["step"], rows[name], color=colour, marker="o", markersize=3, label=label)
        if names:
            axes.legend(fontsize=8, frameon=False)
        axes.set_title(name.removeprefix("signals.").replace("_", " "), fontsize=10, loc="left")
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"training of {stage}", fontsize=11, x=0.02, ha="left")
    return figure
