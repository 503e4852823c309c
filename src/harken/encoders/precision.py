"""Networks that compute in fewer bits, for inference: bfloat16, or weights of 8 bits."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from harken.core.errors import HarkenError

Precision = Literal["fp32", "bf16", "int8"]

#: a linear layer of fewer outputs gains nothing from 8 bits, and gates are sensitive
SMALLEST = 32


def apply_precision(module: nn.Module, precision: Precision) -> nn.Module:
    """A network of the same signature for inference; `module` itself for "fp32", which is left as it is.

    "bf16": linear and convolution weights are stored, and most is computed, in bfloat16; outputs are float32. The
    front end, which is what runs before the first learned layer but batch normalisation, stays in float32.
    "int8": weights of linear layers are stored in 8 bits a channel and multiplied with activations that are rounded
    to 8 bits on one scale a batch: pass clips one by one where they must not depend on each other. CPU only.

    Other weights are shared with `module`; after training it, apply again.
    Raises HarkenError where torch, the processor or the device cannot.
    """
    if precision not in get_args(Precision):
        choices = ", ".join(get_args(Precision))
        raise HarkenError(f"there is no precision {precision!r}", next_step=f"Choose one of {choices}")
    if precision == "fp32":
        return module
    device = next(module.parameters()).device
    # Tensors that are in the memo are not copied.
    tensors = [*module.parameters(), *module.buffers()]
    changed = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors}).eval()
    if precision == "bf16":
        _check_bf16(device)
        return _BFloat16(changed)
    _check_int8(device)
    # Subclasses and adapters may do more than multiply.
    linears = [
        (parent, name, child)
        for parent in changed.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.out_features >= SMALLEST
    ]
    if not linears:
        raise HarkenError("it has no linear layers that 8 bits could speed up", next_step="Use fp32")
    for parent, name, child in linears:
        setattr(parent, name, _Int8Linear(child))
    return changed


def _check_bf16(device: torch.device) -> None:
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Elsewhere it is emulated, at a fraction of float32's speed.
        able = device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if not able:
        raise HarkenError("this processor has no bfloat16 arithmetic", next_step="Use int8 on a CPU, or fp32")


def _check_int8(device: torch.device) -> None:
    if device.type != "cpu":
        raise HarkenError(f"int8 is for CPUs, and the encoder is on {device.type}", next_step="Use bf16 there")
    if torch.backends.quantized.engine == "none" or not hasattr(torch.ops.quantized, "linear_dynamic"):
        raise HarkenError(
            "this torch has no 8-bit linear layers", next_step="Use fp32, or export to ONNX, which has them everywhere"
        )


class _BFloat16(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._scope = ExitStack()
        self._entered = False
        for child in module.modules():
            if isinstance(child, nn.Linear | nn.Conv1d | nn.Conv2d):
                # Once, not at every call as autocast would.
                for name, parameter in list(child.named_parameters(recurse=False)):
                    halved = nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False)
                    setattr(child, name, halved)
            # A batch normalisation may belong to the front end.
            learned = child is not module and next(child.parameters(recurse=False), None) is not None
            if learned and not isinstance(child, nn.modules.batchnorm._BatchNorm):
                child.register_forward_pre_hook(self._leave_front_end)

    def forward(self, *args: Any, **kwargs: Any) -> Sequence[Tensor]:
        self._entered = False
        with ExitStack() as self._scope:
            outputs: Sequence[Tensor] = self.module(*args, **kwargs)
        return [output.float() for output in outputs]

    def _leave_front_end(self, module: nn.Module, inputs: Any) -> None:
        if not self._entered:
            self._entered = True
            device = next(module.parameters(recurse=False)).device
            self._scope.enter_context(torch.autocast(device.type, dtype=torch.bfloat16))


class _Int8Linear(nn.Module):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight_OI = linear.weight.detach().float()
        # A channel of zeros has any scale.
        scale_O = (weight_OI.abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        zero_O = torch.zeros(len(scale_O), dtype=torch.long)
        with warnings.catch_warnings():
            # Torch means to replace its 8-bit tensors; their operators are what it has on a CPU.
            warnings.simplefilter("ignore")
            rounded_OI = torch.quantize_per_channel(weight_OI, scale_O.double(), zero_O, 0, torch.qint8)
            self.packed = torch.ops.quantized.linear_prepack(
                rounded_OI, None if linear.bias is None else linear.bias.detach()
            )

    def forward(self, x: Tensor) -> Tensor:
        # Activations have 7 bits: without newer instructions, the sum of two full products would not fit.
        y: Tensor = torch.ops.quantized.linear_dynamic(x, self.packed, True)
        return y
