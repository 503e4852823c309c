"""Features of a recording as bytes: safetensors, with a digest of what they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import safetensors
import safetensors.numpy

from harken.audio.health import Health
from harken.audio.quality import Finding
from harken.core.json_text import json_text
from harken.embeddings.embedder import ClipFeatures
from harken.embeddings.steady import steady_levels

#: 3: entries of files whose headers were compared with what is there; 5: steady levels. Others are made again
SCHEMA, _WITHOUT_STEADY = 5, 3


def packed(features: ClipFeatures) -> bytes:
    """All of them but for `sha256`, which names them. The same features give the same bytes."""
    tensors: dict[str, np.ndarray] = {
        "embedding": features.embedding,
        "sketch": features.sketch_BC,
        "short_time": features.short_time_D,
        "steady": features.steady_B,
        "level_db": np.array([features.level_db]),
        "seconds": np.array([features.seconds]),
    }
    if features.health is not None:
        tensors["health"] = features.health.values_CK
    header = {
        "schema": SCHEMA,
        "digest": _digest(tensors),
        "findings": [asdict(finding) for finding in features.findings],
    }
    # One metadata key only: safetensors writes several in no fixed order.
    return safetensors.numpy.save(tensors, metadata={"harken": json_text(header, sort_keys=True)})


def unpacked(data: bytes, sha256: str) -> ClipFeatures:
    """Inverse of `packed`; sha256: of the recording. Raises ValueError for damaged bytes and other schemas."""
    try:
        tensors = safetensors.numpy.load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["harken"])
        if header["schema"] not in (SCHEMA, _WITHOUT_STEADY) or header["digest"] != _digest(tensors):
            raise ValueError("another schema, or damaged")
        sketch_BC, short_time_D = tensors["sketch"], tensors["short_time"]
        if header["schema"] == SCHEMA:
            steady_B = tensors["steady"]
        else:
            steady_B = steady_levels(sketch_BC) if short_time_D.size else short_time_D
        return ClipFeatures(
            embedding=tensors["embedding"],
            sketch_BC=sketch_BC,
            short_time_D=short_time_D,
            steady_B=steady_B,
            level_db=float(tensors["level_db"][0]),
            seconds=float(tensors["seconds"][0]),
            sha256=sha256,
            findings=tuple(Finding(**finding) for finding in header["findings"]),
            health=Health(tensors["health"]) if "health" in tensors else None,
        )
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"no features ({error})") from None


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tensors[name].dtype.str}{tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
