"""Losses against pytorch-metric-learning and slow restatements, and that nothing makes them not finite."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harken.core.errors import HarkenError
from harken.training.losses import create_loss, list_losses

torch = pytest.importorskip("torch")

from harken.training.losses.adaproj import AdaProj  # noqa: E402
from harken.training.losses.adaptive_prototype import AdaptivePrototype  # noqa: E402
from harken.training.losses.adaptive_scale import SCALE_RANGE  # noqa: E402
from harken.training.losses.arcface import ArcFace, with_margin  # noqa: E402
from harken.training.losses.base import ClassLoss  # noqa: E402
from harken.training.losses.scadacos import SCAdaCos  # noqa: E402
from harken.training.losses.subcentre_arcface import SubcentreArcFace  # noqa: E402

SOFT = ("adaproj", "scadacos")
SMALL: dict[str, dict[str, Any]] = {
    "adaproj": {"subspace": 3, "trainable": True},
    "adaptive_prototype": {"attribute_free": (1, 3), "prototypes": 3},
    "arcface": {},
    "scadacos": {"subclusters": 3},
    "subcentre_arcface": {"attribute_free": (1, 3), "subcentres": 3},
}


def small(name: str, dim: int = 5, classes: int = 4, **changes: Any) -> ClassLoss:
    return create_loss(name, {"dim": dim, "classes": classes} | SMALL[name] | changes)


def batch(size: int = 7, dim: int = 5, classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(size, dim))), torch.from_numpy(rng.integers(0, classes, size))


def mixed(target: torch.Tensor, classes: int = 4, seed: int = 0) -> torch.Tensor:
    """Shares of mixed-up clips; the first clip is not mixed."""
    one_hot = torch.nn.functional.one_hot(target, classes).double()
    share = torch.from_numpy(np.random.default_rng(seed).uniform(size=(len(target), 1)))
    share[0] = 1
    return share * one_hot + (1 - share) * one_hot.flip(0)


def directions(loss: ClassLoss) -> np.ndarray:
    w = loss.centres.detach().double().numpy()  # type: ignore[operator, union-attr]
    return w / np.linalg.norm(w, axis=1, keepdims=True)


# --- all of them


def test_losses_are_registered() -> None:
    assert set(list_losses()) == set(SMALL)
    for name in list_losses():
        assert isinstance(small(name), ClassLoss)


def test_impossible_requests_name_what_to_do() -> None:
    with pytest.raises(HarkenError, match="Did you mean arcface"):
        create_loss("arcfase", {})
    with pytest.raises(HarkenError, match="There are: adaproj"):
        create_loss("?", {})
    with pytest.raises(HarkenError, match=r"no parameter 'margim'.*Did you mean margin"):
        create_loss("arcface", {"dim": 2, "classes": 2, "margim": 1})
    with pytest.raises(HarkenError, match="needs the parameter 'classes'"):
        create_loss("arcface", {"dim": 2})


@pytest.mark.parametrize(
    ("name", "changes"),
    [(name, bad) for name in sorted(SMALL) for bad in ({"dim": 0}, {"classes": 1}, {"scale": 0.0}, {"scale": math.inf})]
    + [(name, {"margin": -0.1}) for name in ("arcface", "subcentre_arcface", "adaptive_prototype")]
    + [
        ("adaproj", {"subspace": 0}),
        ("scadacos", {"subclusters": 0}),
        ("subcentre_arcface", {"subcentres": 0}),
        ("subcentre_arcface", {"attribute_free": (4,)}),
        ("adaptive_prototype", {"attribute_free": (-1,)}),
        ("adaptive_prototype", {"prototypes": 0}),
        ("adaptive_prototype", {"commitment": -1.0}),
    ],
)
def test_values_that_make_no_loss_are_refused(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        small(name, **changes)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_impossible_batches_are_refused(name: str) -> None:
    loss = small(name)
    x, y = batch()
    for bad in (x[:, :4], x[0], x[:0]):
        with pytest.raises(ValueError, match="expected embeddings"):
            loss(bad, y)
        with pytest.raises(ValueError, match="expected embeddings"):
            loss.logits(bad)
    with pytest.raises(ValueError, match="expected targets"):
        loss(x, y[:3])
    for bad_class in (-1, 4):
        with pytest.raises(ValueError, match="classes are 0 to 3"):
            loss(x, torch.full_like(y, bad_class))
    with pytest.raises(ValueError, match="expected targets" if name in SOFT else "needs class indices"):
        loss(x, torch.ones(7, 3))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_contract(name: str) -> None:
    loss = small(name).eval()
    x, y = batch()
    found = loss(x.float(), y)
    assert found.shape == ()
    assert found.dtype == torch.float32
    assert loss.logits(x.float()).shape == (7, 4)
    # Neither the length of an embedding nor the company of others matters.
    torch.testing.assert_close(loss.logits(100 * x), loss.logits(x))
    torch.testing.assert_close(loss.logits(x)[2:3], loss.logits(x[2:3]))
    torch.testing.assert_close(loss(x, y), torch.stack([loss(x[i : i + 1], y[i : i + 1]) for i in range(7)]).mean())
    # Centres are those of the seed, whatever was drawn before.
    torch.rand(3)
    again = small(name)
    assert all(torch.equal(a, b) for a, b in zip(loss.state_dict().values(), again.state_dict().values(), strict=True))
    other = small(name, seed=1)
    assert not torch.equal(loss.centres, other.centres)  # type: ignore[arg-type]
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(other.eval()(x, y), loss(x, y), rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_classifier_learns(name: str) -> None:
    """Points of four classes on a sphere, moved by the gradient of the loss."""
    loss = small(name, dim=8)
    y = torch.arange(4).repeat(6)
    x = torch.randn(24, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimiser = torch.optim.Adam([x, *loss.parameters()], lr=0.1)
    for _ in range(40):
        optimiser.zero_grad()
        value = loss(x, y)
        value.backward()
        optimiser.step()
    assert (loss.logits(x).argmax(dim=1) == y).all()


def extremes(loss: ClassLoss) -> torch.Tensor:
    """Every centre (and prototype), its opposite, nearly either, the tiniest, the longest and no vector."""
    own = [value.detach().float() for value in loss.parameters()]
    centres = torch.cat(own)
    dim = centres.shape[1]
    odd = torch.stack([torch.zeros(dim), torch.full((dim,), 1e-30), torch.full((dim,), 1e8), torch.eye(dim)[0] * 1e-4])
    return torch.cat([centres, -centres, centres + 1e-4, 1e-3 - centres, odd])


@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("orthogonal", [False, True])
def test_gradients_are_finite_everywhere(name: str, dtype: torch.dtype, orthogonal: bool) -> None:
    """orthogonal: centres along the axes, so that cosines are exactly 0 and 1."""
    loss = small(name, dim=12)
    if orthogonal:
        with torch.no_grad():
            for value in loss.parameters():
                value.copy_(torch.eye(12)[torch.arange(len(value)) % 12])
    if dtype == torch.float64:
        loss.double()
    x = extremes(loss).to(dtype).requires_grad_()
    for label in range(4):
        y = torch.full((len(x),), label)
        value = loss(x, y)
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.isfinite(value)
        x.grad = None
        loss.zero_grad()
        value.backward()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()
        assert not x.grad[-4].any()  # of the zero vector
        assert all(torch.isfinite(parameter.grad).all() for parameter in loss.parameters())
    assert torch.isfinite(loss.logits(x)).all()


@pytest.mark.parametrize("name", sorted(SMALL))
def test_what_is_not_a_number_is_not_hidden(name: str) -> None:
    x, y = batch()
    x[3, 2] = math.nan
    assert small(name).eval()(x, y).isnan()


@pytest.mark.parametrize("name", sorted(SMALL))
def test_autocast_and_half_precision_change_the_input_only(name: str) -> None:
    loss = small(name).eval()
    x, y = batch()
    half = x.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, logits = loss(half, y), loss.logits(half)
    torch.testing.assert_close(found, loss(half.float(), y), rtol=0, atol=0)
    torch.testing.assert_close(logits, loss.logits(half.float()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "soft"),
    [(name, False) for name in sorted(SMALL) if name != "adaptive_prototype"] + [(name, True) for name in SOFT],
)
def test_gradients_are_those_of_the_value(name: str, soft: bool) -> None:
    loss = small(name).double().eval()
    x, y = batch(4)
    target = mixed(y) if soft else y
    names = [key for key, _ in loss.named_parameters()]

    def value(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        told = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(loss, told, (x, target))

    parameters = [parameter.detach().clone().requires_grad_() for parameter in loss.parameters()]
    assert torch.autograd.gradcheck(value, (x.requires_grad_(), *parameters))


@pytest.mark.parametrize("name", SOFT)
def test_shares_of_one_class_are_its_index(name: str) -> None:
    x, y = batch()
    shares = torch.nn.functional.one_hot(y, 4)
    hard, soft = small(name), small(name)
    for _ in range(2):
        torch.testing.assert_close(hard(x, y), soft(x, shares.float()))
    torch.testing.assert_close(hard.scale, soft.scale)


# --- ArcFace and sub-centres


def metric_learning() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pytorch_metric_learning.losses")


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    margin=st.sampled_from([0.0, 0.2, 0.5, 1.5]),
    scale=st.sampled_from([1.0, 30.0, 64.0]),
    subcentres=st.sampled_from([1, 3]),
)
def test_arcface_equals_pytorch_metric_learning(seed: int, margin: float, scale: float, subcentres: int) -> None:
    """Values and gradients of the embeddings; angles reach from 0 to pi in two dimensions."""
    pml = metric_learning()
    dim = 2 if seed % 2 else 6
    x, y = batch(16, dim, 4, seed)
    settings_ = {"num_classes": 4, "embedding_size": dim, "margin": math.degrees(margin), "scale": scale}
    if subcentres == 1:
        ours: ClassLoss = ArcFace(dim, 4, scale, margin, seed)
        theirs = pml.ArcFaceLoss(**settings_)
    else:
        ours = SubcentreArcFace(dim, 4, None, subcentres, scale, margin, seed)
        theirs = pml.SubCenterArcFaceLoss(**settings_, sub_centers=subcentres)
    ours.double()
    theirs.W.data = ours.centres.detach().T.clone()  # type: ignore[operator, union-attr]
    found, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours_value, theirs_value = ours(found, y), theirs(expected, y)
    torch.testing.assert_close(ours_value, theirs_value, rtol=1e-6, atol=1e-6)
    ours_value.backward()
    theirs_value.backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.logits(x), theirs.get_logits(x), rtol=1e-6, atol=1e-6)


def test_in_single_precision_too() -> None:
    pml = metric_learning()
    x, y = batch()
    ours = ArcFace(5, 4)
    theirs = pml.ArcFaceLoss(num_classes=4, embedding_size=5, margin=math.degrees(0.2), scale=30)
    theirs.W.data = ours.centres.detach().T.clone()
    torch.testing.assert_close(ours(x.float(), y), theirs(x.float(), y), rtol=1e-6, atol=1e-6)


def test_the_margin_falls_all_the_way_but_for_its_jump() -> None:
    angle = torch.linspace(0, math.pi, 1001, dtype=torch.float64)
    found = with_margin(torch.cos(angle), 0.2)
    regular = angle <= math.pi - 0.2
    torch.testing.assert_close(found[regular], torch.cos(angle[regular] + 0.2), rtol=0, atol=1e-7)
    for part in (found[regular], found[~regular]):
        assert (part.diff() <= 0).all()


def test_one_subcentre_is_arcface() -> None:
    x, y = batch()
    plain = ArcFace(5, 4)
    for loss in (SubcentreArcFace(5, 4, subcentres=1), SubcentreArcFace(5, 4, attribute_free=())):
        torch.testing.assert_close(loss(x, y), plain(x, y), rtol=0, atol=0)
        torch.testing.assert_close(loss.logits(x), plain.logits(x), rtol=0, atol=0)


@pytest.mark.parametrize("free", [(), (0,), (1, 3), (3, 2), (0, 1, 2, 3)])
def test_ragged_subcentres_are_their_equation(free: tuple[int, ...]) -> None:
    loss = SubcentreArcFace(5, 4, free, 3).double()
    assert len(loss.centres) == 4 + 2 * len(free)
    x, y = batch()
    w, found = directions(loss), []
    nearest = loss.nearest(x)
    for row, (vector, label) in enumerate(zip(x.numpy(), y.tolist(), strict=True)):
        logits, start = [], 0
        for index in range(4):
            number = 3 if index in free else 1
            cosines = w[start : start + number] @ vector / np.linalg.norm(vector)
            assert nearest[row, index] == cosines.argmax()
            theta = math.acos(cosines.max())
            logits.append(30 * math.cos(theta + 0.2 * (index == label)))
            start += number
        found.append(np.logaddexp.reduce(logits) - logits[label])
    torch.testing.assert_close(loss(x, y).item(), float(np.mean(found)), rtol=1e-10, atol=1e-10)


# --- adaptive prototypes


def test_without_attribute_free_classes_it_is_arcface() -> None:
    x, y = batch()
    loss, plain = AdaptivePrototype(5, 4, ()), ArcFace(5, 4)
    torch.testing.assert_close(loss(x, y), plain(x, y), rtol=0, atol=0)
    assert loss.monitor() == {}
    assert loss.nearest(x, y).tolist() == [-1] * 7
    # Nor do clips of other classes meet the prototypes of those that have some.
    one = AdaptivePrototype(5, 4, (2,), prototypes=3)
    with torch.no_grad():
        one.centres.copy_(plain.centres)
    known = y != 2
    torch.testing.assert_close(one(x[known], y[known]), plain(x[known], y[known]))
    assert sum(one.monitor()[2].counts) == 0


def test_the_nearest_prototype_is_classified() -> None:
    """Value and gradient against their equation."""
    loss = AdaptivePrototype(5, 4, (1, 3), prototypes=3, commitment=0.7).double()
    x, y = batch(20)
    x.requires_grad_()
    unit = torch.nn.functional.normalize
    nearest = loss.nearest(x, y)
    p = unit(loss.prototypes.detach()).view(2, 3, 5)
    chosen = unit(x.detach()).clone()
    for row, label in enumerate(y.tolist()):
        if label in (1, 3):
            mine = p[(1, 3).index(label)]
            assert nearest[row] == (mine @ chosen[row]).argmax()
            chosen[row] = mine[nearest[row]]
    held = (unit(x.detach()) - chosen).square().sum(dim=1).mean()
    chosen.requires_grad_()
    plain = ArcFace(5, 4).double()
    with torch.no_grad():
        plain.centres.copy_(loss.centres)
    classified = plain(chosen, y)
    torch.testing.assert_close(loss(x, y), classified + 1.7 * held)
    # The embedding gets the gradient of its stand-in, and of the commitment.
    (stand_in,) = torch.autograd.grad(classified, chosen)
    (found,) = torch.autograd.grad(loss(x, y), x)
    surrogate = (unit(x) * stand_in).sum() + 0.7 * (unit(x) - chosen.detach()).square().sum(dim=1).mean()
    (expected,) = torch.autograd.grad(surrogate, x)
    torch.testing.assert_close(found, expected)


def test_prototypes_get_the_gradient_of_the_value_without_commitment() -> None:
    loss = AdaptivePrototype(5, 4, (1, 3), prototypes=2, commitment=0.0).double().eval()
    x, y = batch()
    start = loss.prototypes.detach().clone().requires_grad_()
    centres = loss.centres.detach().clone().requires_grad_()

    def value(prototypes: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(loss, {"prototypes": prototypes, "centres": centres}, (x, y))

    assert torch.autograd.gradcheck(value, (start, centres))


def test_the_monitor_sees_dead_and_collapsed_prototypes() -> None:
    loss = AdaptivePrototype(3, 2, (1,), prototypes=3)
    with torch.no_grad():
        loss.prototypes.copy_(torch.eye(3))
    assert loss.monitor()[1].perplexity == 0
    assert loss.monitor()[1].dead == 3
    x = torch.eye(3)[[0, 0, 1, 1, 2]]
    loss(x, torch.tensor([1, 1, 1, 1, 0]))
    use = loss.monitor()[1]
    assert use.counts == (2, 2, 0)
    assert use.dead == 1
    assert use.perplexity == pytest.approx(2)
    assert use.similarity == pytest.approx(0, abs=1e-6)
    loss.eval()(x, torch.ones(5, dtype=torch.int64))
    assert loss.monitor()[1].counts == (2, 2, 0)
    with torch.no_grad():
        loss.prototypes.copy_(torch.ones(3, 3))
    loss.reset_uses()
    assert loss.monitor()[1].counts == (0, 0, 0)
    assert loss.monitor()[1].similarity == pytest.approx(1)
    assert AdaptivePrototype(3, 2, (1,), prototypes=1).monitor()[1].similarity == 1


# --- SCAdaCos and AdaProj


def slow_scale(rows: list[list[float]], thetas: list[float]) -> float:
    """log of the mean over clips of the sum of exp(logit), over cos(median angle)."""
    mean = sum(sum(math.exp(logit) for logit in row) for row in rows) / len(rows)
    return math.log(mean) / math.cos(min(math.pi / 4, sorted(thetas)[(len(thetas) - 1) // 2]))


@pytest.mark.parametrize("subclusters", [1, 3])
@pytest.mark.parametrize("soft", [False, True])
def test_scadacos_is_its_equation(subclusters: int, soft: bool) -> None:
    loss = SCAdaCos(5, 4, subclusters).double()
    w = directions(loss).reshape(4, subclusters, 5)
    scale = math.sqrt(2) * math.log(4 * subclusters - 1)
    assert loss.scale.item() == pytest.approx(scale)
    scale = loss.scale.item()  # in single precision, until the first step
    for step in range(3):
        x, y = batch(seed=step)
        target = mixed(y, seed=step)
        shares = target.numpy() if soft else np.eye(4)[y]
        rows, thetas, everything = [], [], []
        for vector, share in zip(x.numpy(), shares, strict=True):
            cosines = [[float(w[c, k] @ vector / np.linalg.norm(vector)) for k in range(subclusters)] for c in range(4)]
            rows.append([scale * cosine for own in cosines for cosine in own])
            thetas.append(sum(share[c] * math.acos(cosine) for c in range(4) for cosine in cosines[c]))
            everything.append(cosines)
        scale = slow_scale(rows, thetas)
        losses = []
        for cosines, share in zip(everything, shares, strict=True):
            powers = [sum(math.exp(scale * cosine) for cosine in own) for own in cosines]
            losses.append(-sum(share[c] * math.log(powers[c] / sum(powers)) for c in range(4)))
        assert loss(x, target if soft else y).item() == pytest.approx(np.mean(losses), rel=1e-9)
        assert loss.scale.item() == pytest.approx(scale, rel=1e-9)


@pytest.mark.parametrize("subspace", [1, 3, 7])
@pytest.mark.parametrize("soft", [False, True])
def test_adaproj_is_its_equation(subspace: int, soft: bool) -> None:
    loss = AdaProj(5, 4, subspace).double()
    w = directions(loss).reshape(4, subspace, 5)
    scale = math.sqrt(2) * math.log(3)
    assert loss.scale.item() == pytest.approx(scale)
    scale = loss.scale.item()  # in single precision, until the first step
    for step in range(3):
        x, y = batch(seed=step)
        target = mixed(y, seed=step)
        shares = target.numpy() if soft else np.eye(4)[y]
        rows, thetas, everything = [], [], []
        for vector, share in zip(x.numpy(), shares, strict=True):
            vector = vector / np.linalg.norm(vector)
            cosines = []
            for c in range(4):
                projection = sum((vector @ w[c, k]) * w[c, k] for k in range(subspace))
                cosines.append(float(vector @ projection / np.linalg.norm(projection)))
            rows.append([0.0 if share[c] > 0 else scale * cosines[c] for c in range(4)])
            thetas.append(sum(share[c] * math.acos(min(cosines[c], 1.0)) for c in range(4)))
            everything.append(cosines)
        scale = slow_scale(rows, thetas)
        losses = []
        for cosines, share in zip(everything, shares, strict=True):
            powers = [math.exp(scale * cosine) for cosine in cosines]
            losses.append(-sum(share[c] * math.log(powers[c] / sum(powers)) for c in range(4)))
        assert loss(x, target if soft else y).item() == pytest.approx(np.mean(losses), rel=1e-9)
        assert loss.scale.item() == pytest.approx(scale, rel=1e-9)


def test_embeddings_within_a_subspace_of_orthogonal_vectors_are_at_their_class() -> None:
    loss = AdaProj(6, 2, subspace=2, dynamic=False, scale=7.0)
    with torch.no_grad():
        loss.centres.copy_(torch.eye(6)[:4])
    x = torch.tensor([[3.0, -4, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0]])
    torch.testing.assert_close(loss.logits(x), torch.tensor([[7.0, 0], [0, 7], [0, 0]]))


@pytest.mark.parametrize("name", SOFT)
def test_scales_and_centres_stay_where_they_are_told_to(name: str) -> None:
    x, y = batch()
    fixed = small(name, dynamic=False, scale=12)
    fixed(x, y)
    assert fixed.scale.item() == 12
    following = small(name)
    before = following.scale.item()
    following.eval()(x, y)
    assert following.scale.item() == before
    following.train()(x, y)
    assert following.scale.item() != before
    assert following.state_dict()["scale"].item() == following.scale.item()
    still = small(name, trainable=False)
    assert not any(parameter.requires_grad for parameter in still.parameters())
    x.requires_grad_()
    still(x, y).backward()
    assert x.grad is not None


@pytest.mark.parametrize("name", SOFT)
def test_scales_do_not_run_away(name: str) -> None:
    """Embeddings on their centres: the published rule of SCAdaCos would multiply its scale by sqrt(2) each step."""
    loss = small(name, classes=2)
    y = torch.tensor([0, 1])
    x = loss.centres.detach()[:: len(loss.centres) // 2]  # type: ignore[arg-type, index]
    for _ in range(60):
        assert torch.isfinite(loss(x, y))
        assert SCALE_RANGE[0] <= loss.scale.item() <= SCALE_RANGE[1]


def test_one_step_does_not_disturb_the_gradient_of_another() -> None:
    """As when the losses of several batches are added up before the gradient is taken."""
    loss = SCAdaCos(5, 4, 2)
    x, y = batch()
    x.requires_grad_()
    (loss(x, y) + loss(2 * x.flip(0), y)).backward()
    assert x.grad is not None
