"""Waveform -> embedding. One file per architecture, registered by name (`registry`)."""

from harken.encoders.base import Embedding, Encoder, FrontEnd, Spectrogram
from harken.encoders.frame_encoder import FrameEncoder
from harken.encoders.registry import create_encoder, encoder_class, list_encoders, register_encoder, tiny_config

__all__ = [
    "Embedding",
    "Encoder",
    "FrameEncoder",
    "FrontEnd",
    "Spectrogram",
    "create_encoder",
    "encoder_class",
    "list_encoders",
    "register_encoder",
    "tiny_config",
]
