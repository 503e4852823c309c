"""A system or an ensemble of a run -> a model that scores single recordings as the run did.

Objects of the run are read, not made again: embeddings of the training clips, checkpoints of trainings. Detectors are
fitted on those embeddings once more, which gives the same ones, and compared with the run's held-out scores; recordings
are analysed for explanations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from harken.bench.graph import Unit, make_units
from harken.bench.made import MadeByRun
from harken.bench.package_autoencoder import autoencoder_contents
from harken.bench.packing import ModelContents, Packing, detector_of, ensemble_member, features_of, parameters_of
from harken.bench.recipe import Recipe, load_recipe
from harken.core.errors import HarkenError, did_you_mean
from harken.core.threads import one_thread
from harken.data.clips import names_below_common
from harken.data.table import read_table
from harken.detection.calibration import Calibration
from harken.detection.composite import CompositeMember
from harken.ensemble.runs import SCORES
from harken.evaluation.scores import Scores, read_scores
from harken.monitor.fitted import Fitted
from harken.monitor.normal_set import Training, notes_on

#: of ensembles, as the run decides
_FALSE_ALARMS = "10%"


def package(
    run: Path,
    system: str,
    *,
    workspace: Path | None = None,
    machine: str | None = None,
    data_set: str | None = None,
    section: str | None = None,
    seed: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fitted:
    """The fitted detector of a system or ensemble.

    run: folder of a run. workspace: of its objects; None: the one that contains the folder. machine, data_set,
    section, seed: which of the run's, where it has several; an ensemble is of all its seeds.
    Raises HarkenError for a system, machine, set, section or seed that is not there or not the only one, for kinds of
    systems that no model can hold, and where what the run was made of is gone.
    """
    recipe, clips, tables = _recipe(run), read_table(run / "clips.parquet"), read_scores(run / SCORES)
    names = [*recipe.systems, *recipe.ensembles]
    if system not in names:
        hint = did_you_mean(system, names)
        raise HarkenError(f"there is no system {system!r}", file=run, next_step=hint)
    unit = _unit(make_units(clips, None, recipe.score_years), machine, data_set)
    made = MadeByRun(run, workspace)
    packing = Packing(made, unit, workers)
    if system in recipe.ensembles:
        if seed is not None:
            raise HarkenError(f"{system} mixes systems of all seeds", next_step="Leave --seed out")
        table = _table(tables, system, unit, None)
        member = ensemble_member(packing, run, recipe, system, tables)
        contents = _contents(packing, member, table, section, _FALSE_ALARMS, progress)
    else:
        stage = recipe.systems[system]
        seed = _seed(made, stage, unit, seed)
        target, table = made.of(stage, unit.set, unit.machine, seed), _table(tables, system, unit, seed)
        if target.kind == "reconstruct":
            contents = autoencoder_contents(made, target, unit, table, section, workers, progress)
        else:
            member, false_alarms = packing.member(target), str(parameters_of(target).false_alarms)
            contents = _contents(packing, member, table, section, false_alarms, progress)
    calibration = Calibration.fit(contents.detector.train_scores_)
    training = Training(
        names=names_below_common([clip.path for clip in contents.clips]),
        domains=tuple(str(clip.domain) for clip in contents.clips),
        embeddings_ND=contents.embeddings_ND,
        sketches_NBC=[clip.sketch_BC for clip in contents.features],
        scores_N=contents.detector.train_scores_,
        levels_db_N=np.array([clip.level_db for clip in contents.features]),
        seconds_N=np.array([clip.seconds for clip in contents.features]),
    )
    notes = (
        f"system {system} of the run {run.absolute().name}, {unit.machine}",
        *(f"{mark}: {reason}" for mark, reason in table.marks.items()),
        *notes_on(training, calibration),
        *contents.notes,
    )
    return Fitted(
        contents.spec, contents.weights, contents.detector, calibration, training, contents.false_alarms, notes=notes
    )


def _contents(
    packing: Packing,
    member: CompositeMember,
    table: Scores,
    section: str | None,
    false_alarms: str,
    progress: Callable[[int, int], None] | None,
) -> ModelContents:
    """A detector of embeddings, fitted once more. Raises HarkenError where its held-out scores are not the run's."""
    train = packing.held_out(table, section)
    of_id = {clip.clip_id: clip for clip in packing.unit.clips}
    learned = [of_id[clip_id] for clip_id in train.clip_id]
    embeddings_ND = np.stack([packing.vector(clip) for clip in learned])
    detector = detector_of(member, embeddings_ND.shape[1])
    with one_thread():
        detector.fit(embeddings_ND, [clip.domain for clip in learned])
    if not np.allclose(detector.train_scores_, train.score_N, rtol=1e-6, atol=1e-9):
        raise HarkenError(
            f"held-out scores of {table.system} are not those of the run, but differ by up to "
            f"{np.abs(detector.train_scores_ - train.score_N).max():.2g}",
            file=packing.made.run,
            next_step="Run it again with this version of Harken; its members must learn from the same recordings",
        )
    spec, weights = packing.embedding()
    features = features_of(learned, spec, weights, packing.workers, progress)
    away = max(float(np.abs(a.embedding - b).max()) for a, b in zip(features, embeddings_ND, strict=True))
    different = f"embeddings made here differ from the run's by up to {away:.2g}, so scores may differ a little"
    notes = (different,) if away > 0 else ()
    return ModelContents(spec, weights, detector, learned, features, embeddings_ND, false_alarms, notes)


def _recipe(run: Path) -> Recipe:
    file = run / "recipe.yaml"
    if not file.is_file():
        raise HarkenError("is not the folder of a run", file=run, next_step="Give a folder below runs/")
    return load_recipe(str(file))


def _unit(units: Sequence[Unit], machine: str | None, data_set: str | None) -> Unit:
    chosen = [unit for unit in units if machine in (None, unit.machine) and data_set in (None, unit.set)]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise HarkenError(
            f"a model is of one machine; there are {_shown(chosen)}", next_step="Choose --machine, and --data-set"
        )
    if machine not in (None, *(unit.machine for unit in units)):
        raise HarkenError(
            f"there is no machine {machine!r}; there are {_shown(units)}", next_step="Choose another --machine"
        )
    if data_set not in (None, *(unit.set for unit in units)):
        raise HarkenError(
            f"there is no data set {data_set!r}; there are {_shown(units)}", next_step="Choose another --data-set"
        )
    raise HarkenError(
        f"{machine} is not a machine of {data_set}; there are {_shown(units)}",
        next_step="Choose another --machine or --data-set",
    )


def _shown(units: Sequence[Unit]) -> str:
    return ", ".join(f"{unit.machine} of {unit.set!r}" for unit in units)


def _seed(made: MadeByRun, stage: str, unit: Unit, seed: int | None) -> int | None:
    seeds = made.seeds(stage, unit.set, unit.machine)
    if not seeds:
        raise HarkenError(f"{stage} was not run for {unit.machine}", next_step="Choose another machine")
    if seed is None and len(seeds) == 1:
        return seeds[0]
    if set(seeds) == {None}:
        raise HarkenError(f"{stage} draws no random numbers: it has no seeds", next_step="Leave --seed out")
    if seed not in seeds:
        raise HarkenError(
            "there are several trainings, one of each seed" if seed is None else f"there is no seed {seed}",
            next_step=f"Choose --seed among {', '.join(map(str, seeds))}",
        )
    return seed


def _table(tables: Sequence[Scores], system: str, unit: Unit, seed: int | None) -> Scores:
    """The machine's rows of a table of the run."""
    for table in tables:
        if (table.system, table.set, table.seed) == (system, unit.set, seed):
            rows = [row for row, machine in enumerate(table.machine) if machine == unit.machine]
            if rows:
                return table.take(rows)
    raise HarkenError(
        f"the run has no scores of {system} for {unit.machine}", next_step="See what was left out in its report"
    )
