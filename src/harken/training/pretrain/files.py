"""Files of pre-trained encoders: safetensors that `encoders.checkpoints.load` reads like published ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.encoders.patch_net import PatchNet
from harken.encoders.torch_encoder import TorchEncoder
from harken.training.arrays import module_arrays, over
from harken.training.checkpoints import write_arrays
from harken.training.pretrain.decoder import PatchDecoder
from harken.weights.formats import read_contents

#: before the decoder's names in published files
_PREFIXES = ("model.", "modality_encoders.IMAGE.")


def write_encoder(file: Path, encoder: TorchEncoder, decoder: PatchDecoder, metadata: Mapping[str, Any]) -> None:
    """Weights of an encoder, and of the decoder that it was pre-trained with, for pre-training it further."""
    assert isinstance(encoder.module, PatchNet)
    arrays = {**encoder.weights(), **over(module_arrays(decoder), "decoder")}
    write_arrays(file, arrays, {**metadata, "cfg": encoder.module.published_sizes()})


def decoder_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """The decoder's weights in a file that was pre-trained here or published; none where there are none."""
    arrays = {}
    for name, array in read_contents(file, None).tensors.items():
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if name.startswith("decoder."):
            arrays[name.removeprefix("decoder.")] = np.asarray(array, dtype=np.float32)
    return arrays
