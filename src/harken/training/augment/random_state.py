"""Random numbers that depend on their purpose only, not on workers or order."""

from __future__ import annotations

import hashlib

import numpy as np


def rng_for(seed: int, epoch: int, item: str | int, purpose: str = "") -> np.random.Generator:
    """Generator for (seed, epoch, item, purpose): the same for any number of workers and any order.

    item: a clip's id, or the number of a batch. purpose: keeps transforms of one item independent of each other.
    """
    # Ids come from file names, which need not be valid Unicode.
    words = hashlib.sha256(f"{seed}\0{epoch}\0{item}\0{purpose}".encode(errors="surrogatepass")).digest()
    return np.random.default_rng(np.frombuffer(words, dtype="<u4").astype(np.uint32))
