"""Models to be trained: shapes, padding, what learns and what does not, adapters, state, the dual-branch CNN."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from harken.core.errors import WeightsError
from harken.encoders import tiny_config
from harken.encoders.beats import BEATs, BEATsNet
from harken.encoders.dual_branch import (
    BINS,
    HOP,
    N_FFT,
    POINTS,
    SAMPLE_RATE,
    TINY,
    DualBranch,
    MultiDimensionalAttention,
    full_spectrum,
)
from harken.encoders.eat import EAT, EATNet
from harken.encoders.torch_encoder import TorchEncoder
from harken.training.adapters import AdaptationModule, FreezeSchedule, add_lora
from harken.training.frames import masked_max, masked_mean
from harken.training.heads import PoolingHead
from harken.training.lora import add_lora_to, has_lora, merge_lora
from harken.training.losses import create_loss
from harken.training.models import ASDModel, ModelSpec, build_model

TRANSFORMERS = ("beats", "dasheng", "eat", "fisher")
ENCODERS = (*TRANSFORMERS, "dual_branch")
LORA = {"rank": 4}


def noise(clips: int, samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(seed))


def make(*branches: dict[str, Any], **fields: Any) -> ASDModel:
    tiny = [{"size": "tiny", **branch} for branch in branches]
    return build_model(ModelSpec.model_validate({"branches": tiny, **fields}))


def embed(model: ASDModel, wave_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
    with torch.inference_mode():
        return model(wave_BS, lengths_B).clone()


def step(model: ASDModel, wave_BS: Tensor, learning_rate: float = 0.01) -> None:
    """One step of training on two classes."""
    loss = create_loss("arcface", {"dim": model.embedding_dim, "classes": 2})
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=learning_rate)
    loss(model(wave_BS), torch.arange(len(wave_BS)) % 2).backward()
    optimiser.step()


def gradients(model: ASDModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


# ---------------------------------------------------------------------- heads


@pytest.mark.parametrize("pooling", ["mean", "cls", "attentive"])
@pytest.mark.parametrize("join", ["mean", "concatenate"])
@pytest.mark.parametrize("dims", [(), (5,), (7, 5)])
def test_head_shapes(pooling: Any, join: Any, dims: tuple[int, ...]) -> None:
    head = PoolingHead(6, layers=3, pooling=pooling, join=join, dims=dims, cls_tokens=1, hidden=4)
    tokens = [torch.randn(2, 9, 6) for _ in range(3)]
    pooled = (18 if join == "concatenate" else 6) * (2 if pooling == "attentive" else 1)
    assert head.output_dimensions == (dims[-1] if dims else pooled)
    assert head(tokens, torch.tensor([9, 2])).shape == (2, head.output_dimensions)
    assert sum(isinstance(module, nn.Linear) for module in head.dense) == len(dims)


def test_head_by_definition() -> None:
    one, two = torch.randn(2, 9, 6), torch.randn(2, 9, 6)
    valid_B = torch.tensor([9, 4])
    concatenated = torch.stack(
        [torch.cat([layer[b, 1:n].mean(0) for layer in (one, two)]) for b, n in ((0, 9), (1, 4))]
    )
    torch.testing.assert_close(PoolingHead(6, layers=2, cls_tokens=1)((one, two), valid_B), concatenated)
    mean = PoolingHead(6, layers=2, cls_tokens=1, join="mean")((one, two), valid_B)
    torch.testing.assert_close(mean, (concatenated[:, :6] + concatenated[:, 6:]) / 2)
    assert torch.equal(PoolingHead(6, pooling="cls", cls_tokens=1)([one], valid_B), one[:, 0])


@pytest.mark.parametrize("kind", ["mean", "attentive", "adaptation"])
def test_head_does_not_see_padding(kind: Any) -> None:
    torch.manual_seed(0)
    adaptation = kind == "adaptation"
    head = AdaptationModule(6, layers=2) if adaptation else PoolingHead(6, layers=2, pooling=kind, dims=[5])
    tokens = [torch.randn(2, 9, 6) for _ in range(2)]
    padded = [layer.clone() for layer in tokens]
    for layer in padded:
        layer[1, 5:] = torch.nan
    found = head(padded, torch.tensor([9, 5]))
    torch.testing.assert_close(found[:1], head([layer[:1] for layer in tokens]))
    torch.testing.assert_close(found[1:], head([layer[1:, :5] for layer in tokens]))
    found.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters() if parameter.grad is not None)


def test_masked_statistics() -> None:
    x = torch.tensor([[[1.0], [3.0], [9.0]], [[-1.0], [-3.0], [-9.0]]])
    assert masked_mean(x, torch.tensor([2, 3])).flatten().tolist() == pytest.approx([2.0, -13 / 3])
    assert masked_max(x, torch.tensor([2, 3])).flatten().tolist() == [3.0, -1.0]
    with pytest.raises(ValueError, match="1 to 3"):
        masked_mean(x, torch.tensor([0, 3]))


def test_heads_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="class token"):
        PoolingHead(6, pooling="cls")
    with pytest.raises(ValueError, match="two dense"):
        PoolingHead(6, dims=(3, 3, 3))
    with pytest.raises(ValueError, match="2 layers"):
        PoolingHead(6, layers=2)([torch.zeros(1, 2, 6)])


# --------------------------------------------------------------------- models


@pytest.mark.parametrize("encoder", ENCODERS)
def test_padding_changes_nothing(encoder: str) -> None:
    model = make({"encoder": encoder, "head": {"dims": [8]}})
    wave = noise(3, 31_000)
    lengths = torch.tensor([24_000, 31_000, 8_123])
    together = embed(model, wave, lengths)
    assert together.shape == (3, model.embedding_dim)
    assert model.embedding_dim == (8 if encoder != "dual_branch" else 16)
    for clip, length in enumerate(lengths.tolist()):
        alone = embed(model, wave[clip : clip + 1, :length])
        torch.testing.assert_close(together[clip : clip + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("branch", "width"),
    [
        ({"encoder": "beats", "head": {"kind": "attentive", "dims": [16, 8], "hidden": 4}}, 8),
        ({"encoder": "beats", "layers": 3, "head": {"join": "mean"}}, 96),
        ({"encoder": "beats", "layers": 2, "head": {"kind": "adaptation", "hidden": 12}}, 12),
        ({"encoder": "eat", "layers": 3, "head": {"kind": "cls"}}, 3 * 96),
        ({"encoder": "eat", "layers": ["target_2"], "head": {"kind": "cls", "dims": [8]}}, 8),
        ({"encoder": "fisher", "head": {"kind": "cls"}}, 2 * 96),
        ({"encoder": "dasheng", "layers": 2, "head": {"kind": "adaptation", "dims": [8]}}, 8),
        ({"encoder": "dual_branch", "layers": ["both"], "config": {"attention": True}}, 32),
    ],
)
def test_every_kind_of_branch(branch: dict[str, Any], width: int) -> None:
    model = make(branch, seed=3)
    wave = noise(2, SAMPLE_RATE)
    found = embed(model, wave)
    assert found.shape == (2, width) == (2, model.embedding_dim)
    assert torch.isfinite(found).all()
    # All of it is decided by the spec, and the global generator is left alone.
    before = torch.get_rng_state()
    assert torch.equal(embed(make(branch, seed=3), wave), found)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(embed(make(branch, seed=4), wave), found)


def test_dashengs_last_layer_is_its_norm() -> None:
    assert make({"encoder": "dasheng", "layers": 2})._parts().__next__().reads == (("block_2", "norm"),)


def test_two_encoders_side_by_side() -> None:
    beats, eat = ({"encoder": name, "head": {"dims": [size]}} for name, size in (("beats", 8), ("eat", 6)))
    model = make(beats, eat, joint=[5])
    wave = noise(2, SAMPLE_RATE)
    parts = model.branches(wave)
    assert tuple(part.shape[1] for part in parts) == model.branch_dims == (8, 6)
    assert model.embedding_dim == 5
    torch.testing.assert_close(model.join(parts), model(wave))
    # FeatEx: one branch of another clip.
    exchanged = model.join([parts[0], parts[1].flip(0)])
    assert exchanged.shape == (2, 5)
    assert not torch.equal(exchanged, model.join(parts))
    plain = make(beats, eat)
    torch.testing.assert_close(plain(wave), torch.cat(plain.branches(wave), dim=1))
    # Branches do not share what they draw.
    twice = make(beats, beats)
    assert not torch.equal(*twice.branches(wave))


def test_specs_that_cannot_be() -> None:
    for wrong in (
        {"encoder": "beats", "frozen": True, "adapter": LORA},
        {"encoder": "beats", "size": "tiny", "weights": "somewhere"},
        {"encoder": "beats", "head": {"dims": [1, 2, 3]}},
        {"encoder": "spectrall"},
        {"encoder": "beats", "layers": 0},
    ):
        with pytest.raises(ValidationError):
            ModelSpec.model_validate({"branches": [wrong]})
    with pytest.raises(ValueError, match="its head is mean"):
        make({"encoder": "dual_branch", "head": {"kind": "attentive"}})
    with pytest.raises(ValueError, match="no network"):
        build_model(ModelSpec.model_validate({"branches": [{"encoder": "spectral"}]}))
    with pytest.raises(ValueError, match="no layer block_9"):
        make({"encoder": "beats", "layers": ["block_9"]})
    with pytest.raises(ValueError, match="3 blocks"):
        make({"encoder": "beats", "layers": 4})
    with pytest.raises(ValueError, match="class token"):
        make({"encoder": "beats", "head": {"kind": "cls"}})
    with pytest.raises(ValueError, match="sampling rates"):
        make({"encoder": "beats"}, {"encoder": "fisher", "config": {"sample_rate": 48_000}})
    with pytest.raises(ValueError, match="samples or more"):
        make({"encoder": "beats"})(noise(2, SAMPLE_RATE), torch.tensor([SAMPLE_RATE, 100]))
    spec = ModelSpec.model_validate({"branches": [{"encoder": "eat", "adapter": LORA, "layers": ["block_1"]}]})
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec


def test_weights_of_a_file(tmp_path: Path) -> None:
    tiny = make({"encoder": "beats"})
    save_file({name: np.array(a) for name, a in tiny.encoders[0].weights().items()}, tmp_path / "beats.safetensors")
    model = build_model(
        ModelSpec.model_validate({"branches": [{"encoder": "beats", "weights": str(tmp_path / "beats.safetensors")}]})
    )
    wave = noise(1, SAMPLE_RATE)
    assert torch.equal(embed(model, wave), embed(tiny, wave))


# ------------------------------------------------------------------ what learns


@pytest.mark.parametrize("encoder", ENCODERS)
def test_everything_learns(encoder: str) -> None:
    model = make({"encoder": encoder, "head": {"dims": [8]}}).train()
    step(model, noise(4, SAMPLE_RATE))
    assert gradients(model) == {name for name, _ in model.named_parameters()}
    counts = model.parameter_counts()
    assert counts.total == counts.trainable > 10_000


@pytest.mark.parametrize("encoder", TRANSFORMERS)
def test_only_adapters_and_head_learn(encoder: str) -> None:
    model = make({"encoder": encoder, "adapter": LORA, "head": {"dims": [8]}}).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step(model, noise(4, SAMPLE_RATE))
    step(model, noise(4, SAMPLE_RATE))
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    expected = {name for name in before if ".lora_" in name or ".heads." in name}
    assert moved == gradients(model) == expected
    assert model.parameter_counts().trainable == sum(before[name].numel() for name in expected)
    assert set(model.state()) == expected


def test_frozen_encoder() -> None:
    model = make({"encoder": "dasheng", "frozen": True, "head": {"kind": "adaptation", "dims": [8]}}).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step(model, noise(4, SAMPLE_RATE))
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    # Its batch norm stays as it is, statistics included.
    assert moved == set(model.state()) == {name for name in before if ".heads." in name}


def test_freeze_schedule() -> None:
    model = make({"encoder": "dasheng", "layers": 2, "head": {"kind": "adaptation", "dims": [8]}}).train()
    schedule = FreezeSchedule()
    total, all_of_it = model.parameter_counts()
    assert total == all_of_it
    wave = noise(4, SAMPLE_RATE)
    for epoch in (1, 2, 3, 4):
        schedule.apply(model, epoch)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        step(model, wave)
        model.zero_grad(set_to_none=True)
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert any(".net." in name for name in moved) == (epoch > 2)
        assert any(".heads." in name for name in moved)
        assert model.parameter_counts().trainable == (all_of_it if epoch > 2 else _size(model, ".heads."))
        # What is saved does not depend on what learns just now.
        assert len(model.state()) == len(model.state_dict())


def test_freeze_schedule_keeps_what_adapters_keep() -> None:
    model = make({"encoder": "eat", "adapter": LORA}).train()
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.set_encoders_learning(False)
    assert model.parameter_counts().trainable == 0
    model.set_encoders_learning(True)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == learns


def _size(model: ASDModel, part: str) -> int:
    return sum(parameter.numel() for name, parameter in model.named_parameters() if part in name)


# -------------------------------------------------------------------- adapters


@pytest.mark.parametrize("cls", [BEATs, EAT])
def test_lora_of_the_published_size(cls: type[TorchEncoder]) -> None:
    encoder = cls(**tiny_config(cls.name))  # type: ignore[call-arg]
    with torch.device("meta"):
        full = encoder.module = {"beats": BEATsNet, "eat": EATNet}[cls.name]()
        add_lora(encoder)
    learning = {name: parameter.numel() for name, parameter in full.named_parameters() if parameter.requires_grad}
    assert sum(learning.values()) == 3_538_944
    assert len(learning) == 2 * 3 * 12
    assert all(".lora_A." in name or ".lora_B." in name for name in learning)
    assert not any("k_proj" in name or "local_encoder" in name for name in learning)


@pytest.mark.parametrize("encoder", TRANSFORMERS)
def test_merged_adapters_are_plain_weights(encoder: str) -> None:
    branch = {"encoder": encoder, "head": {"dims": [8]}}
    wave = noise(2, SAMPLE_RATE)
    plain = make(branch)
    model = make({**branch, "adapter": LORA})
    # An adapter that has learnt nothing changes nothing; heads are drawn after adapters.
    torch.testing.assert_close(model.encoders[0].module(wave), plain.encoders[0].module(wave), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    adapted = embed(model, wave)
    copied = copy.deepcopy(model)
    model.merge_adapters()
    found = embed(model, wave)
    assert (found - adapted).abs().max() < 1e-6 * max(1.0, float(adapted.abs().max()))
    assert not any(has_lora(part.net) for part in model._parts())
    assert model.spec.branches[0].adapter is None
    # Its state is that of a plain model of the same layout, and so are its encoder's weights.
    again = build_model(model.spec).load_state(model.state())
    assert torch.equal(embed(again, wave), found)
    rebuilt = type(model.encoders[0])(model.encoders[0].weights(), **model.encoders[0].config())
    assert torch.equal(rebuilt.module(wave)[0], model.encoders[0].module(wave)[0])
    # The copy is a model of its own.
    assert torch.equal(embed(copied, wave), adapted)
    merge_lora(model.encoders[0].module)


def test_lora_by_definition() -> None:
    model = make({"encoder": "beats", "adapter": {"rank": 4, "alpha": 8.0}})
    plain = make({"encoder": "beats"})
    net: Any = model.encoders[0].module
    same: Any = plain.encoders[0].module
    layer, weight = net.encoder.layers[1].self_attn.q_proj, same.encoder.layers[1].self_attn.q_proj.weight
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_()
        update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        merge_lora(net)
    torch.testing.assert_close(net.encoder.layers[1].self_attn.q_proj.weight, weight + 2 * update)


@pytest.mark.parametrize(("alpha", "dropout", "dtype"), [(None, 0.0, torch.float32), (3.0, 0.25, torch.bfloat16)])
@pytest.mark.parametrize("targets", [r"(\d)\.(0|2)", ["1.0", "2"]])
def test_adapters_are_those_of_peft(
    targets: str | list[str], alpha: float | None, dropout: float, dtype: torch.dtype
) -> None:
    """The same initial values, names, outputs, gradients and merged weights, to the last bit."""
    peft = pytest.importorskip("peft")

    def network() -> nn.Module:
        torch.manual_seed(0)
        blocks = [nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 6, bias=False)) for _ in range(2)]
        return nn.Sequential(*blocks, nn.Linear(6, 6)).to(dtype)

    ours, theirs = network(), network()
    torch.manual_seed(7)
    add_lora_to(ours, targets, 4, alpha, dropout)
    torch.manual_seed(7)
    settings = peft.LoraConfig(r=4, lora_alpha=alpha or 4, lora_dropout=dropout, target_modules=targets)
    peft.inject_adapter_in_model(settings, theirs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    for net in (ours, theirs):
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if ".lora_B." in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
        torch.manual_seed(3)
        net.train()(x).square().sum().backward()
    pairs = list(zip(ours.named_parameters(), theirs.named_parameters(), strict=True))
    for (name, mine), (other_name, other) in pairs:
        assert (name, mine.requires_grad) == (other_name, other.requires_grad)
        assert torch.equal(mine, other)
        assert mine.grad is other.grad or torch.equal(mine.grad, other.grad)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    merge_lora(ours)
    assert not has_lora(ours)
    for layer in theirs.modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            layer.merge(safe_merge=True)
    assert torch.equal(ours(x), theirs(x))


def test_adapters_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="no layer"):
        add_lora_to(nn.Sequential(nn.ReLU()), ["1"], 4)
    with pytest.raises(ValueError, match="0 is no linear layer"):
        add_lora_to(nn.Sequential(nn.ReLU()), ["0"], 4)
    with pytest.raises(ValueError, match="no projections"):
        add_lora(DualBranch(**TINY))
    model = make({"encoder": "beats", "adapter": LORA})
    with pytest.raises(ValueError, match="already"):
        add_lora(model.encoders[0])


# ----------------------------------------------------------------------- state


@pytest.mark.parametrize(
    "branch",
    [
        {"encoder": "dual_branch"},
        {"encoder": "dasheng", "head": {"kind": "attentive", "hidden": 4, "dims": [8]}},
        {"encoder": "beats", "adapter": LORA, "head": {"dims": [8]}},
        {"encoder": "eat", "adapter": LORA, "head": {"kind": "cls", "dims": [8]}},
        {"encoder": "fisher", "frozen": True, "head": {"kind": "cls", "dims": [8]}},
    ],
    ids=lambda branch: branch["encoder"],
)
def test_state_is_saved_and_loaded_bitwise(branch: dict[str, Any], tmp_path: Path) -> None:
    model = make(branch).train()
    wave = noise(4, SAMPLE_RATE)
    fresh = embed(make(branch), wave)
    step(model, wave)
    model.eval()
    found = embed(model, wave)
    assert not torch.equal(found, fresh)
    for complete in (False, True):
        save_file(model.state(complete=complete), tmp_path / "model.safetensors")
        again = make(branch).load_state(load_file(tmp_path / "model.safetensors"))
        assert torch.equal(embed(again, wave), found)
    partial = "adapter" in branch or "frozen" in branch
    assert (len(model.state()) < len(model.state(complete=True))) == partial


def test_states_of_other_models_are_refused() -> None:
    model = make({"encoder": "beats", "adapter": LORA, "head": {"dims": [8]}})
    state = model.state()
    before = model.state(complete=True)
    name = next(iter(state))
    for wrong in (
        {key: array for key, array in state.items() if key != name},
        {**state, "other": np.zeros(1)},
        {**state, name: state[name][:1]},
        {**state, name: np.full_like(state[name], np.nan)},
    ):
        with pytest.raises(WeightsError):
            model.load_state(wrong)
    for key, array in model.state(complete=True).items():
        np.testing.assert_array_equal(array, before[key])


# ------------------------------------------------------------------ SpecAugment


@pytest.mark.parametrize("encoder", ENCODERS)
def test_spectrograms_change_in_training_only(encoder: str) -> None:
    model = make({"encoder": encoder})
    net: Any = model.encoders[0].module
    wave = noise(2, SAMPLE_RATE)
    plain = embed(model, wave)
    seen: list[tuple[int, ...]] = []

    def augment(x_BTF: Tensor) -> Tensor:
        seen.append(tuple(x_BTF.shape))
        return x_BTF.masked_fill(torch.arange(x_BTF.shape[2]) < x_BTF.shape[2] // 2, 0.0)

    model.spectrogram_augment = augment
    assert torch.equal(embed(model, wave), plain)
    encoded = model.encoders[0].encode(wave.numpy()).features_BLTD
    assert seen == []
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()  # so that the augmentation alone makes a difference
    assert not torch.allclose(embed(model, wave), plain)
    frames, bins = {
        "beats": (98, 128), "dasheng": (101, 64), "dual_branch": (30, 500), "eat": (256, 128), "fisher": (98, 201)
    }[encoder]  # fmt: skip
    assert seen == [(2, frames, bins)]
    # Nothing of it is left on the network, not even after an error.
    model.spectrogram_augment = lambda x_BTF: x_BTF[0, 0, 0, 0]
    with pytest.raises(IndexError):
        model(wave)
    assert not {"fbank", "spectrogram"} & set(vars(net))
    model.spectrogram_augment = None
    assert torch.equal(embed(model, wave), plain)
    np.testing.assert_array_equal(model.eval().encoders[0].encode(wave.numpy()).features_BLTD, encoded)


def test_gradients_pass_the_augmented_front_end() -> None:
    model = make({"encoder": "dual_branch"}).train()
    model.spectrogram_augment = lambda x_BTF: 0 * x_BTF
    step(model, noise(4, SAMPLE_RATE))
    net: Any = model.encoders[0].module
    assert net.spectrum.dense[1].weight.grad.abs().max() > 0
    # A spectrogram that is masked altogether teaches the first convolution nothing.
    assert net.stft.stem[0].weight.grad.abs().max() == 0


# ----------------------------------------------------------- dual-branch network


def test_dual_branch_layers() -> None:
    net = DualBranch(**TINY).module
    stft, both, spectrum = net(noise(2, SAMPLE_RATE), ("stft", "both", "spectrum"))
    assert stft.shape == spectrum.shape == (2, 1, 16)
    assert torch.equal(both, torch.cat([stft, spectrum], dim=2))
    with pytest.raises(ValueError, match="there are stft"):
        net(noise(2, SAMPLE_RATE), ("mel",))
    with pytest.raises(ValueError, match="without samples"):
        net(noise(2, SAMPLE_RATE), (), torch.tensor([SAMPLE_RATE, 0]))


def test_dual_branch_sizes_of_the_reports() -> None:
    shapes = DualBranch.tensor_shapes(seconds=18.0, low_hz=0.0)
    assert shapes["bin_norm.weight"] == (513,)
    assert shapes["spectrum.convolutions.0.weight"] == (128, 1, 256)
    # 144,000 bins, strides of 64, 32 and 4.
    assert shapes["spectrum.dense.1.weight"] == (128, 128 * 18)
    assert shapes["stft.head.2.weight"] == (128, 128 * 17)
    # 200 Hz to 8 kHz at 15.625 Hz a bin.
    assert DualBranch.tensor_shapes()["bin_norm.weight"] == (500,) == (BINS,)
    assert full_spectrum(torch.zeros(1, 10 * SAMPLE_RATE)).shape == (1, POINTS)


def test_dual_branch_front_ends_by_definition() -> None:
    net = DualBranch(**TINY).module.train()
    wave = noise(3, SAMPLE_RATE)
    frames = np.lib.stride_tricks.sliding_window_view(wave.numpy().astype(float), N_FFT, axis=1)[:, ::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    magnitude = np.abs(np.fft.rfft(frames * window))[:, :, 13:]
    centred = magnitude - magnitude.mean(axis=1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=(0, 1)) + net.bin_norm.eps)
    with torch.no_grad():
        found = net.spectrogram(wave).numpy()
        np.testing.assert_allclose(found, normal, atol=1e-3)
        # A tone that never changes is left to the other branch; without centring it is not.
        tone = torch.sin(2 * torch.pi * 1000 * torch.arange(SAMPLE_RATE) / SAMPLE_RATE)[None]
        net.eval()
        steady, net.centre = net.spectrogram(tone), False
        assert steady.abs().max() < 1e-3 * net.spectrogram(tone).abs().max()
        spectrum = np.abs(np.fft.rfft(wave.numpy().astype(float)))[:, : SAMPLE_RATE // 2] / np.sqrt(SAMPLE_RATE)
        np.testing.assert_allclose(full_spectrum(wave).numpy(), spectrum, atol=1e-5)


def test_bins_are_normalised_by_the_training_set() -> None:
    """Batches of different sizes and levels: after an epoch, mean and deviation are those of all frames together."""
    net = DualBranch(**TINY, centre=False).module.train()
    waves = [noise(count, SAMPLE_RATE, seed=count) * level + 0.1 for count, level in ((3, 1.0), (2, 20.0), (4, 0.1))]
    with torch.no_grad():
        for wave in waves:
            net.spectrogram(wave)
        net.eval()
        plain = DualBranch(**TINY, centre=False).module.eval()
        whole = (
            torch.cat([plain.spectrogram(wave).double() for wave in waves]) * plain.bin_norm.variance.add(1e-5).sqrt()
        )
        found = torch.cat([net.spectrogram(wave) for wave in waves])
    normal = (whole - whole.mean(dim=(0, 1))) / torch.sqrt(whole.var(dim=(0, 1), correction=0) + 1e-5)
    torch.testing.assert_close(found.double(), normal, atol=1e-4, rtol=1e-4)
    # What was counted is among the weights.
    encoder = DualBranch(**TINY, centre=False)
    encoder.module.load_state_dict(net.state_dict())
    again = DualBranch(encoder.weights(), **encoder.config())
    assert torch.equal(again.module.spectrogram(waves[0]), net.spectrogram(waves[0]))


def test_short_clips_are_repeated_and_long_ones_cut() -> None:
    encoder = DualBranch(**TINY)
    wave = noise(1, 10_000)
    twice = torch.cat([wave, wave], dim=1)[:, :SAMPLE_RATE]
    assert torch.equal(encoder.module(wave)[0], encoder.module(twice)[0])
    assert encoder.passes(SAMPLE_RATE + 1) == [(0, SAMPLE_RATE), (1, SAMPLE_RATE + 1)]
    long = noise(1, 40_000)
    found = encoder.encode(long.numpy())
    assert encoder.passes(40_000) == [(0, 16_000), (12_000, 28_000), (24_000, 40_000)]
    assert found.lengths_B.tolist() == [3]
    for frame, (start, stop) in enumerate(encoder.passes(40_000)):
        alone = encoder.encode(long[:, start:stop].numpy()).features_BLTD
        np.testing.assert_array_equal(found.features_BLTD[:, :, frame], alone[:, :, 0])


def test_dual_branch_is_rebuilt_from_its_weights() -> None:
    encoder = DualBranch(**TINY, attention=True, seed=2)
    again = DualBranch(encoder.weights(), **encoder.config())
    wave = noise(2, SAMPLE_RATE).numpy()
    np.testing.assert_array_equal(again.encode(wave).features_BLTD, encoder.encode(wave).features_BLTD)
    with pytest.raises(WeightsError):
        DualBranch({name: array for name, array in encoder.weights().items() if "bin_norm" not in name}, **TINY)
    for wrong in ({"low_hz": 9000.0}, {"channels": 0}, {"seconds": 0.1}):
        with pytest.raises(ValueError):
            DualBranch(**{**TINY, **wrong})


def test_multi_dimensional_attention() -> None:
    torch.manual_seed(0)
    attention = MultiDimensionalAttention(4, 12)
    x = torch.rand(2, 4, 40, 12)
    y = attention(x)
    gate = y / x
    assert y.shape == x.shape
    assert gate.min() > 0
    assert gate.max() < 1
    # A sum of three gates, each along one axis: mixed differences vanish.
    assert (gate[:, :, 1:, 1:] - gate[:, :, :-1, 1:] - gate[:, :, 1:, :-1] + gate[:, :, :-1, :-1]).abs().max() < 1e-5
    # What comes later is attended to later; channels and frequencies stay as they are.
    later = attention(x.roll(10, dims=2)).roll(-10, dims=2)
    torch.testing.assert_close(later[:, :, 5:25], y[:, :, 5:25])


@pytest.mark.parametrize("attention", [False, True])
def test_dual_branch_learns(attention: bool) -> None:
    """Which of two tones a noise hides, after a few steps."""
    torch.manual_seed(0)
    model = make({"encoder": "dual_branch", "config": {"attention": attention}}).train()
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    target = torch.arange(16) % 2
    # Tones that come and go: both branches hear them.
    tone = torch.sin(2 * torch.pi * (1000 + 1500 * target[:, None]) * time) * (1 + torch.sin(2 * torch.pi * 4 * time))
    wave = noise(16, SAMPLE_RATE) + 0.05 * tone
    loss = create_loss("arcface", {"dim": model.embedding_dim, "classes": 2})
    optimiser = torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=0.005)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        found = loss(model(wave), target)
        found.backward()
        optimiser.step()
        losses.append(found.item())
    assert losses[-1] < 0.2 * losses[0]
