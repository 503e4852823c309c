"""Sizes of Xception; reading them needs no torch."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class XceptionConfig(BaseModel):
    """Channels: of the entry's two convolutions, of blocks 1, 2, 3 to 11 and 12, and of the exit's two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[int, int, int, int, int, int, int, int] = (32, 64, 128, 256, 728, 1024, 1536, 2048)


#: full: as published; tiny: ours, for tests
XCEPTION_SIZES: Mapping[str, XceptionConfig] = {
    "tiny": XceptionConfig(channels=(4, 8, 8, 12, 16, 16, 24, 24)),
    "full": XceptionConfig(),
}
