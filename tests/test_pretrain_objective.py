"""EAT's pre-training objective: the reference's numbers of one step, inverse block masks, sub-bands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from harken.encoders.eat import EAT
from harken.encoders.fisher import FISHER, TINY
from harken.training.optimiser import adamw, correct_epsilon, parameter_groups, set_learning_rates
from harken.training.pretrain.decoder import PatchDecoder
from harken.training.pretrain.masks import Masks, as_masks, inverse_block_mask, kept_patches
from harken.training.pretrain.objective import PatchObjective, deviation, teacher_decay

IMAGE = "modality_encoders.IMAGE."
#: largest difference, in parts of the largest value
CLOSE = 1e-4


def our_name(name: str) -> str:
    return name.removeprefix(IMAGE).replace("context_encoder.norm", "pre_norm")


def assert_close(ours: Tensor, theirs: Tensor, name: str) -> None:
    assert ours.shape == theirs.shape, name
    assert float((ours.detach() - theirs).abs().max() / theirs.abs().max()) < CLOSE, name


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[dict[str, Any], dict[str, Tensor], PatchObjective]:
    """Settings and losses, tensors, and the objective before the step."""
    stem = shared / "golden" / "pretraining" / "eat_pretrain_seed11"
    numbers = json.loads(stem.with_suffix(".json").read_text())
    weights = load_file(f"{stem}_weights.safetensors")
    config = {"width": 48, "depth": 3, "heads": 4, "target_frames": 128}
    networks = []
    for role in ("student", "teacher"):
        tensors = {name.removeprefix(f"{role}."): x for name, x in weights.items() if name.startswith(role)}
        arrays = {our_name(name): x.numpy() for name, x in tensors.items() if "decoder" not in name}
        networks.append(EAT(arrays, **config).module)
    decoder = PatchDecoder(48, 8, layers=2, kernel=3, groups=16)
    prefix = f"student.{IMAGE}decoder."
    decoder.load_state_dict({name.removeprefix(prefix): x for name, x in weights.items() if name.startswith(prefix)})
    objective = PatchObjective(networks[0], decoder)
    objective.teacher.load_state_dict(networks[1].state_dict())
    return numbers, load_file(f"{stem}_io.safetensors"), objective


def test_a_step_equals_the_reference(golden: tuple[dict[str, Any], dict[str, Tensor], PatchObjective]) -> None:
    numbers, tensors, objective = golden
    with torch.no_grad():
        spectrogram = objective.student.spectrogram(tensors["waveform"])
    assert_close(spectrogram, tensors["spectrogram"][:, 0], "spectrogram")
    masks = Masks(tensors["mask"].bool(), tensors["ids_keep"], tensors["ids_restore"])
    objective.train()
    teacher_layers = objective.teacher.encode_patches(
        objective.teacher.embed(tensors["spectrogram"][:, 0]), [f"target_{number}" for number in (1, 2, 3)]
    )
    for number, layer in enumerate(teacher_layers):
        assert_close(layer[:, 1:], tensors["teacher_layers"][number], f"layer {number}")
    done = objective(tensors["spectrogram"][:, 0], masks, tensors["mask_tokens"])
    loss = done.loss
    assert_close(done.target_GND, tensors["target"], "target")
    assert_close(done.student_RKD, tensors["student_tokens"], "student tokens")
    assert_close(done.prediction_RND, tensors["decoder_output"], "decoder output")
    assert done.masked == numbers["sample_size"]
    assert done.regression.item() == pytest.approx(numbers["loss_regression_sum"], rel=1e-5)
    assert done.class_token.item() == pytest.approx(numbers["loss_cls_sum"], rel=1e-5)
    assert loss.item() == pytest.approx(numbers["loss_over_sample_size"], rel=1e-5)
    target = done.target_GND.repeat_interleave(4, dim=0)[masks.masked_RN]
    assert float(deviation(target)) == pytest.approx(numbers["target_var"], rel=1e-4)
    assert deviation(done.prediction_RND[masks.masked_RN]).item() == pytest.approx(numbers["pred_var"], rel=1e-4)

    loss.backward()
    names = {f"student.{name}": p for name, p in objective.student.named_parameters()}
    names |= {f"decoder.{name}": p for name, p in objective.decoder.named_parameters()}

    def parameter(name: str) -> torch.nn.Parameter:
        plain = our_name(name)
        return names[plain if plain.startswith("decoder.") else f"student.{plain}"]

    assert len(numbers["grad_norm_per_parameter"]) == len(names)
    for name, norm in numbers["grad_norm_per_parameter"].items():
        gradient = parameter(name).grad
        assert gradient is not None
        assert float(gradient.norm()) == pytest.approx(norm, rel=1e-4), name
    for name in tensors:
        if name.startswith("grad."):
            gradient = parameter(name.removeprefix("grad.")).grad
            assert gradient is not None
            assert_close(gradient, tensors[name], name)

    gradients = {id(p): p.grad.clone() for p in objective.learned_parameters() if p.grad is not None}
    learned = list(objective.learned_parameters())
    norm = torch.nn.utils.clip_grad_norm_(learned, numbers["clip_norm"])
    assert float(norm) == pytest.approx(numbers["grad_norm"], rel=1e-5)
    groups = parameter_groups(objective, learning_rate=numbers["lr"], weight_decay=0.05, layer_decay=1.0)
    optimiser = adamw(groups, betas=tuple(numbers["adam"]["betas"]))
    set_learning_rates(optimiser, 1.0)
    correct_epsilon(optimiser, 1)
    optimiser.step()
    decay = teacher_decay(1, first=numbers["ema_decay_start"], last=numbers["ema_decay_end"], steps=10)
    assert decay == pytest.approx(numbers["ema_decay_of_update_1"])
    objective.follow(decay)
    moved = {"student_after.": objective.student, "teacher_after.": objective.teacher}
    for name, theirs in tensors.items():
        for prefix, network in moved.items():
            if name.startswith(prefix):
                plain = our_name(name.removeprefix(prefix))
                ours = dict(network.named_parameters())[plain].detach()
                different = (ours - theirs).abs() / theirs.abs().max() >= CLOSE
                # Adam's first step is a gradient over its size: where that is rounding only, so is the step.
                gradient = gradients[id(dict(objective.student.named_parameters())[plain])]
                assert different.sum() <= 2, name
                assert (gradient[different].abs() < 5e-6).all(), name


# ------------------------------------------------------------ masks


@given(st.integers(2, 70), st.integers(2, 10), st.sampled_from([0.5, 0.75, 0.8, 0.9]), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_a_mask_keeps_exactly_as_many_patches_as_asked_for(steps: int, rows: int, masked: float, seed: int) -> None:
    mask = inverse_block_mask(steps, rows, np.random.default_rng(seed), masked=masked)
    assert mask.shape == (steps * rows,)
    assert (~mask).sum() == kept_patches(steps * rows, masked) == max(1, int(steps * rows * (1 - masked)))
    again = inverse_block_mask(steps, rows, np.random.default_rng(seed), masked=masked)
    np.testing.assert_array_equal(mask, again)
    masks = as_masks(np.stack([mask, again]))
    patches = torch.arange(steps * rows).expand(2, -1)
    # Patches that are seen, then those that are not, go back to their places.
    shuffled = torch.cat([masks.keep_RK, masks.masked_RN.nonzero()[:, 1].view(2, -1)], dim=1)
    assert torch.equal(shuffled.gather(1, masks.restore_RN), patches)
    assert not masks.masked_RN.gather(1, masks.keep_RK).any()


def test_what_is_kept_lies_in_blocks_anywhere_on_the_grid() -> None:
    rng = np.random.default_rng(0)
    kept = np.stack([~inverse_block_mask(64, 8, rng).reshape(64, 8) for _ in range(400)])
    # Every patch is seen sometimes; those at the border less often, as blocks around them are cut.
    assert kept.mean(axis=0).min() > 0.08
    assert kept.mean() == pytest.approx(102 / 512)
    neighbours = kept[:, :-1] & kept[:, 1:]
    chance = kept.mean() ** 2
    assert neighbours.mean() > 2.5 * chance
    assert len(np.unique(kept.reshape(400, -1), axis=0)) == 400


@pytest.mark.parametrize("wrong", [{"masked": 1.0}, {"masked": 0.0}, {"adjust": -0.1}, {"block": 4}])
def test_masks_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="cannot be masked"):
        inverse_block_mask(8, 8, np.random.default_rng(0), **wrong)  # type: ignore[arg-type]


# ------------------------------------------------------------ sub-bands


def test_sub_bands_are_sequences_of_their_own() -> None:
    """What the upper sub-band of a clip holds changes nothing of the lower one's target, tokens and prediction."""
    net = FISHER(**TINY, seed=1).module
    torch.manual_seed(0)
    objective = PatchObjective(net, PatchDecoder(96, net.patch_rows, layers=1)).eval()
    quiet = torch.randn(2, 64, 201)
    changed = quiet.clone()
    changed[:, :, 100:] += 1.0
    changed[:, :, 100:] *= torch.rand(101)
    rng = np.random.default_rng(0)
    # Two clips of two sub-bands with three clones.
    masks = as_masks(np.stack([inverse_block_mask(4, 6, rng) for _ in range(12)]))
    noise = 0.01 * torch.randn(12, int(masks.masked_RN[0].sum()), 96)
    with torch.no_grad():
        first, second = (objective(x, masks, noise) for x in (quiet, changed))
    lower = [0, 1, 2, 6, 7, 8]
    torch.testing.assert_close(first.prediction_RND[lower], second.prediction_RND[lower])
    torch.testing.assert_close(first.student_RKD[lower], second.student_RKD[lower])
    torch.testing.assert_close(first.target_GND[[0, 2]], second.target_GND[[0, 2]])
    assert not torch.allclose(first.target_GND[[1, 3]], second.target_GND[[1, 3]])
    assert first.masked == 12 * 20


def test_the_teacher_follows_and_does_not_learn() -> None:
    net = FISHER(**TINY, seed=1).module
    objective = PatchObjective(net, PatchDecoder(96, net.patch_rows, layers=1))
    before = objective.teacher.blocks[0].mlp.fc1.weight.clone()
    with torch.no_grad():
        net.blocks[0].mlp.fc1.weight += 1.0
    objective.follow(0.75)
    torch.testing.assert_close(objective.teacher.blocks[0].mlp.fc1.weight, before + 0.25)
    masks = as_masks(np.stack([inverse_block_mask(4, 6, np.random.default_rng(0))] * 2))
    objective(torch.randn(1, 64, 201), masks).loss.backward()
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
    assert all(parameter.grad is not None for parameter in objective.learned_parameters())


@given(st.integers(1, 30))
def test_the_teacher_slows_down(step: int) -> None:
    decay = teacher_decay(step, first=0.9, last=0.99, steps=10)
    assert decay == pytest.approx(min(0.99, 0.9 + 0.009 * step))
