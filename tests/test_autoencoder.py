"""The DCASE baseline: network, training, and scores against its formulas written out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from harken.core.errors import HarkenError
from harken.detection.reconstruction import Reconstruction, gamma_threshold
from harken.encoders.autoencoder import Autoencoder
from harken.training.autoencoder import AutoencoderSettings, StackedFrames, batches, shuffled, train

BANDS = 12
SMALL: dict[str, Any] = {"epochs": 4, "batch": 64, "seed": 3}


def clips(count: int = 20, frames: int = 30, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    """(clips, frames, BANDS): four hidden slow signals, mixed, in noise."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(4, BANDS))
    slow = np.cumsum(rng.normal(size=(count, frames, 4)), axis=1) / 3
    return (slow @ mixing + 0.3 * rng.normal(size=(count, frames, BANDS)) + shift).astype(np.float32)


def domains(count: int = 20) -> list[str]:
    return ["target" if i % 5 == 2 else "source" for i in range(count)]


def fitted(**changes: Any) -> Reconstruction:
    labels = changes.pop("labels", domains())
    return Reconstruction(**(SMALL | changes)).fit(clips(), labels)


# Network and vectors


def test_the_network_is_that_of_the_baseline() -> None:
    network = Autoencoder()
    assert sum(value.numel() for value in network.parameters()) == 267_928
    sizes = [
        (layer.in_features, layer.out_features) for layer in network.modules() if isinstance(layer, torch.nn.Linear)
    ]
    wide = [(128, 128)] * 3
    assert sizes == [(640, 128), *wide, (128, 8), (8, 128), *wide, (128, 640)]
    normal = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm1d)]
    assert len(normal) == 9
    assert {(layer.momentum, layer.eps) for layer in normal} == {(0.01, 1e-3)}
    kinds = [type(layer).__name__ for layer in network.encoder]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 5
    assert [type(layer).__name__ for layer in network.decoder] == ["Linear", "BatchNorm1d", "ReLU"] * 4 + ["Linear"]


def test_initial_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one = Autoencoder(20, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    plain = torch.nn.Linear(20, 128)
    assert torch.equal(one.encoder[0].weight, plain.weight)
    assert not torch.equal(one.encoder[0].weight, Autoencoder(20, seed=6).encoder[0].weight)


def test_vectors_are_five_frames_of_one_clip() -> None:
    parts = [clips(1, frames, seed)[0] for seed, frames in enumerate((7, 5, 9))]
    stacked = StackedFrames(parts)
    expected = [part[t : t + 5].ravel() for part in parts for t in range(len(part) - 4)]
    assert len(stacked) == len(expected) == 9
    np.testing.assert_array_equal(stacked.vectors(np.arange(9)).numpy(), expected)
    np.testing.assert_array_equal(stacked.vectors(np.array([8, 0])).numpy(), [expected[8], expected[0]])
    np.testing.assert_array_equal(stacked.clip(2).numpy(), expected[4:])
    assert stacked.clip_V.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 2]


# Training


def test_training_reduces_the_loss() -> None:
    trained = train(StackedFrames(clips()), AutoencoderSettings(epochs=15, batch=32))
    assert trained.history.shape == (15, 2)
    assert (trained.history[-1] < 0.5 * trained.history[0]).all()
    assert len(trained.valid_rows) == 52  # a tenth of 520
    assert sorted([*trained.train_rows, *trained.valid_rows]) == list(range(520))
    assert not trained.network.training
    # 468 vectors in batches of 32, then 52.
    assert len(trained.batch_losses) == 15 + 2
    assert trained.history[-1] == pytest.approx([trained.batch_losses[:15].mean(), trained.batch_losses[15:].mean()])


def test_the_loop_is_adam_on_the_squared_error() -> None:
    """Against torch's plain Adam over materialised vectors; a batch of one vector is passed over."""
    stacked = StackedFrames(clips(3, 11))
    settings = AutoencoderSettings(epochs=12, batch=17, seed=1)
    trained = train(stacked, settings)
    assert len(trained.train_rows) == 18
    network = Autoencoder(5 * BANDS, seed=1)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    vectors = torch.from_numpy(np.stack([part[t : t + 5].ravel() for part in clips(3, 11) for t in range(7)]))
    network.train()
    for epoch in range(1, 13):
        x = vectors[shuffled(trained.train_rows, 1, epoch)[:17]]
        adam.zero_grad()
        loss = ((network(x) - x) ** 2).mean(dim=1).mean()
        loss.backward()
        adam.step()
        assert trained.history[epoch - 1, 0] == pytest.approx(loss.item(), rel=1e-4)


def test_the_same_seed_gives_the_same_bits_whatever_torch_is_set_to() -> None:
    states = []
    threads = torch.get_num_threads()
    for seed, count in ((0, 1), (1, 2), (2, 4)):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        torch.set_num_threads(count)
        states.append(fitted().state())
        assert torch.get_num_threads() == count
        assert torch.equal(torch.get_rng_state(), before)
    torch.set_num_threads(threads)
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        for name, value in state.items():
            np.testing.assert_array_equal(value, states[0][name])
    other = fitted(seed=4).state()
    assert not np.array_equal(other["network.encoder.0.weight"], states[0]["network.encoder.0.weight"])


def test_the_order_of_training_clips_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(20)
    one = fitted().state()
    other = Reconstruction(**SMALL).fit(list(clips()[order]), np.array(domains())[order]).state()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    settings = AutoencoderSettings(epochs=7, batch=50)
    stacked = StackedFrames(clips())
    whole = train(stacked, settings)
    file = tmp_path / "training.safetensors"
    told: list[int] = []

    def kill_at_five(epoch: int, epochs: int, loss: float, valid_loss: float) -> None:
        told.append(epoch)
        assert epochs == 7
        assert loss > 0
        assert valid_loss > 0
        if told == [1, 2, 3, 4, 5]:
            raise Killed

    with pytest.raises(Killed):
        train(stacked, settings, checkpoint=file, every=2, progress=kill_at_five)
    again = train(stacked, settings, checkpoint=file, every=2, progress=kill_at_five)
    assert told == [1, 2, 3, 4, 5, 5, 6, 7]
    # Once more, after its end: nothing is left to train.
    ended = train(stacked, settings, checkpoint=file, progress=kill_at_five)
    assert len(told) == 8
    for other in (again, ended):
        for name, value in whole.network.state_dict().items():
            assert torch.equal(value, other.network.state_dict()[name]), name
        np.testing.assert_array_equal(whole.history, other.history)
        np.testing.assert_array_equal(whole.batch_losses, other.batch_losses)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "training.safetensors"
    stacked = StackedFrames(clips(5))
    train(stacked, AutoencoderSettings(epochs=1), checkpoint=file)
    for other, settings in (
        (StackedFrames(clips(5, seed=1)), AutoencoderSettings(epochs=1)),
        (stacked, AutoencoderSettings(epochs=2)),
    ):
        with pytest.raises(HarkenError, match="another training"):
            train(other, settings, checkpoint=file)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(HarkenError, match="cannot be read"):
        train(stacked, AutoencoderSettings(epochs=1), checkpoint=file)


def test_variants_share_a_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "training.safetensors"
    told: list[int] = []
    for mode, variant in (("mse", "published"), ("mahalanobis", "paper")):
        detector = Reconstruction(mode, variant, **SMALL)  # type: ignore[arg-type]
        detector.fit(clips(), domains(), checkpoint=file, progress=lambda epoch, *_: told.append(epoch))
        np.testing.assert_array_equal(detector.thresholds_, fitted(variant=variant).thresholds_)
    assert told == [1, 2, 3, 4]


# Scores and thresholds, against the formulas written out


def residual_rows(detector: Reconstruction, clip: np.ndarray) -> np.ndarray:
    """(vectors, 5, BANDS) reconstruction - input."""
    vectors = np.stack([clip[t : t + 5].ravel() for t in range(len(clip) - 4)])
    with torch.no_grad():
        found = detector._network(torch.from_numpy(vectors)).numpy()
    return (found - vectors).reshape(-1, 5, BANDS).astype(np.float64)


def training_residuals(detector: Reconstruction, labels: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals of all vectors and whether they are of the target domain, in the detector's order; training rows."""
    arrays = list(clips())
    order = sorted(range(20), key=lambda i: hashlib.sha256(arrays[i].tobytes()).digest())
    residuals = np.concatenate([residual_rows(detector, arrays[i]) for i in order])
    is_target = np.repeat([labels[i] == "target" for i in order], 26)
    return residuals, is_target, shuffled(np.arange(520), 3, 0)[52:]


LABELS = pytest.mark.parametrize("labels", [domains(), ["source"] * 20, ["target"] * 20])


@LABELS
def test_published_scores_and_thresholds(labels: list[str]) -> None:
    detector = fitted(labels=labels)
    residuals, is_target, rows = training_residuals(detector, labels)
    inverse = []
    for target in (False, True):
        scatter, vectors = np.zeros((BANDS, BANDS)), 0
        for part in batches(shuffled(rows, 3, 5), 64):
            mine = [residuals[v] for v in part if is_target[v] == target]
            if mine:
                block = np.concatenate(mine)
                for row in block - block.mean(axis=0):
                    scatter += np.outer(row, row)
                vectors += len(mine)
        if vectors:
            inverse.append(np.linalg.inv(scatter / (vectors - 1)))
    if len(inverse) == 1:
        inverse *= 2

    def mahalanobis(found: np.ndarray) -> float:
        delta = found.reshape(-1, BANDS)
        return min(float((delta @ one @ delta.T).mean()) for one in inverse)

    queries = clips(6, 25, seed=5, shift=0.5)
    scores = detector.scores(queries)
    expected = [residual_rows(detector, clip) for clip in queries]
    np.testing.assert_allclose(scores["mse"], [(one**2).mean() for one in expected], rtol=1e-5)
    np.testing.assert_allclose(scores["mahalanobis"], [mahalanobis(one) for one in expected], rtol=1e-4)

    valid = shuffled(np.arange(520), 3, 0)[:52]
    parts = [*batches(shuffled(rows, 3, 6), 64), *batches(valid, 64)]
    normal = [mahalanobis(residuals[part]) for part in parts]
    assert detector.thresholds_[1] == pytest.approx(stats.gamma.ppf(0.9, *stats.gamma.fit(normal)), rel=0.02)
    losses = train(StackedFrames([clips()[i] for i in clip_order()]), AutoencoderSettings(4, 64, 1e-3, 3)).batch_losses
    assert detector.thresholds_[0] == stats.gamma.ppf(0.9, *stats.gamma.fit(losses))
    assert len(losses) == len(parts) == 9


def clip_order() -> list[int]:
    return sorted(range(20), key=lambda i: hashlib.sha256(clips()[i].tobytes()).digest())


@LABELS
def test_paper_scores_and_thresholds(labels: list[str]) -> None:
    detector = fitted(labels=labels, variant="paper", quantile=0.8)
    residuals, is_target, rows = training_residuals(detector, labels)
    inverse = []
    for target in (False, True):
        mine = [row for v in rows if is_target[v] == target for row in residuals[v]]
        if mine:
            inverse.append(np.linalg.inv(np.cov(np.array(mine), rowvar=False)))

    def mahalanobis(found: np.ndarray) -> float:
        total = 0.0
        for vector in found:
            total += min(float(np.mean([row @ one @ row for row in vector])) for one in inverse)
        return total / len(found)

    queries = [clip[: 10 + i] for i, clip in enumerate(clips(6, 25, seed=5, shift=0.5))]
    scores = detector.scores(queries)
    expected = [residual_rows(detector, clip) for clip in queries]
    np.testing.assert_allclose(scores["mse"], [(one**2).mean() for one in expected], rtol=1e-5)
    np.testing.assert_allclose(scores["mahalanobis"], [mahalanobis(one) for one in expected], rtol=1e-4)
    for column, mode in enumerate(("mse", "mahalanobis")):
        normal = detector.scores(clips())[mode]  # type: ignore[index]
        wanted = stats.gamma.ppf(0.8, *stats.gamma.fit(normal))
        assert detector.thresholds_[column] == pytest.approx(wanted, rel=0.01)


def test_mode_chooses_score_and_threshold() -> None:
    detector = fitted(mode="mahalanobis")
    queries = clips(3, seed=4)
    np.testing.assert_array_equal(detector.score(queries), detector.scores(queries)["mahalanobis"])
    assert detector.threshold == detector.thresholds_[1]
    assert fitted().threshold == detector.thresholds_[0]


@pytest.mark.parametrize("variant", ["published", "paper"])
def test_anomalies_score_higher(variant: str) -> None:
    detector = fitted(variant=variant, epochs=10)
    normal, odd = detector.scores(clips(10, seed=1)), detector.scores(clips(10, seed=1, shift=4))
    for mode in ("mse", "mahalanobis"):
        assert np.median(odd[mode]) > np.median(normal[mode])  # type: ignore[index]


def test_a_clips_score_does_not_depend_on_its_company() -> None:
    detector = fitted(mode="mahalanobis")
    queries = clips(8, seed=1)
    alone = [detector.score(clip[None])[0] for clip in queries]
    np.testing.assert_array_equal(detector.score(queries), alone)
    np.testing.assert_array_equal(detector.score(list(queries[::-1])), alone[::-1])
    assert detector.score([]).shape == (0,)


def test_a_restored_detector_scores_to_the_last_bit() -> None:
    detector = fitted(mode="mahalanobis")
    state = {name: value.copy() for name, value in detector.state().items()}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    other = Reconstruction(**detector.get_params()).restored(state)
    assert torch.equal(torch.get_rng_state(), before)
    queries = clips(5, seed=1)
    np.testing.assert_array_equal(other.score(queries), detector.score(queries))
    assert other.threshold == detector.threshold
    assert other.state().keys() == state.keys()


def test_a_domain_too_small_for_a_covariance_is_judged_by_the_other() -> None:
    detector = Reconstruction(**SMALL).fit([*clips(), clips(1, 5, seed=8)[0]], ["source"] * 20 + ["target"])
    assert detector.precision_.shape == (1, BANDS, BANDS)


def test_the_threshold_of_scores_that_are_all_alike() -> None:
    assert gamma_threshold(np.full(5, 2.0), 0.9) == 2.0


# Errors


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no clips"),
        ([clips(1)[0], clips(1, 4)[0]], "clip 1 has 4 frames; 5 are needed"),
        ([clips(1)[0], np.full((9, BANDS), np.nan)], "clip 1 is not finite"),
        ([clips(1)[0], clips(1)[0, :, 1:]], "clip 1: expected"),
        ([clips(1)], "clip 0: expected"),
        ([clips(1, 6)[0]], "too few to train on"),
        (np.ones((4, 30, BANDS), np.float32), "too few or silent"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(frames: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reconstruction(**SMALL).fit(frames)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="not fitted"):
        Reconstruction().score(clips(1))
    detector = fitted()
    for frames, message in (
        ([clips(1, 4)[0]], "5 are needed"),
        ([np.full((9, BANDS), np.inf)], "not finite"),
        ([np.zeros((9, BANDS + 1))], "expected"),
    ):
        with pytest.raises(ValueError, match=message):
            detector.score(frames)
    with pytest.raises(ValueError, match="as many domains"):
        Reconstruction(**SMALL).fit(clips(), ["source"])


@pytest.mark.parametrize(
    "parameters",
    [
        {"mode": "mean"},
        {"variant": "code"},
        {"epochs": 0},
        {"batch": 1},
        {"learning_rate": 0},
        {"quantile": 1},
        {"seed": -1},
    ],
)
def test_parameters_are_checked(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Reconstruction(**parameters)
