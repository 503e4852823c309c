"""Ensembles: mixes and searches against references, honest tables, bags that survive being written."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from conftest import hum
from harken.cli.main import app
from harken.core.errors import HarkenError
from harken.data.names import parse_name
from harken.data.truth import read_truth
from harken.detection.normalise import normalised
from harken.ensemble.bag import Bag, BagMember, load_bag, merged, save_bag
from harken.ensemble.bayes import bayes
from harken.ensemble.fit import Proof, fit
from harken.ensemble.groups import grouped
from harken.ensemble.label_free import agreement, correlation, least_variance
from harken.ensemble.member import Member
from harken.ensemble.members import read_members
from harken.ensemble.objective import Objective, make_boards
from harken.ensemble.problem import METHODS, Problem
from harken.ensemble.score import apply, write_scores
from harken.ensemble.search import SearchSettings, greedy, grid, singles, top
from harken.ensemble.selection import Criterion, Selection
from harken.evaluation.evaluate import evaluate
from harken.evaluation.rules import SectionScores, section_numbers, summary
from harken.evaluation.scores import TRANSDUCTIVE, TUNED, Scores
from harken.evaluation.scores import write_scores as write_table

MACHINES = ("bearing", "fan", "pump", "valve")


def clips_of(count: int = 8) -> list[str]:
    return [
        f"section_00_{domain}_test_{condition}_{n:04d}_x_1"
        for domain in ("source", "target")
        for condition in ("normal", "anomaly")
        for n in range(count)
    ]


def write_system(
    folder: Path, seed: int, strength: float | Sequence[float] = 1.0, *, train: bool = True, scale: float = 1.0
) -> Path:
    """Score files of one system; anomalies are `strength` standard deviations higher, for each machine its own."""
    rng = np.random.default_rng(seed)
    strengths = [strength] * len(MACHINES) if isinstance(strength, float) else strength
    folder.mkdir(parents=True)
    for machine, high in zip(MACHINES, strengths, strict=True):
        rows = [(clip, scale * float(rng.normal() + high * ("anomaly" in clip))) for clip in clips_of()]
        write_rows(folder / f"anomaly_score_{machine}_section_00_test.csv", rows)
        if train:
            names = [f"section_00_source_train_normal_{n:04d}_x_1" for n in range(30)]
            write_rows(
                folder / f"train_score_{machine}_section_00.csv",
                [(name, scale * float(rng.normal())) for name in names],
            )
    return folder


def write_rows(file: Path, rows: Iterable[tuple[str, object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{clip}.wav,{value}\n" for clip, value in rows))


@pytest.fixture
def systems(tmp_path: Path) -> Path:
    """A folder of four systems of different strength."""
    for number, strength in enumerate((1.5, 1.0, 0.5, 0.0)):
        write_system(tmp_path / "systems" / f"s{number}", number, strength, scale=10.0**number)
    return tmp_path / "systems"


def boards_of(rng: np.random.Generator, rule: str, members: int, ties: bool) -> tuple[Objective, list[SectionScores]]:
    """Three sections of two machines with different numbers of clips."""
    labels, scores = [], []
    for machine, section, count in (("fan", "00", 40), ("fan", "01", 52), ("pump", "00", 36)):
        anomaly = np.arange(count) % 2 == 1
        domain = (np.arange(count) // 2) % 2
        values = rng.normal(size=(members, count)) + anomaly * rng.uniform(0, 2, size=(members, 1))
        scores.append(np.round(values * 2) if ties else values)
        names = tuple(f"c{n:03d}" for n in range(count))
        labels.append(SectionScores(machine, section, names, scores[-1][0], anomaly, domain))
    return Objective(make_boards(scores, labels, rule)), [  # type: ignore[arg-type]
        replace(label, scores_N=rows) for label, rows in zip(labels, scores, strict=True)
    ]


# --- the objective


@pytest.mark.parametrize("rule", ["domain_generalization", "domain_adaptation", "machine_id"])
@pytest.mark.parametrize("ties", [False, True])
def test_the_objective_is_the_official_score(rule: str, ties: bool) -> None:
    rng = np.random.default_rng(len(rule) + ties)
    objective, sections = boards_of(rng, rule, 5, ties)
    weights = np.vstack([np.eye(5), rng.integers(0, 3, size=(4, 5)) + np.eye(5)[0]])
    for weight, score in zip(weights, objective(weights), strict=True):
        mixed = [replace(section, scores_N=weight @ section.scores_N) for section in sections]
        numbers = [(section.key, section_numbers(rule, section)) for section in mixed]  # type: ignore[arg-type]
        assert score == pytest.approx(summary(rule, numbers)["official_score"], abs=1e-12)  # type: ignore[arg-type]
    # Each machine alone, and one of them twice.
    fan = [(key, row) for key, row in numbers if key[0] == "fan"]
    assert objective.of({"fan": 1})(weights[-1:])[0] == pytest.approx(
        summary(rule, fan)["official_score"],  # type: ignore[arg-type]
        abs=1e-12,
    )
    twice = objective.of({"fan": 1, "pump": 2})(weights[-1:])[0]
    pump = [((f"{key[0]} {n}", key[1]), row) for key, row in numbers if key[0] == "pump" for n in range(2)]
    assert twice == pytest.approx(summary(rule, fan + pump)["official_score"], abs=1e-12)  # type: ignore[arg-type]


def test_steps_are_the_numbers_of_one_member_more() -> None:
    objective, _ = boards_of(np.random.default_rng(0), "domain_generalization", 4, False)
    counts = np.array([2.0, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(objective.steps(counts), objective.numbers(counts + np.eye(4)), atol=1e-12)


# --- normalisation


def test_normalisations_against_scipy() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.gamma(4.0, size=400), rng.gamma(4.0, size=50) + 1
    ours, own = normalised("train", test, train)
    np.testing.assert_allclose(ours, (test - train.mean()) / train.std())
    assert own is not None
    np.testing.assert_allclose(own, stats.zscore(train))
    np.testing.assert_allclose(normalised("transductive", test, train)[0], stats.zscore(test))
    np.testing.assert_allclose(normalised("transductive-rank", test, train)[0], (stats.rankdata(test) - 0.5) / 50)
    assert normalised("none", test, train)[0] is test
    ranks, own = normalised("rank", test, train)
    np.testing.assert_allclose(own, stats.norm.ppf((stats.rankdata(train) - 0.375) / 400.25), atol=1e-12)
    inside = test < train.max()
    expected = np.interp(test, np.sort(train), np.sort(own))
    np.testing.assert_allclose(ranks[inside], expected[inside], atol=1e-12)
    # The normal value of the same probability, up to 4 standard deviations out.
    gamma, _ = normalised("gamma", test, train)
    law = stats.pearson3(stats.skew(train), train.mean(), train.std())
    np.testing.assert_allclose(gamma, stats.norm.isf(law.sf(test)), atol=0.03)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30),
    st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=30),
    st.floats(0.01, 100),
    st.floats(-1e3, 1e3),
    st.sampled_from(["train", "gamma", "rank", "transductive", "transductive-rank"]),
)
def test_normalisation_keeps_order_and_forgets_scale(
    test: list[float], train: list[float], scale: float, shift: float, how: str
) -> None:
    values, held_out = np.round(test, 2), np.round(train, 2)
    if np.ptp(values) == 0 or np.ptp(held_out) < 1e-3 * max(1.0, np.abs(held_out).max()):
        return
    ours, _ = normalised(how, values, held_out)  # type: ignore[arg-type]
    order = np.argsort(values, kind="stable")
    assert (np.diff(ours[order]) >= 0).all()
    moved, _ = normalised(how, values * scale + shift, held_out * scale + shift)  # type: ignore[arg-type]
    if np.ptp(values) > 1e-3 * np.abs(values).max():
        np.testing.assert_allclose(moved, ours, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(ours).max()))


def test_calibrations_do_not_saturate() -> None:
    train = np.random.default_rng(0).exponential(size=100)
    for how in ("train", "gamma", "rank"):
        far, _ = normalised(how, np.array([10.0, 100.0, 1000.0]), train)  # type: ignore[arg-type]
        assert (np.diff(far) > 0.5).all()
        assert np.isfinite(far).all()


# --- searches


def test_greedy_is_that_of_caruana() -> None:
    """Against the search written out, with scikit-learn's areas and their harmonic mean."""
    objective, sections = boards_of(np.random.default_rng(3), "domain_generalization", 5, False)

    def score(weights: np.ndarray) -> float:
        numbers = []
        for section in sections:
            mixed, anomaly, domain = weights @ section.scores_N, section.anomaly_N, section.domain_N
            numbers += [roc_auc_score(anomaly[(domain == d) | anomaly], mixed[(domain == d) | anomaly]) for d in (0, 1)]
            numbers.append(roc_auc_score(anomaly, mixed, max_fpr=0.1))
        return float(stats.hmean(numbers))

    counts = np.zeros(5)
    for _ in range(8):
        counts[np.argmax([score(counts + row) for row in np.eye(5)])] += 1
    np.testing.assert_array_equal(greedy(objective, 8), counts / 8)


def test_the_grid_tries_everything() -> None:
    objective, _ = boards_of(np.random.default_rng(5), "domain_generalization", 3, False)
    points = [np.array(p) / 5 for p in itertools.product(range(6), repeat=3) if sum(p) == 5]
    best = max(float(objective(point[None])[0]) for point in points)
    found = grid(objective, 0.2)
    assert float(objective(found[None])[0]) == best
    assert found.sum() == pytest.approx(1)
    with pytest.raises(HarkenError, match="weightings"):
        grid(objective, 0.001)
    with pytest.raises(HarkenError, match="does not divide one"):
        grid(objective, 0.3)


def test_bayes_is_seeded_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    objective, _ = boards_of(np.random.default_rng(7), "domain_generalization", 6, False)
    wanted = SearchSettings(trials=12, steps=6, coordinates=4)
    found = bayes(objective, wanted)
    np.testing.assert_array_equal(bayes(objective, wanted), found)
    assert objective(found[None])[0] >= objective(greedy(objective, 6)[None])[0]
    assert found.sum() == pytest.approx(1)
    journal = tmp_path / "trials.jsonl"
    tried: list[tuple[int, int]] = []
    bayes(objective, replace(wanted, trials=9, journal=journal, tried=lambda *count: tried.append(count)))
    assert tried == [(number, 9) for number in range(1, 10)]
    with journal.open("a") as handle:
        handle.write('{"search": "cut off wh')
    np.testing.assert_array_equal(bayes(objective, replace(wanted, journal=journal)), found)
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [row["trial"] for row in rows] == list(range(12))
    # Other machines are another search in the same file.
    bayes(objective.of({"fan": 1}), replace(wanted, trials=2, journal=journal))
    np.testing.assert_array_equal(bayes(objective, replace(wanted, journal=journal)), found)
    journal.write_text("no journal\n")
    with pytest.raises(HarkenError, match="is not a journal"):
        bayes(objective, replace(wanted, journal=journal))


def test_bayes_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    objective, _ = boards_of(np.random.default_rng(7), "domain_generalization", 3, False)
    with pytest.raises(HarkenError, match=r"need optuna\. Install it with: pip install .harken\[search"):
        bayes(objective, SearchSettings())


def test_bayes_has_a_limit() -> None:
    objective, _ = boards_of(np.random.default_rng(7), "domain_generalization", 81, False)
    with pytest.raises(HarkenError, match="at most 80"):
        bayes(objective, SearchSettings())


def test_weights_without_labels() -> None:
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    signal = rng.normal(size=300)
    rows = np.stack([signal + sigma * rng.normal(size=300) for sigma in (0.3, 0.6, 1.2, 2.4)])
    ranks = correlation([rows], ranks=True)
    np.testing.assert_allclose(ranks, stats.spearmanr(rows.T).statistic, atol=1e-12)
    np.testing.assert_allclose(correlation([rows]), np.corrcoef(rows), atol=1e-12)
    weights = agreement(ranks)
    # Where errors are independent the better ones are trusted more; one that contradicts gets nothing.
    assert (np.diff(weights) < 0).all()
    assert agreement(correlation([np.vstack([rows, -signal])]))[-1] == 0
    twins = correlation([np.vstack([rows[0], rows[0], rows[3]])])
    least = least_variance(twins)
    np.testing.assert_allclose(least, [0.25, 0.25, 0.5], atol=1e-3)
    mixed = correlation([np.vstack([rows, rng.normal(size=(2, 300))])])
    sums = {"type": "eq", "fun": lambda w: w.sum() - 1}
    theirs = minimize(
        lambda w: 10 * w @ mixed @ w, np.full(6, 1 / 6), bounds=[(0, 1)] * 6, constraints=sums, options={"ftol": 1e-12}
    )
    np.testing.assert_allclose(least_variance(mixed), theirs.x, atol=2e-3)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from(["greedy", "grid", "top", "single", "uniform"]))
def test_weights_lie_on_the_simplex(seed: int, method: str) -> None:
    objective, _ = boards_of(np.random.default_rng(seed), "domain_generalization", 4, False)
    found = {
        "greedy": lambda: greedy(objective, 7),
        "grid": lambda: grid(objective, 0.25),
        "top": lambda: top(objective, 2),
        "single": lambda: top(objective, 1),
        "uniform": lambda: np.full(4, 0.25),
    }[method]()
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)
    if method in ("greedy", "grid"):
        assert objective(found[None])[0] >= singles(objective).min()


# --- mixing


def test_a_nested_bag_by_hand(systems: Path) -> None:
    members, _ = read_members([systems])
    inner = Bag(name="in", members=(BagMember(name="s0", weight=3), BagMember(name="s1", weight=1)))
    bag = Bag(name="out", normalise="gamma", members=(BagMember(name="in", bag=inner), BagMember(name="s2", weight=2)))
    mixed = apply(bag, members)
    of = {member.name: member for member in members}
    for key in mixed.sections():
        parts = [of[name].scores for name in ("s0", "s1", "s2")]
        pairs = [(one.of_section(key).score_N, one.held_out(key).score_N) for one in parts]
        z = [normalised("train", *pair) for pair in pairs]
        tests = 0.75 * z[0][0] + 0.25 * z[1][0]
        trains = 0.75 * z[0][1] + 0.25 * z[1][1]  # type: ignore[operator]
        whole = normalised("gamma", tests, trains)[0] / 3 + normalised("gamma", *pairs[2])[0] * 2 / 3
        np.testing.assert_allclose(mixed.of_section(key).score_N, whole, atol=1e-12)


def test_order_changes_no_bit(systems: Path, tmp_path: Path) -> None:
    members, _ = read_members([systems])
    bag = Bag(name="b", members=tuple(BagMember(name=f"s{n}", weight=0.1 + n) for n in range(4)))
    turned = Bag(name="b", members=tuple(reversed(bag.members)))
    for file in systems.rglob("*.csv"):
        lines = file.read_text().splitlines(keepends=True)
        target = tmp_path / "again" / file.relative_to(systems)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(reversed(lines)))
    again, _ = read_members([tmp_path / "again"])
    one, other = apply(bag, members), apply(turned, again[::-1])
    assert one.sections() == other.sections()
    for key in one.sections():
        for split in ("test", "train"):
            assert one.by_name(key, split) == other.by_name(key, split)
    proofs = [fit(order, draws=0).bag.members for order in (members, members[::-1])]
    assert proofs[0] == proofs[1]


@pytest.mark.parametrize("method", ["greedy", "uniform", "top", "agreement", "variance", "single", "grid"])
def test_the_score_is_that_of_the_written_files(systems: Path, tmp_path: Path, method: str) -> None:
    members, _ = read_members([systems])
    proof = fit(members, method=method, keep_fitted=True, draws=0)  # type: ignore[arg-type]
    save_bag(proof.bag, tmp_path / "bag.yaml")
    mixed = apply(load_bag(tmp_path / "bag.yaml"))
    write_scores(mixed, tmp_path / "out")
    (result,) = evaluate(tmp_path / "out").results
    row = next(row for row in proof.rows if row.name == method)
    assert result.official_score == row.in_sample.value
    assert proof.bag.weights_from is not None
    assert proof.bag.weights_from.official_score == result.official_score
    # Written scores are a member like any other, training clips included.
    (again,) = read_members([tmp_path / "out"])[0]
    assert all(len(again.scores.held_out(key)) == 30 for key in again.scores.sections())


def test_decisions_keep_their_promise(systems: Path, tmp_path: Path) -> None:
    members, _ = read_members([systems])
    bag = Bag(name="b", members=(BagMember(name="s0"), BagMember(name="s1")))
    files = write_scores(apply(bag, members), tmp_path / "out", false_alarms="20%")
    assert sum(file.startswith("decision_result") for file in files) == len(MACHINES)
    (result,) = evaluate(tmp_path / "out").results
    assert all("f1_source" in row for row in result.extra.values())
    (tmp_path / "out" / "anomaly_score_slider_section_00_test.csv").write_text("a.wav,1\n")
    with pytest.raises(HarkenError, match="other scores already"):
        write_scores(apply(bag, members), tmp_path / "out")


def test_the_rules_of_2020_and_2021(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        rows = [(clip, rng.normal() + ("anomaly" in clip)) for clip in clips_of()]
        for domain in ("source", "target"):
            file = tmp_path / "2021" / f"s{number}" / f"anomaly_score_fan_section_00_{domain}_test.csv"
            write_rows(file, [row for row in rows if domain in row[0]])
        for section in ("00", "02"):
            names = [f"{word}_id_{section}_{n:08d}" for word in ("normal", "anomaly") for n in range(9)]
            file = tmp_path / "2020" / f"s{number}" / f"anomaly_score_fan_id_{section}.csv"
            write_rows(file, [(name, rng.normal() + name.startswith("a")) for name in names])
    for year, rule in (("2020", "machine_id"), ("2021", "domain_adaptation")):
        proof = fit(read_members([tmp_path / year])[0], keep_fitted=True, draws=0)
        assert proof.rule == rule
        write_scores(apply(proof.bag), tmp_path / f"out{year}")
        (result,) = evaluate(tmp_path / f"out{year}").results
        assert result.rule == rule
        assert result.official_score == proof.rows[-1].in_sample.value


# --- bags


def test_a_bag_survives_being_moved_and_written(systems: Path, tmp_path: Path) -> None:
    members, _ = read_members([systems])
    proof = fit(members, groups=r"\d$", draws=0)
    save_bag(proof.bag, systems.parent / "bag.yaml")
    bag = load_bag(systems.parent / "bag.yaml")
    assert bag.weights_from == proof.bag.weights_from
    before = apply(bag)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    systems.rename(moved / "systems")
    (tmp_path / "bag.yaml").rename(moved / "bag.yaml")
    after = apply(load_bag(moved / "bag.yaml"))
    for key in before.sections():
        np.testing.assert_array_equal(before.of_section(key).score_N, after.of_section(key).score_N)
    # By hand: a bag that names another, and a member that does not count.
    text = "name: top\nmembers:\n- {name: in, bag: bag.yaml}\n- {name: s, scores: systems/s3, weight: 0}\n"
    (moved / "top.yaml").write_text(text)
    top_bag = load_bag(moved / "top.yaml")
    assert len(list(top_bag.leaves())) == 4
    best = apply(top_bag)
    rank = {key: np.argsort(best.of_section(key).score_N) for key in best.sections()}
    for key in rank:
        np.testing.assert_array_equal(rank[key], np.argsort(after.of_section(key).score_N))


BAGS = {
    "zero": ("name: b\nmembers:\n- {name: a, scores: x, weight: 0}", "all weights are zero"),
    "negative": ("name: b\nmembers:\n- {name: a, scores: x, weight: -1}", "members.0.weight"),
    "nan": ("name: b\nmembers:\n- {name: a, scores: x, weight: .nan}", "members.0.weight"),
    "twins": ("name: b\nmembers:\n- {name: a, scores: x}\n- {name: a, scores: y}", "two members are named a"),
    "empty": ("name: b\nmembers: []", "members"),
    "key": ("name: b\nmembers:\n- {name: a, score: x}", "unknown key members.0.score. Did you mean scores"),
    "kinds": ("name: b\nmembers:\n- {name: a, scores: x, bundle: y}", "one of scores, bundle and bag"),
    "normalise": ("name: b\nnormalise: zscore\nmembers:\n- {name: a, scores: x}", "normalise"),
    "circle": ("name: b\nmembers:\n- {name: a, bag: bag.yaml}", "is a member of itself"),
    "list": ("- a", "is not a mapping"),
    "yaml": ("a: [", "cannot be read"),
    "schema": ("schema: 2\nname: b\nmembers:\n- {name: a, scores: x}", "schema"),
}


@pytest.mark.parametrize("case", BAGS)
def test_a_broken_bag_is_refused_with_its_reason(tmp_path: Path, case: str) -> None:
    text, message = BAGS[case]
    (tmp_path / "bag.yaml").write_text(text)
    with pytest.raises(HarkenError, match=message) as caught:
        load_bag(tmp_path / "bag.yaml")
    assert caught.value.file == str(tmp_path / "bag.yaml")


def test_members_that_are_not_there(systems: Path, tmp_path: Path) -> None:
    members, _ = read_members([systems])
    with pytest.raises(HarkenError, match=r"no scores of the member s9\. There are: s0"):
        apply(Bag(name="b", members=(BagMember(name="s9"),)), members)
    with pytest.raises(HarkenError, match="does not say where"):
        apply(Bag(name="b", members=(BagMember(name="s9"),)))
    entry = BagMember(name="s", scores=str(systems), system="s7")
    with pytest.raises(HarkenError, match=r"no system 's7', which the member s is\. There are: s0, s1"):
        apply(Bag(name="b", members=(entry,)))
    with pytest.raises(HarkenError, match="none are given"):
        apply(Bag(name="b", members=(BagMember(name="m", bundle="m.harken"),)))
    inner = Bag(name="in", members=(BagMember(name="s0"),))
    with pytest.raises(HarkenError, match="2 members of the bag are named s0"):
        apply(Bag(name="b", members=(BagMember(name="s0"), BagMember(name="in", bag=inner))), members)


def test_merged_bags(systems: Path) -> None:
    members, _ = read_members([systems])
    one = Bag(name="one", members=(BagMember(name="s0", weight=2), BagMember(name="s1", weight=2)))
    two = Bag(name="two", members=(BagMember(name="s1", weight=1), BagMember(name="s2", weight=3)))
    flat = merged([one, two], "both", shares=[1.0, 3.0])
    assert {entry.name: entry.weight for entry in flat.members} == {"s0": 0.5, "s1": 1.25, "s2": 2.25}
    nested = merged([one, two], "both", nest=True)
    assert [entry.name for entry in nested.members] == ["one", "two"]
    # Put together, scores are the weighted sum of those of the bags.
    key = ("fan", "00")
    scores = [apply(bag, members).of_section(key).score_N for bag in (one, two, flat)]
    np.testing.assert_allclose(scores[2], (scores[0] + 3 * scores[1]) / 4, atol=1e-12)
    with pytest.raises(HarkenError, match="different normalisations"):
        merged([one, two.model_copy(update={"normalise": "rank"})], "both")
    with pytest.raises(HarkenError, match="two different members are named s1"):
        merged([one, Bag(name="x", members=(BagMember(name="s1", scores="elsewhere"),))], "both")
    with pytest.raises(HarkenError, match="1 shares for 2 bags"):
        merged([one, two], "both", shares=[1.0])


# --- groups


def test_seeds_of_one_model_are_told_from_models() -> None:
    names = ["beats/seed_1", "beats/seed_22", "eat_seed3", "eat_seed4", "fisher", "beats_epoch_3", "run/ckpt-2"]
    assert [(name, len(rows)) for name, rows in grouped(names, "auto")] == [
        ("beats", 3),
        ("eat", 2),
        ("fisher", 1),
        ("run/ckpt-2", 1),
    ]
    with pytest.raises(HarkenError, match="is not a regular expression"):
        grouped(names, "(")


def test_two_steps_are_normalised_twice(tmp_path: Path) -> None:
    for model, seed in itertools.product("ab", range(3)):
        write_system(tmp_path / "s" / f"{model}_seed{seed}", ord(model) * 10 + seed, 1.0 + (model == "a"))
    members, _ = read_members([tmp_path / "s"])
    proof = fit(members, groups="auto", method="uniform", draws=0)
    assert [entry.name for entry in proof.bag.members] == ["a", "b"]
    assert all(entry.inner is not None and len(entry.inner.members) == 3 for entry in proof.bag.members)
    inner = [Member(apply(entry.inner, members)) for entry in proof.bag.members if entry.inner is not None]
    outer = apply(Bag(name="b", members=(BagMember(name="a"), BagMember(name="b"))), inner)
    key = ("fan", "00")
    np.testing.assert_array_equal(apply(proof.bag, members).of_section(key).score_N, outer.of_section(key).score_N)
    best = fit(members, groups="auto", best=2, keep_fitted=True, draws=3)
    assert all(entry.inner is None or len(entry.inner.members) == 2 for entry in best.bag.members)
    assert best.bag.weights_from is not None
    assert best.bag.weights_from.settings["best_of_group"] == 2


# --- honesty


def held_out_by_hand(problem: Problem, steps: int) -> float:
    rows = []
    objective = problem.of_all()
    for number, machine in enumerate(problem.machines):
        rest = objective.of({name: 1 for name in problem.machines if name != machine})
        rows.append(objective.numbers(greedy(rest, steps)[None])[0, number])
    return float(stats.hmean(np.ravel(rows)))


def test_leave_one_machine_out_by_hand(systems: Path) -> None:
    members, _ = read_members([systems])
    proof = fit(members, draws=0)
    problem = Problem(members, None, "train")
    of = {row.name: row for row in proof.rows}
    assert of["greedy"].held_out is not None
    assert of["greedy"].held_out.value == pytest.approx(held_out_by_hand(problem, 15), abs=1e-12)
    assert of["uniform"].held_out == of["uniform"].in_sample
    assert of["greedy"].in_sample.marks == (TUNED,)
    assert of["greedy"].held_out.marks == ()
    assert of["single"].in_sample.value == max(result.official_score for result in evaluate(systems).results)
    assert proof.gate is not None
    # The jackknife written out.
    fitted = problem.held_out(lambda rest: problem.fit("greedy", rest), problem.everywhere)
    plain = problem.numbers(problem.fit("uniform", problem.everywhere))
    gains = []
    for machine in problem.machines:
        rest = {name: 1 for name in problem.machines if name != machine}
        gains.append(problem.score(fitted, rest) - problem.score(plain, rest))
    spread = np.sqrt(3 / 4 * np.sum((np.array(gains) - np.mean(gains)) ** 2))
    assert proof.gate.error == pytest.approx(spread)


def test_weights_that_do_not_carry_over_are_not_kept(tmp_path: Path) -> None:
    """Each machine has its own best member: what is learned on the others is wrong on it."""
    for number in range(4):
        strengths = [2.0 if number == machine else 0.7 for machine in range(4)]
        write_system(tmp_path / "s" / f"s{number}", number, strengths)
    members, _ = read_members([tmp_path / "s"])
    proof = fit(members, draws=0)
    assert proof.kept == "uniform"
    assert "the plain mean is kept" in proof.why
    assert {entry.weight for entry in proof.bag.members} == {0.25}
    assert proof.bag.weights_from is not None
    assert proof.bag.weights_from.method == "uniform"
    assert proof.bag.weights_from.tuned_on is None
    asked = fit(members, draws=0, keep_fitted=True)
    assert asked.kept == "fitted"
    assert "kept as requested" in asked.why
    assert asked.rows[-1].held_out == asked.rows[-2].held_out


def test_weights_that_carry_over_are_kept(tmp_path: Path) -> None:
    for number in range(6):
        write_system(tmp_path / "s" / f"s{number}", number, 2.0 if number == 0 else -0.5)
    proof = fit(read_members([tmp_path / "s"])[0], draws=4)
    assert proof.kept == "fitted"
    assert proof.why.endswith("it is kept")
    assert proof.bag.weights_from is not None
    assert proof.bag.weights_from.marks == (TUNED,)
    best = max(proof.report.members, key=lambda member: member.weight)
    assert best.name == "s0"
    assert best.held_out is not None
    assert best.held_out[0] <= best.weight <= best.held_out[1] + 1e-9
    assert best.bootstrap is not None
    assert best.bootstrap[2] == 1.0
    shrunk = fit(read_members([tmp_path / "s"])[0], draws=0, settings=SearchSettings(shrink=0.5), keep_fitted=True)
    expected = {member.name: 0.5 * member.weight + 0.5 / 6 for member in proof.report.members}
    assert {entry.name: pytest.approx(entry.weight) for entry in shrunk.bag.members} == expected
    auto = fit(read_members([tmp_path / "s"])[0], draws=0, settings=SearchSettings(shrink=-1.0))
    assert auto.kept == "fitted"


def test_contributions_and_correlations(systems: Path) -> None:
    members, _ = read_members([systems])
    proof = fit(members, method="uniform", draws=0)
    everyone = proof.rows[1].in_sample.value
    for row, one in enumerate(proof.report.members):
        rest = fit([member for member in members if member.name != one.name], method="uniform", draws=0)
        assert one.contribution == pytest.approx(everyone - rest.rows[1].in_sample.value, abs=1e-12)
        ranks = proof.report.correlation_GG[row]
        expected = np.mean(
            [
                stats.spearmanr(
                    members[row].scores.of_section(key).score_N, members[0].scores.of_section(key).score_N
                ).statistic
                for key in members[0].scores.sections()
            ]
        )
        assert ranks[0] == pytest.approx(expected)


def test_marks_follow_the_test_clips(systems: Path, tmp_path: Path) -> None:
    members, _ = read_members([systems])
    bare = [replace(member, scores=member.scores.test) for member in members]
    proof = fit(bare, draws=0, compare=["variance"])
    assert proof.bag.normalise == "transductive"
    assert "no scores of the training clips of bearing section 00" in proof.notes[0]
    for row in proof.rows:
        for number in (row.in_sample, row.held_out):
            assert number is not None
            assert (TRANSDUCTIVE in number.marks) == (row.name != "single")
    assert proof.bag.weights_from is not None
    assert TRANSDUCTIVE in proof.bag.weights_from.marks
    assert TRANSDUCTIVE in proof.why
    with pytest.raises(HarkenError, match="the member has no scores of training clips"):
        fit(bare, normalise="rank", draws=0)
    # Known, but of other clips: members are compared on test clips.
    others = []
    for number, member in enumerate(members):
        rows = [
            row._replace(file=f"{number}_{row.file}") if row.split == "train" else row for row in member.scores.rows()
        ]
        others.append(replace(member, scores=Scores.of_rows(rows, member.name)))
    rows = {row.name: row for row in fit(others, draws=0, compare=["variance"]).rows}
    assert rows["variance"].in_sample.marks == (TRANSDUCTIVE,)
    assert rows["uniform"].in_sample.marks == ()


def test_transfer(systems: Path, tmp_path: Path) -> None:
    for number, strength in enumerate((1.5, 1.0, 0.5, 0.0)):
        write_system(tmp_path / "other" / f"s{number}", 50 + number, strength)
    members, _ = read_members([systems])
    others, _ = read_members([tmp_path / "other"])
    proof = fit(members, draws=0, transfer=(others, None), keep_fitted=True)
    of = {row.name: row for row in proof.rows}
    assert of["greedy"].transfer is not None
    write_scores(apply(proof.bag, others), tmp_path / "out")
    assert of["greedy"].transfer.value == evaluate(tmp_path / "out").results[0].official_score
    assert of["greedy"].transfer.marks == ()
    with pytest.raises(HarkenError, match="the set of the transfer has no member s3"):
        fit(members, draws=0, transfer=(others[:3], None))
    # The very clips under another name are no other set.
    same = fit(members, draws=0, transfer=(members, None), keep_fitted=True)
    assert same.rows[-1].transfer is not None
    assert TUNED in same.rows[-1].transfer.marks


def test_one_machine_tells_nothing_of_others(systems: Path) -> None:
    members, _ = read_members([systems])
    proof = fit(members, machines=["fan"])
    assert proof.gate is None
    assert proof.kept == "uniform"
    assert "with one machine" in proof.why
    assert proof.rows[-1].held_out is None


# --- bad input


def broken(change: Callable[[list[tuple[str, str]]], list[tuple[str, object]]]) -> Callable[[Path], None]:
    def apply_to(systems: Path) -> None:
        file = systems / "s1" / "anomaly_score_fan_section_00_test.csv"
        rows = [tuple(line.replace(".wav", "").split(",")) for line in file.read_text().splitlines()]
        write_rows(file, change(rows))  # type: ignore[arg-type]

    return apply_to


BAD = {
    "missing clip": (broken(lambda rows: rows[1:]), "s1: fan section 00 has no score of section_00_.*, which s0 has"),
    "other clips": (
        broken(lambda rows: [(clip.replace("_0003_", "_0103_"), value) for clip, value in rows]),
        "s1: fan section 00 has no score of section_00_.* and 3 more, which s0 has",
    ),
    "constant": (
        broken(lambda rows: [(clip, 0.5) for clip, _ in rows]),
        "s1: gives all 32 clips of fan section 00 the score 0.5",
    ),
    "nan": (broken(lambda rows: [(rows[0][0], "nan"), *rows[1:]]), "is nan. Scores are finite"),
    "missing section": (
        lambda systems: (systems / "s1" / "anomaly_score_fan_section_00_test.csv").unlink(),
        "s1: has no scores of fan section 00, which s0 has",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_members_that_cannot_be_mixed(systems: Path, case: str) -> None:
    spoil, message = BAD[case]
    spoil(systems)
    with pytest.raises(HarkenError, match=message):
        fit(read_members([systems])[0], draws=0)


def test_a_section_of_one_class(systems: Path) -> None:
    for folder in systems.iterdir():
        file = folder / "anomaly_score_fan_section_00_test.csv"
        file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if "normal" in line))
    members, _ = read_members([systems])
    with pytest.raises(HarkenError, match=r"fan section 00: a section needs anomalies .* leave the machine out"):
        fit(members, draws=0)
    assert fit(members, draws=0, machines=["pump", "valve"]).machines == ("pump", "valve")


def test_constant_scores_of_training_clips(systems: Path) -> None:
    file = systems / "s1" / "train_score_fan_section_00.csv"
    file.write_text("".join(line.split(",")[0] + ",2.5\n" for line in file.read_text().splitlines()))
    with pytest.raises(HarkenError, match=r"fan section 00: the member gives all 30 training clips the score 2\.5"):
        fit(read_members([systems])[0], draws=0)


def test_names(systems: Path, tmp_path: Path) -> None:
    write_system(tmp_path / "other" / "s0", 9)
    members, _ = read_members([systems / "s0", tmp_path / "other" / "s0"])
    assert [member.name for member in members] == ["other/s0", "systems/s0"]
    with pytest.raises(HarkenError, match="is given 2 times"):
        read_members([systems / "s0", systems / "s0"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(HarkenError, match="no anomaly_score"):
        read_members([tmp_path / "empty"])
    with pytest.raises(HarkenError, match="no such file"):
        read_members([tmp_path / "nowhere"])


# --- runs and bundles


def test_a_run_brings_its_training_clips(tmp_path: Path) -> None:
    from harken.bench.recipe import load_recipe
    from harken.bench.run import run_recipe
    from harken.bench.workspace import Workspace
    from harken.plant.simulate import simulate

    sizes = {"train_source": 8, "train_target": 2, "test_per_condition": 2, "supplemental": 1, "seconds": 1.0}
    simulate(tmp_path / "plant", machines=["fan", "valve"], **sizes)  # type: ignore[arg-type]
    recipe = load_recipe("spectral_knn", profile="tiny")
    run = run_recipe(recipe, tmp_path / "plant", Workspace(tmp_path / "work"), workers=1)
    members, _ = read_members([run.folder])
    assert [member.name for member in members] == [f"spectral_knn/{system}" for system in recipe.systems]
    for key in members[0].scores.sections():
        train = members[0].scores.held_out(key)
        assert len(train) == 10
        assert {parse_name(name).split for name in train.names} == {"train"}  # type: ignore[union-attr]
        written = run.folder / "scores" / "spectral_knn" / f"train_score_{key[0]}_section_{key[1]}.csv"
        assert [line.split(".wav,")[0] for line in written.read_text().splitlines()] == list(train.names)
    bag = Bag(name="b", members=(BagMember(name=members[0].name, scores=str(run.folder)),))
    mixed = apply(bag)
    assert mixed.sections() == members[0].scores.sections()
    with pytest.raises(HarkenError, match="the run has no set 'dcase2031'"):
        read_members([run.folder], data_set="dcase2031")
    # A copy of its folder is a run without a workspace: everything is there.
    shutil.copytree(run.folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "work")
    (copied,) = read_members([tmp_path / "copy"])[0]
    assert copied.scores == members[0].scores
    assert apply(bag, [copied]) == mixed


def test_a_run_on_two_sets(tmp_path: Path) -> None:
    run = tmp_path / "r-1234"
    tables = []
    for seed, name in itertools.product((0, 1), ("dev", "eval")):
        folder = write_system(tmp_path / "files" / f"{seed}_{name}", 10 * seed + len(name))
        (member,) = read_members([folder])[0]
        tables.append(replace(member.scores, system="knn", set=f"dcase {name}", seed=seed))
    run.mkdir()
    write_table(tables, run / "scores.parquet")
    (run / "recipe.yaml").write_text("name: r\n")
    (run / "results.json").write_text("{}")
    with pytest.raises(HarkenError, match="several sets: dcase dev, dcase eval"):
        read_members([run])
    sets = {name: read_members([run], data_set=name)[0] for name in ("dcase dev", "dcase eval")}
    for members in sets.values():
        assert [member.name for member in members] == ["r/knn/seed_0", "r/knn/seed_1"]
    proof = fit(sets["dcase dev"], method="uniform", normalise="transductive", groups="auto", draws=0)
    save_bag(proof.bag, tmp_path / "bag.yaml")
    bag = load_bag(tmp_path / "bag.yaml")
    key = ("fan", "00")
    for name, mixed in (("dcase dev", apply(bag)), ("dcase eval", apply(bag, data_set="dcase eval"))):
        np.testing.assert_array_equal(mixed.of_section(key).score_N, apply(bag, sets[name]).of_section(key).score_N)


def test_models_score_recordings(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    import harken

    normal = make_clips("normal", 10)
    for name, parameters in (("one", {"neighbours": 1}), ("two", {"neighbours": 3})):
        model = harken.Detector.fit(normal, detector="knn", parameters=parameters, workers=0)
        model.save(tmp_path / f"{name}.harken")
    for n in range(6):
        sf.write(tmp_path / f"new_{n}.wav", hum(100 + n, fault=n > 2), 16_000)
    recordings = [str(tmp_path / f"new_{n}.wav") for n in range(6)]
    words = [word for path in recordings for word in ("--recordings", path)]
    models = [str(tmp_path / f"{name}.harken") for name in ("one", "two")]
    bag = tmp_path / "bag.yaml"
    app(args=["ensemble", "fit", *models, *words, "--method", "uniform", "-o", str(bag)], standalone_mode=False)
    assert load_bag(bag).normalise == "train"
    app(args=["ensemble", "score", str(bag), *words, "-o", str(tmp_path / "out")], standalone_mode=False)
    rows = (tmp_path / "out" / "anomaly_score_recordings_section_00_test.csv").read_text().splitlines()
    values = {row.split(",")[0]: float(row.split(",")[1]) for row in rows}
    assert len(values) == 6
    assert min(values[f"new_{n}.wav"] for n in (3, 4, 5)) > max(values[f"new_{n}.wav"] for n in (0, 1, 2))
    assert (tmp_path / "out" / "decision_result_recordings_section_00_test.csv").is_file()


# --- the command line


def call(*words: object) -> int | None:
    return app(args=["ensemble", *map(str, words)], standalone_mode=False)


def test_fit_score_show_and_merge(systems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = tmp_path / "bag.yaml"
    call("fit", systems, "-o", bag, "--compare", "top", "--keep-fitted", "--bootstrap", 3, "--leave-out", "s3")
    printed = capsys.readouterr()
    for words in ("best single", "uniform", "greedy", "top", "machines left out", "tuned on test", "kept: greedy"):
        assert words in printed.out
    assert "transductive" not in printed.out
    call("score", bag, "-o", tmp_path / "out", "--json")
    written = json.loads(capsys.readouterr().out)
    assert written["clips"] == 128
    (result,) = evaluate(tmp_path / "out").results
    call("show", bag)
    printed = capsys.readouterr()
    assert f"{result.official_score:.6f}, tuned on test" in printed.out
    call("fit", systems, "-o", tmp_path / "two.yaml", "--normalise", "transductive", "--method", "uniform", "--json")
    data = json.loads(capsys.readouterr().out)
    assert data["rows"][1]["in_sample"]["marks"] == ["transductive"]
    assert len(data["report"]["correlation"]["ranks"]) == 4
    call("merge", bag, tmp_path / "two.yaml", "--nest", "--share", 2, "--share", 1, "-o", tmp_path / "both.yaml")
    capsys.readouterr()
    call("show", tmp_path / "both.yaml")
    assert "by the test clips themselves" in capsys.readouterr().out
    call("score", tmp_path / "both.yaml", "-o", tmp_path / "again")
    assert "transductive" in capsys.readouterr().err


def test_there_is_a_place_for_the_bag_before_the_search(systems: Path, tmp_path: Path) -> None:
    with pytest.raises(HarkenError, match="there is no such folder"):
        call("fit", systems, "-o", tmp_path / "nowhere" / "bag.yaml")


def test_without_labels(systems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in systems.rglob("*_score_*.csv"):
        lines = [line for line in file.read_text().splitlines() if line]
        file.write_text("".join(f"section_00_{n:04d}.wav,{line.split(',')[1]}\n" for n, line in enumerate(lines)))
    with pytest.raises(HarkenError, match="greedy needs labels"):
        call("fit", systems)
    call("fit", systems, "--method", "agreement", "-o", tmp_path / "bag.yaml")
    assert "weights: agreement, of 4 members" in capsys.readouterr().out
    assert load_bag(tmp_path / "bag.yaml").normalise == "train"


# --- real scores


def reals(shared: Path, which: str) -> list[Member]:
    folder = shared / "golden" / which
    return read_members([folder / "scores.csv.gz" if which == "2022_dev" else folder])[0]


def by_name(proof: Proof) -> dict[str, tuple[float, float]]:
    return {row.name: (row.in_sample.value, row.held_out.value) for row in proof.rows if row.held_out is not None}


def test_44_systems_of_2022(shared: Path, tmp_path: Path) -> None:
    members, truth = read_members([shared / "golden" / "2022_dev" / "scores.csv.gz"])
    proof = fit(members, truth, draws=0, compare=["top"])
    rows = by_name(proof)
    assert rows["single"] == pytest.approx((0.71369, 0.71369), abs=5e-6)
    assert rows["uniform"] == pytest.approx((0.6461, 0.6461), abs=5e-5)
    assert rows["greedy"][0] > 0.735
    assert proof.kept == "fitted"
    assert rows["kept"][1] >= 0.72
    assert TRANSDUCTIVE in proof.rows[-1].in_sample.marks
    save_bag(proof.bag, tmp_path / "bag.yaml")
    write_scores(apply(load_bag(tmp_path / "bag.yaml")), tmp_path / "out")
    assert evaluate(tmp_path / "out").results[0].official_score == rows["kept"][0]


def test_13_systems_of_2025(shared: Path) -> None:
    proof = fit(reals(shared, "2025_dev"), draws=0)
    rows = by_name(proof)
    assert rows["uniform"][0] == pytest.approx(0.5882, abs=5e-5)
    assert rows["greedy"][0] > 0.6029
    assert rows["greedy"][1] < rows["uniform"][1]
    assert proof.kept == "uniform"
    assert rows["kept"] == rows["uniform"]
    assert set(METHODS) > {proof.bag.weights_from.method if proof.bag.weights_from else ""}


def test_an_evaluators_truth(shared: Path, tmp_path: Path) -> None:
    """Names without labels, and the other order of sums of the official evaluators."""
    golden = shared / "golden" / "2022_eval"
    members, _ = read_members([golden / "scores"])
    proof = fit(members, read_truth(golden), draws=0, keep_fitted=True)
    expected = json.loads((golden / "expected.json").read_text())
    assert proof.rows[0].in_sample.value == max(row["official score"] for row in expected.values())
    write_scores(apply(proof.bag, members), tmp_path / "out")
    assert evaluate(tmp_path / "out", golden).results[0].official_score == proof.rows[-1].in_sample.value
    # All four decided every clip, hence so does their vote.
    assert len(list((tmp_path / "out").glob("decision_result_*.csv"))) == 21


@pytest.mark.slow
def test_bayes_on_44_systems(shared: Path) -> None:
    members, truth = read_members([shared / "golden" / "2022_dev" / "scores.csv.gz"])
    problem = Problem(members, truth, "transductive", settings=SearchSettings(trials=120))
    scores = {
        method: problem.score(problem.numbers(problem.fit(method, problem.everywhere)), problem.everywhere)  # type: ignore[arg-type]
        for method in ("greedy", "bayes")
    }
    assert scores["bayes"] >= scores["greedy"]


# --- required members and the best of the others


@pytest.mark.parametrize("by", ["score", "worst_machine"])
def test_required_members_and_the_best_of_the_others(by: Criterion) -> None:
    """Against the two definitions written out; on other machines, others are chosen."""
    objective, _ = boards_of(np.random.default_rng(3), "domain_generalization", 7, ties=False)
    groups = tuple((f"m{row}", (row,)) for row in range(7))
    alone_GG = np.eye(7)
    for counts in ({"fan": 1, "pump": 1}, {"fan": 1}, {"pump": 1}):
        quality = [objective.of(counts)(alone_GG)] if by == "score" else [
            objective.of({machine: 1})(alone_GG) for machine in counts
        ]  # fmt: skip
        ranks = [row for row in np.argsort(-np.min(quality, axis=0)) if row not in (0, 1)]
        chosen = Selection(("m0", "m[1]"), 2, by).of(groups, objective.of(counts))
        assert [name for name, _ in chosen] == [f"m{row}" for row in sorted([0, 1, *ranks[:2]])]
    with pytest.raises(HarkenError, match="no member is named 'm9'"):
        Selection(("m9",)).of(groups, objective)
    with pytest.raises(HarkenError, match="no member would be selected"):
        Selection(best=0)


def test_selected_members_are_chosen_without_the_machine_left_out(
    systems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """s3, the weakest, is required; the strongest of the others joins it, and no third."""
    bag = tmp_path / "bag.yaml"
    call("fit", systems, "-o", bag, "--method", "grid", "--step", 0.25, "--require", "s3", "--select", 1,
         "--keep-fitted", "--bootstrap", 0, "--json")  # fmt: skip
    proof = json.loads(capsys.readouterr().out)
    assert {member["name"] for member in proof["report"]["members"]} == {"s0", "s3"}
    settings = {"step": 0.25, "required": ["s3"], "select": 1, "select_by": "score"}
    assert load_bag(bag).weights_from.settings == settings  # type: ignore[union-attr]
    members, _ = read_members([systems])
    problem = Problem(members, None, "train", selection=Selection(("s3",), 1))
    for machine in problem.machines:
        fitted = problem.fit("grid", {other: 1 for other in problem.machines if other != machine})
        assert [name for name, _ in fitted.groups] == ["s0", "s3"]
