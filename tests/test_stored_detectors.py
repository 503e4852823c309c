"""States of detectors from elsewhere: what is not as a detector declares it is refused, or changes no score."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray

from conftest import hum
from harken.core.arrays import Stored, check_arrays, declared_arrays
from harken.core.errors import BundleError
from harken.detection import AnomalyDetector, create_detector, list_detectors
from harken.detection.checks import clips, domains
from harken.detection.knn import KNN
from harken.monitor.bundle import read_bundle, write_bundle
from harken.monitor.detector import Detector

if TYPE_CHECKING:
    from numpy.typing import NDArray as Imported

Float64 = NDArray[np.float64]
State = dict[str, NDArray[Any]]
#: detectors, and those of their variants that learn other arrays
DETECTORS: dict[str, AnomalyDetector] = {
    **{name: create_detector(name) for name in list_detectors()},
    "knn of two banks": create_detector("knn", {"banks": "separate"}),
    "ldn of centres": create_detector("ldn", {"bank": "kmeans", "clusters": 3}),
    "local_density, raw": create_detector("local_density", {"space": "raw"}),
    "beyond": create_detector("beyond"),
    "reconstruction_error": create_detector("reconstruction_error"),
}
#: what may have any sign
_ANY_SIGN = {"mean_", "bank_", "centres_", "means_", "basis_", "location_", "highest_", "held_out_", "train_scores_",
             "exponent_"}  # fmt: skip
COUNT = 24


def changes(name: str, array: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any] | None]]:
    """Other arrays in the place of one."""
    last = name.rpartition(".")[2]
    yield "left out", None
    for kind in (np.float16, np.float32, np.float64, np.int8, np.int64, np.bool_):
        with np.errstate(invalid="ignore"):
            yield f"as {kind.__name__}", array.astype(kind)
    yield "of one axis more", array[None]
    yield "of nothing", array[:0] if array.ndim else np.zeros(0)
    if array.ndim:
        if last != "centres_":  # of any number
            yield "of one row less", array[:-1]
            yield "twice", np.concatenate([array, array])
        yield "as one number", np.array(array.flat[0]) if array.size else np.array(1.0)
    if array.ndim > 1:
        if array.shape != array.T.shape:
            yield "turned", array.T
        yield "in one row", array.reshape(-1)
        yield "of one column less", array[:, :-1]
    if last in ("basis_", "precision_"):
        yield "of equal columns", np.repeat(array[:, :1], array.shape[1], axis=1)
    if last not in _ANY_SIGN:
        yield "negative", -array
        yield "of zeros", np.zeros_like(array)
    yield "of huge numbers", np.full_like(array, 1e35 if array.dtype.kind == "f" else np.iinfo(np.int64).max)
    if array.dtype.kind == "f":
        yield "of no numbers", np.full_like(array, np.nan)


@pytest.mark.parametrize("case", DETECTORS)
def test_another_array_in_a_state_is_refused_or_changes_no_score(case: str) -> None:
    made = DETECTORS[case]
    fitted = type(made)(**made.get_params()).fit(clips(COUNT), domains(COUNT))
    queries_ND, state = clips(5, seed=1), fitted.state()
    expected = fitted.score(queries_ND).tolist()
    for name, array in state.items():
        for change, other in changes(name, array):
            changed = {key: value for key, value in state.items() if key != name}
            if other is not None:
                changed[name] = other
            assert scores_or_none(made, changed, queries_ND) in (None, expected), (name, change)
    assert scores_or_none(made, {**state, "more_": np.zeros(2)}, queries_ND) in (None, expected)


def scores_or_none(made: AnomalyDetector, state: State, queries_ND: NDArray[Any]) -> list[float] | None:
    """Of the detector of this state; None where it is refused."""
    try:
        return type(made)(**made.get_params()).restored(state).score(queries_ND).tolist()
    except (ValueError, KeyError):
        return None


@pytest.mark.parametrize("case", DETECTORS)
def test_all_that_a_detector_learns_is_declared(case: str) -> None:
    made = DETECTORS[case]
    learned = type(made)(**made.get_params()).fit(clips(COUNT), domains(COUNT)).state()
    assert {name for name in learned if "." not in name} <= declared_arrays(type(made)).keys()


class Unevaluated(AnomalyDetector):
    axes_: Imported
    rows_: Annotated[Float64, Stored("K")]

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        self.mean_, self.axes_, self.rows_ = bank_ND.mean(0).astype(np.float32), np.eye(3), np.ones(2)

    def _score(self, queries_ND: Float64) -> Float64:
        return ((queries_ND - self.mean_) ** 2).sum(1)


class WithMore(KNN):
    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        super()._fit(bank_ND, domains_N)
        self.extra_ = np.full(3, 2.0)

    def _score(self, queries_ND: Float64) -> Float64:
        return super()._score(queries_ND) * self.extra_[0]


@pytest.mark.parametrize(("cls", "undeclared"), [(Unevaluated, "axes_"), (WithMore, "extra_")])
def test_custom_detectors_need_not_declare_what_they_learn(cls: type[AnomalyDetector], undeclared: str) -> None:
    assert undeclared not in declared_arrays(cls)
    made = cls().fit(clips(COUNT))
    queries_ND, state = clips(5, seed=1), made.state()
    assert cls().restored(state).score(queries_ND).tolist() == made.score(queries_ND).tolist()
    with pytest.raises(ValueError, match=f"{undeclared} that is not finite"):
        cls().restored({**state, undeclared: np.full(3, np.nan)})
    # What is declared is checked all the same.
    declared = "rows_" if cls is Unevaluated else "bank_"
    with pytest.raises(ValueError, match=f"{declared} of shape"):
        cls().restored({**state, declared: state[declared][..., None]})


def test_axes_of_one_name_agree() -> None:
    declared = {
        "bank_": Stored("N D"),
        "row_": Stored("K", "int64 int32", below="N"),
        "rest_": Stored("", optional=True),
    }
    bank_ND = np.zeros((3, 2))
    assert check_arrays(declared, {"bank_": bank_ND, "row_": np.array([0, 2], np.int32)}) == {"N": 3, "D": 2, "K": 2}
    for row, message in (
        (np.array([0, 3]), "row_ of up to 3, of 3"), (np.array([-1]), "row_ that is negative"),
        (np.array([0.0]), "row_ of type float64, not int64 or int32"), (np.zeros((1, 1), int), r"not \(K\)"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            check_arrays(declared, {"bank_": bank_ND, "row_": row})
    with pytest.raises(KeyError, match="row_"):
        check_arrays(declared, {"bank_": bank_ND})
    square = {"precision_": Stored("D D"), "mean_": Stored("D", unknown=True, most=5)}
    assert check_arrays(square, {"precision_": np.eye(2), "mean_": np.array([np.nan, 5.0])}) == {"D": 2}
    with pytest.raises(ValueError, match=r"precision_ of shape \(2, 3\), not \(D, D\)"):
        check_arrays(square, {"precision_": np.ones((2, 3)), "mean_": np.ones(2)})
    with pytest.raises(ValueError, match=r"mean_ of shape \(3,\), not \(2\)"):
        check_arrays(square, {"precision_": np.eye(2), "mean_": np.ones(3)})
    with pytest.raises(ValueError, match="mean_ of up to 6"):
        check_arrays(square, {"precision_": np.eye(2), "mean_": np.full(2, 6.0)})
    with pytest.raises(ValueError, match="mean_ that is as low as -6"):
        check_arrays(square, {"precision_": np.eye(2), "mean_": np.full(2, -6.0)})


def test_arrays_of_a_strangers_model_are_those_of_its_detector(tmp_path: Path) -> None:
    model = tmp_path / "m.harken"
    for seed in range(6):
        sf.write(tmp_path / f"{seed}.wav", hum(seed, seconds=0.5), 16_000)
    detector = Detector.fit([tmp_path / f"{seed}.wav" for seed in range(6)], workers=0)
    detector.save(model)
    settings, parts = read_bundle(model)
    expected = detector.score(hum(9, seconds=0.5), 16_000).score
    for part, name, change, message in (
        ("detector", "bank_", lambda bank: bank.astype(np.float64), None),
        ("detector", "weights_", lambda weights: weights.astype(np.float32), "weights_ of type float32, not float64"),
        ("detector", "weights_", lambda weights: weights[:, None], r"weights_ of shape \(6, 1\), not \(6\)"),
        ("detector", "basis_", lambda basis: 2 * basis, "basis_ that is not orthonormal"),
        ("events", "scale_", lambda scale: -scale, "scale_ that is not positive"),
        ("tones", "highest_", lambda highest: highest[1:], r"highest_ of shape \(\d+,\), not \(\d+\)"),
    ):
        changed = {**parts, part: {**parts[part], name: change(np.array(parts[part][name]))}}
        write_bundle(tmp_path / "changed.harken", settings, changed)
        if message is None:
            assert Detector.load(tmp_path / "changed.harken").score(hum(9, seconds=0.5), 16_000).score == expected
        else:
            with pytest.raises(BundleError, match=message):
                Detector.load(tmp_path / "changed.harken")
