"""Whether a file that is no encoder is what it says: all tensors of a network, tokens of a tokenizer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from harken.core.errors import WeightsError
from harken.core.json_text import json_text
from harken.weights.catalog import Checkpoint
from harken.weights.formats import TEXT
from harken.weights.tensors import Weights

#: tokens of T5: 32,000 pieces and 100 places of hidden text
_TOKENS = 32_100
_FIRST_TOKENS = ("<pad>", "</s>", "<unk>")


def structure_digest(weights: Weights) -> str:
    """Of names and shapes of all tensors."""
    shapes = {name: list(array.shape) for name, array in weights.items()}
    return hashlib.sha256(json_text(shapes, sort_keys=True).encode()).hexdigest()


def check_structure(entry: Checkpoint, weights: Weights, file: Path) -> None:
    """Raise WeightsError unless these can be the tensors of a network of the catalogue that is no encoder."""
    if entry.encoder == "t5-tokenizer":
        _check_tokenizer(weights[TEXT].tobytes(), entry, file)
        return
    if entry.structures and structure_digest(weights) not in entry.structures:
        raise WeightsError(
            f"has the names of {entry.name}, but its {len(weights)} tensors are not those of it", file=file,
            next_step=f"Get it from {entry.source}",
        )  # fmt: skip
    for name, array in weights.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise WeightsError(f"has values in {name} that are not finite", file=file, next_step="Download it again")


def _check_tokenizer(content: bytes, entry: Checkpoint, file: Path) -> None:
    """The tokens of T5 with their scores, as `tokenizers` stores a unigram model."""
    try:
        model = json.loads(content)["model"]
        tokens = [(str(token), float(score)) for token, score in model["vocab"]]
        first = tuple(token for token, _ in tokens[: len(_FIRST_TOKENS)])
        fits = model["type"] == "Unigram" and model["unk_id"] == _FIRST_TOKENS.index("<unk>")
        fits = fits and (len(tokens), first) == (_TOKENS, _FIRST_TOKENS)
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise WeightsError(
            f"is a JSON file, but not {entry.name}: it has not the {_TOKENS:,} tokens of T5", file=file,
            next_step=f"Get it from {entry.source}",
        )  # fmt: skip
