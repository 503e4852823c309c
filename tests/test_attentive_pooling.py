"""Attentive statistics pooling against a slow restatement, and that padding is never heard."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from harken.training.attentive_pooling import AttentiveStatisticsPooling  # noqa: E402

LENGTHS = (9, 1, 5)


def built(context: bool = True, seed: int = 0) -> AttentiveStatisticsPooling:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AttentiveStatisticsPooling(4, bottleneck=6, context=context)


def frames(seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(3, 9, 4)).astype(np.float32))


def slow(pooling: AttentiveStatisticsPooling, x_TD: np.ndarray) -> np.ndarray:
    """One clip, frame by frame and dimension by dimension."""
    first, second = pooling.attention[0], pooling.attention[3]
    w, b, v, k = (p.detach().numpy().astype(float) for p in (first.weight, first.bias, second.weight, second.bias))
    mean, std = x_TD.mean(axis=0), np.sqrt(x_TD.var(axis=0) + 1e-6)
    logits = []
    for x in x_TD:
        if pooling.context:
            logits.append(v @ np.tanh(np.maximum(w @ np.concatenate([x, mean, std]) + b, 0)) + k)
        else:
            logits.append(np.repeat(v @ np.tanh(w @ x + b) + k, x_TD.shape[1]))
    pooled = np.empty((2, x_TD.shape[1]))
    for d in range(x_TD.shape[1]):
        powers = np.exp([logit[d] for logit in logits])
        weights = powers / powers.sum()
        pooled[0, d] = sum(weight * x[d] for weight, x in zip(weights, x_TD, strict=True))
        second_moment = sum(weight * x[d] ** 2 for weight, x in zip(weights, x_TD, strict=True))
        pooled[1, d] = np.sqrt(max(second_moment - pooled[0, d] ** 2, 0) + 1e-6)
    return pooled.ravel()


@pytest.mark.parametrize("context", [True, False])
def test_it_is_its_equation(context: bool) -> None:
    pooling = built(context)
    found = pooling(frames(), torch.tensor(LENGTHS)).detach().numpy()
    assert found.shape == (3, pooling.output_dimensions)
    for row, clip, length in zip(found, frames().numpy().astype(float), LENGTHS, strict=True):
        np.testing.assert_allclose(row, slow(pooling, clip[:length]), atol=1e-5)


@pytest.mark.parametrize("padding", [0.0, 1e9, float("nan"), float("inf")])
def test_padding_is_not_heard(padding: float) -> None:
    pooling, clips = built(), frames()
    expected = pooling(clips, torch.tensor(LENGTHS))
    for row, length in enumerate(LENGTHS):
        clips[row, length:] = padding
        torch.testing.assert_close(pooling(clips[row : row + 1, :length]), expected[row : row + 1])
    torch.testing.assert_close(pooling(clips, torch.tensor(LENGTHS)), expected, rtol=0, atol=0)


def test_padding_has_no_gradient_and_frames_have_a_finite_one() -> None:
    clips = frames().requires_grad_()
    pooling = built()
    pooling(clips, torch.tensor(LENGTHS)).sum().backward()
    for row, length in enumerate(LENGTHS):
        assert clips.grad is not None
        assert not clips.grad[row, length:].any()
        assert torch.isfinite(clips.grad[row]).all()
        assert clips.grad[row, :length].any()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in pooling.parameters())


def test_frames_that_are_all_alike_are_their_own_mean() -> None:
    clip = frames()[:1, :1].expand(1, 7, 4)
    found = built()(clip).detach()
    torch.testing.assert_close(found[0, :4], clip[0, 0])
    assert float(found[0, 4:].max()) < 2e-3


def test_the_order_of_frames_does_not_matter() -> None:
    clips = frames()
    torch.testing.assert_close(built()(clips.flip(1)), built()(clips))


@pytest.mark.parametrize("lengths", [(0, 1, 1), (10, 1, 1)])
def test_impossible_input_is_refused(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="lengths"):
        built()(frames(), torch.tensor(lengths))
    with pytest.raises(ValueError, match="expected"):
        built()(frames()[:, :, :3])
    with pytest.raises(ValueError, match="bottleneck"):
        AttentiveStatisticsPooling(4, bottleneck=0)


def test_batch_norm_is_of_valid_frames() -> None:
    """Between relu and tanh, by statistics of the batch's valid frames in training, by running ones afterwards."""
    torch.manual_seed(0)
    pooling = AttentiveStatisticsPooling(4, bottleneck=6, batch_norm=True)
    clips, lengths = frames(), torch.tensor(LENGTHS)
    pooling.train()
    trained = pooling(clips, lengths)
    noisy = clips.clone()
    for row, length in enumerate(LENGTHS):
        noisy[row, length:] = float("nan")
    torch.testing.assert_close(pooling(noisy, lengths), trained)
    # By definition, on the frames of the one clip without padding.
    plain = built()
    plain.attention.load_state_dict(pooling.attention.state_dict())
    with torch.no_grad():
        whole = clips[:1]
        mean, std = whole.mean(dim=1, keepdim=True), torch.sqrt(whole.var(dim=1, correction=0, keepdim=True) + 1e-6)
        inputs = torch.cat([whole, mean.expand_as(whole), std.expand_as(whole)], dim=2)
        hidden = torch.relu(pooling.attention[0](inputs))[0]
        normal = (hidden - hidden.mean(dim=0)) / torch.sqrt(hidden.var(dim=0, correction=0) + 1e-5)
        weights = torch.softmax(pooling.attention[3](torch.tanh(normal)), dim=0)
        expected = (weights * whole[0]).sum(dim=0)
        torch.testing.assert_close(pooling(whole)[0, :4], expected, atol=1e-5, rtol=1e-5)
    pooling.eval()
    together = pooling(clips, lengths)
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(pooling(clips[row : row + 1, :length]), together[row : row + 1])
