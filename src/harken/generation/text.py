"""Captions as states of a T5 encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harken.core.errors import HarkenError, WeightsError
from harken.core.extras import need
from harken.generation.config import TextConfig
from harken.generation.libraries import transformers


class TextStates(NamedTuple):
    """states_BLD: of the tokens of captions, padded to the longest. mask_BL: 1 for tokens, 0 for padding."""

    states_BLD: Tensor
    mask_BL: Tensor


class Tokens(NamedTuple):
    """Of captions, padded with 0. mask_BL: 1 for tokens, 0 for padding."""

    ids_BL: Tensor
    mask_BL: Tensor


def text_encoder(config: TextConfig) -> nn.Module:
    """A T5 encoder, frozen, in evaluation mode."""
    library = transformers()
    settings = library.T5Config(
        vocab_size=config.vocabulary,
        d_model=config.width,
        d_kv=config.head_width,
        d_ff=config.hidden,
        num_layers=config.layers,
        num_heads=config.heads,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    encoder: nn.Module = library.T5EncoderModel(settings)
    return encoder.eval().requires_grad_(False)


class Tokenizer:
    """Captions as tokens.

    content: of the file `tokenizer.json` of flan-t5; without it text is divided into bytes.
    """

    def __init__(self, config: TextConfig, content: bytes | None = None) -> None:
        self.config = config
        library = transformers()
        if config.tokens == "bytes":
            self._tokenizer: Any = library.ByT5Tokenizer()
            return
        if content is None:
            raise WeightsError(
                "captions need the tokenizer of flan-t5-large, which is not on this machine",
                next_step="Run: harken weights fetch flan-t5-large-tokenizer (or, offline: harken weights add "
                "tokenizer.json)",
            )
        # What the parser raises for a file of something else is a plain Exception.
        try:
            tokenizer = need("tokenizers", "captions").Tokenizer.from_str(content.decode())
        except Exception as error:
            raise WeightsError("is no tokenizer", file=Path("tokenizer.json"), next_step="Download it again") from error
        self._tokenizer = library.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>"
        )

    def __call__(self, captions: Sequence[str], length: int | None = None) -> Tokens:
        """Tokens of captions, padded to the longest, or to `length`."""
        encoded = self._tokenizer(
            list(captions),
            padding="longest" if length is None else "max_length",
            truncation=True,
            max_length=self.config.longest if length is None else length,
            return_tensors="pt",
        )
        ids_BL: Tensor = encoded["input_ids"]
        if int(ids_BL.max()) >= self.config.vocabulary:
            raise HarkenError(
                f"the tokenizer has more than the {self.config.vocabulary} tokens of the text encoder",
                next_step="Use the tokenizer of flan-t5-large",
            )
        return Tokens(ids_BL, encoded["attention_mask"])


def text_states(encoder: nn.Module, tokens: Tokens) -> TextStates:
    """States of the text encoder, on its device."""
    device = next(encoder.parameters()).device
    with torch.inference_mode():
        ids_BL, mask_BL = tokens.ids_BL.to(device), tokens.mask_BL.to(device)
        states_BLD = encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
    # Inference tensors cannot be trained with.
    return TextStates(states_BLD.clone(), mask_BL)
