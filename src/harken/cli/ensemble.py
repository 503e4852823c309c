"""harken ensemble: fit weights for several systems, and measure on held-out machines whether they help."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harken.cli.console import emit, line, progress, say

if TYPE_CHECKING:
    from harken.ensemble.bag import Bag
    from harken.ensemble.bundles import Bundles
    from harken.ensemble.fit import Number, Proof

#: seconds of a search without a word
_SILENCE_S = 30.0

app = typer.Typer(help="Ensembles: fit weights, apply them, show and merge bags.", no_args_is_help=True)


_METHODS = (
    "How weights are fitted: greedy, bayes, grid, top, single, uniform, agreement, variance, or a custom search, "
    "file.py:Class."
)


class Normalise(StrEnum):
    """Normalisations of member scores; the transductive ones use the test clips."""

    auto = "auto"
    train = "train"
    gaussian = "gaussian"
    gamma = "gamma"
    rank = "rank"
    none = "none"
    transductive = "transductive"
    transductive_rank = "transductive-rank"


class Criterion(StrEnum):
    """What members are selected by: the official score, or that of the machine on which they score least."""

    score = "score"
    worst_machine = "worst_machine"


@app.command()
def fit(
    scores: Annotated[
        list[Path], typer.Argument(help="Score folders, zips, tables, runs or models.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The bag (YAML) to write.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Ground truth; not needed where names carry labels.")] = None,
    method: Annotated[str, typer.Option(help=_METHODS)] = "greedy",
    compare: Annotated[list[str] | None, typer.Option(help="Also report this method; repeat.")] = None,
    normalise: Annotated[
        Normalise, typer.Option(help="How scores are normalised; auto: by training clips, if available.")
    ] = Normalise.auto,
    transfer: Annotated[
        list[Path] | None, typer.Option(help="The same members on another data set, for a last column; repeat.")
    ] = None,
    transfer_truth: Annotated[Path | None, typer.Option(help="Ground truth of that set.")] = None,
    keep_fitted: Annotated[
        bool, typer.Option("--keep-fitted", help="Keep fitted weights even if they do not beat the plain mean.")
    ] = False,
    year: Annotated[int | None, typer.Option(help="Year of the official metric (default: detected).")] = None,
    machine: Annotated[list[str] | None, typer.Option(help="Use this machine only; repeat.")] = None,
    member: Annotated[list[str] | None, typer.Option(help="Use members of this name (* and ?) only; repeat.")] = None,
    leave_out: Annotated[list[str] | None, typer.Option(help="Leave members of this name out; repeat.")] = None,
    group: Annotated[
        str | None, typer.Option(help="First mix members that differ only in this pattern; auto: in seeds.")
    ] = None,
    best_of_group: Annotated[int | None, typer.Option(help="Only the best N of each group.", min=1)] = None,
    select: Annotated[
        int | None, typer.Option(help="Weigh only the best N members (groups), and those of --require.", min=0)
    ] = None,
    require: Annotated[list[str] | None, typer.Option(help="Select this member (* and ?) in any case; repeat.")] = None,
    select_by: Annotated[Criterion, typer.Option(help="What makes a member the best.")] = Criterion.score,
    data_set: Annotated[str | None, typer.Option(help="A set of a run, such as 'dcase2025 dev'.")] = None,
    transfer_set: Annotated[str | None, typer.Option(help="The same for --transfer.")] = None,
    recordings: Annotated[list[Path] | None, typer.Option(help="Recordings for models to score; repeat.")] = None,
    steps: Annotated[int, typer.Option(help="greedy: members added, with replacement.", min=1)] = 15,
    step: Annotated[float, typer.Option(help="grid: step between weights.")] = 0.1,
    best: Annotated[int, typer.Option(help="top: number of members.", min=1)] = 5,
    trials: Annotated[int, typer.Option(help="bayes: number of trials.", min=1)] = 100,
    coordinates: Annotated[int, typer.Option(help="bayes: members with individual weights.", min=1)] = 16,
    journal: Annotated[Path | None, typer.Option(help="bayes: journal file, to resume a search.")] = None,
    shrink: Annotated[
        str, typer.Option(help="Shrinkage to uniform weights, 0 to 1; auto: best on held-out machines.")
    ] = "0",
    bootstrap: Annotated[
        int | None,
        typer.Option(help="Bootstrap draws of machines, for the spread of weights (default: 20; bayes: 0).", min=0),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    name: Annotated[str | None, typer.Option(help="Name of the bag (default: the file name).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Find weights, and compare them with the best single member and the plain mean, on machines left out, too.

    Where fitted weights do not beat the plain mean on machines that they were not fitted on, the plain mean is kept.
    """
    from harken.data.truth import read_truth
    from harken.detection.normalise import named
    from harken.ensemble.bag import check_place, save_bag
    from harken.ensemble.fit import are_labelled, fit_without_labels
    from harken.ensemble.fit import fit as run
    from harken.ensemble.members import chosen, read_members
    from harken.ensemble.search import SearchSettings, parse_share
    from harken.ensemble.selection import Selection

    selection = None
    if select is not None or require:
        selection = Selection(tuple(require or ()), select or 0, select_by.value)
    settings = SearchSettings(
        steps=steps, best=best, step=step, trials=trials, coordinates=coordinates, seed=seed,
        shrink=parse_share(shrink), journal=journal, tried=_Trials(),
    )  # fmt: skip
    if out is not None:
        check_place(out)
    members, own_truth = read_members(scores, data_set=data_set, bundles=_bundles(recordings))
    members = chosen(members, member or (), leave_out or ())
    labels = read_truth(truth) if truth is not None else own_truth
    title = name or (out.stem if out is not None else "ensemble")
    how = named(normalise.value)
    proof = None
    if are_labelled(members, labels):
        elsewhere = None
        if transfer:
            others, other_truth = read_members(transfer, data_set=transfer_set, bundles=_bundles(recordings))
            elsewhere = others, read_truth(transfer_truth) if transfer_truth is not None else other_truth
        with progress("fitting") as bar:
            proof = run(
                members, labels, method=method, compare=compare or (), normalise=how,
                year=year, machines=machine, groups=group, best=best_of_group, selection=selection,
                keep_fitted=keep_fitted,
                transfer=elsewhere, settings=settings, draws=bootstrap, name=title, progress=bar,
            )  # fmt: skip
        bag, notes = proof.bag, proof.notes
    else:
        bag, notes = fit_without_labels(members, method=method, normalise=how, groups=group, name=title)
        for scorer in members:
            notes += tuple(f"{scorer.name}: {mark}: {reason}" for mark, reason in scorer.scores.marks.items())
    if out is not None:
        save_bag(bag, out)
    for note in notes:
        say(f"note: {note}")
    if json:
        emit(proof.as_json() if proof is not None else {"bag": bag.as_json(), "notes": list(notes)})
    elif proof is not None:
        _print_proof(proof)
    else:
        _print_bag(bag)
    if out is not None:
        say(f"{out}: {len(list(bag.leaves()))} members. Apply it: harken ensemble score {out} -o FOLDER")


@app.command()
def score(
    bag: Annotated[Path, typer.Argument(help="A bag (YAML).", show_default=False)],
    scores: Annotated[
        list[Path] | None, typer.Argument(help="New scores of its members (default: the paths in the bag).")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the ensemble's score files.")] = Path("ensemble"),
    data_set: Annotated[str | None, typer.Option(help="A set of a run, such as 'dcase2025 eval'.")] = None,
    recordings: Annotated[list[Path] | None, typer.Option(help="Recordings for its models to score; repeat.")] = None,
    member: Annotated[list[str] | None, typer.Option(help="Use members of this name (* and ?) only; repeat.")] = None,
    false_alarms: Annotated[str, typer.Option(help="False-alarm rate of the decisions.")] = "10%",
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Combine the scores of a bag's members and write them in the official layout."""
    from harken.ensemble.bag import load_bag
    from harken.ensemble.members import chosen, read_members
    from harken.ensemble.score import apply, write_scores

    bag_file = load_bag(bag)
    given = None
    if scores:
        given = chosen(read_members(scores, data_set=data_set, bundles=_bundles(recordings))[0], member or ())
    mixed = apply(bag_file, given, bundles=_bundles(recordings), data_set=data_set)
    files = write_scores(mixed, out, false_alarms=false_alarms)
    clips = len(mixed.test)
    for mark, reason in mixed.marks.items():
        say(f"note: {mark}: {reason}")
    if not any(file.startswith("decision_result") for file in files):
        say("note: no decisions: they need scores of training clips, or decisions of all members")
    say(f"{out}: {len(mixed.sections())} sections, {clips} clips, {len(list(bag_file.leaves()))} members")
    if json:
        emit(
            {
                "folder": str(out),
                "files": files,
                "clips": clips,
                "transductive": bag_file.transductive(),
                "marks": dict(mixed.marks),
            }
        )


@app.command()
def show(
    bag: Annotated[Path, typer.Argument(help="A bag (YAML).", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show members and weights of a bag and how they were fitted."""
    from harken.ensemble.bag import load_bag

    bag_file = load_bag(bag)
    if json:
        emit(bag_file.as_json())
    else:
        _print_bag(bag_file)


@app.command()
def merge(
    bags: Annotated[list[Path], typer.Argument(help="Bags (YAML).", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="The bag to write.", show_default=False)],
    nest: Annotated[bool, typer.Option("--nest", help="Normalise and combine each bag first.")] = False,
    share: Annotated[list[float] | None, typer.Option(help="Weight of each bag, in their order; repeat.")] = None,
) -> None:
    """Merge bags: all members in one bag or, with --nest, each bag as one member."""
    from harken.ensemble.bag import load_bag, merged, save_bag

    bag = merged([load_bag(path) for path in bags], out.stem, shares=share, nest=nest)
    save_bag(bag, out)
    say(f"{out}: {len(list(bag.leaves()))} members")


class _Trials:
    """Says what Bayesian searches cost, and every half minute how far they are."""

    def __init__(self) -> None:
        self.search = 0
        self.begun = self.last = time.monotonic()

    def __call__(self, done: int, trials: int) -> None:
        now = time.monotonic()
        if done == 1:
            self.search += 1
            self.begun = now
        if done == trials and self.search == 1:
            say(
                f"bayes: {trials} trials took {now - self.begun:.0f} s; they are made once for all machines and "
                "once for each machine left out"
            )
        elif now - self.last >= _SILENCE_S:
            say(f"bayes: search {self.search}, trial {done} of {trials}")
        else:
            return
        self.last = now


def _bundles(recordings: list[Path] | None) -> Bundles | None:
    if not recordings:
        return None
    from harken.audio.suffixes import DEFAULT_SUFFIXES
    from harken.data.folders import find_recordings
    from harken.ensemble.bundles import Bundles
    from harken.monitor.detector import load

    return Bundles(find_recordings(recordings, DEFAULT_SUFFIXES), load)


def _print_proof(proof: Proof) -> None:
    line(
        f"{proof.members} members, {len(proof.machines)} machines, {proof.sections} sections, {proof.clips} clips; "
        f"rule {proof.rule}; normalise {proof.bag.normalise}\n"
    )
    moved = any(row.transfer is not None for row in proof.rows)
    heads = ["these clips", "machines left out", *(["transfer"] if moved else [])]
    line(f"{'official score':<20}" + "".join(f"{head:<20}" for head in heads))
    for row in proof.rows:
        label = {"single": "best single", "kept": f"kept: {row.detail}"}.get(row.name, row.name)
        numbers = [row.in_sample, row.held_out, *([row.transfer] if moved else [])]
        line(f"{label:<20}" + "".join(f"{_number(number):<20}" for number in numbers))
    line(f"\nbest single: {proof.rows[0].detail}")
    marks = {
        mark
        for row in proof.rows
        for number in (row.in_sample, row.held_out, row.transfer)
        if number
        for mark in number.marks
    }
    if "tuned on test" in marks:
        line("* tuned on test: weights, or a member, chosen with the labels of the clips it is measured on")
    if "machines seen with labels" in marks:
        line("# machines seen with labels: weights, or a member, chosen with labels of other clips of these machines")
    if "transductive" in marks:
        line("T transductive: normalised by, or compared on, the test clips themselves")
    for mark in sorted(marks - _SIGNS.keys()):
        line(f"! {mark}")
    line(f"\n{proof.why}\n")
    _print_members(proof)


#: mark -> sign printed after the number
_SIGNS = {"tuned on test": "*", "machines seen with labels": "#", "transductive": "T"}


def _number(number: Number | None) -> str:
    if number is None:
        return "-"
    signs = dict.fromkeys(_SIGNS.get(mark, "!") for mark in number.marks)
    return f"{number.value:.6f} {''.join(signs)}"


def _print_members(proof: Proof) -> None:
    """Print members with a non-zero weight, largest first."""
    shown = sorted(
        (member for member in proof.report.members if member.weight > 0),
        key=lambda member: (-member.weight, -member.alone, member.name),
    )
    most = 20
    fitted = next(row.name for row in reversed(proof.rows) if row.name not in ("kept", "single"))
    kept = "" if proof.kept == "fitted" else ", which are not kept"
    line(f"{fitted} weights{kept}: {len(shown)} of {len(proof.report.members)} members have one")
    draws = proof.report.draws
    line(
        f"{'weight':>7}{'left out':>14}"
        + (f"{'bootstrap':>15}" if draws else "")
        + f"{'alone':>9}{'adds':>9}{'nearest':>9}  member"
    )
    for member in shown[:most]:
        between = "-" if member.held_out is None else f"{member.held_out[0]:.2f}-{member.held_out[1]:.2f}"
        spread = "" if member.bootstrap is None else f"{member.bootstrap[0]:.2f} +- {member.bootstrap[1]:.2f}"
        adds = "-" if member.contribution is None else f"{member.contribution:+.4f}"
        nearest = "-" if member.nearest is None else f"{member.nearest[1]:.2f}"
        line(
            f"{member.weight:>7.3f}{between:>14}"
            + (f"{spread:>15}" if draws else "")
            + f"{member.alone:>9.4f}{adds:>9}{nearest:>9}  {member.name}"
        )
    if len(shown) > most:
        line(f"... and {len(shown) - most} more; all of them with --json")
    line(
        "left out: weights when a machine is left out; "
        + (f"bootstrap: over {draws} draws of machines; " if draws else "")
        + "adds: what is lost without it, on these clips (*);\nnearest: highest rank correlation with another member"
    )


def _print_bag(bag: Bag, indent: str = "") -> None:
    import math

    mark = " (by the test clips themselves)" if bag.normalise.startswith("transductive") else ""
    line(f"{indent}{bag.name}: {len(bag.members)} members, normalise {bag.normalise}{mark}")
    total = math.fsum(entry.weight for entry in bag.members)
    for entry in sorted(bag.members, key=lambda entry: (-entry.weight, entry.name)):
        if entry.inner is not None:
            line(f"{indent}  {entry.weight / total:.4f}")
            _print_bag(entry.inner, indent + "    ")
        else:
            where = entry.scores or entry.bundle
            line(f"{indent}  {entry.weight / total:.4f}  {entry.name}" + (f"  ({where})" if where else ""))
    origin = bag.weights_from
    if origin is None:
        return
    settings = "".join(f", {key} {value}" for key, value in origin.settings.items())
    line(f"{indent}weights: {origin.method}{settings}, of {origin.considered} members")
    if origin.tuned_on is not None:
        line(f"{indent}tuned on {origin.tuned_on}: {', '.join(origin.machines)}")
    if origin.official_score is not None:
        mark = "".join(f", {mark}" for mark in origin.marks)
        held = f"; machines left out {origin.held_out:.6f}" if origin.held_out is not None else ""
        plain = f"; plain mean {origin.uniform:.6f}" if origin.uniform is not None else ""
        line(f"{indent}official score {origin.official_score:.6f}{mark}{held}{plain}")
    if origin.decision:
        line(f"{indent}{origin.decision}")
