"""Embeddings on disk, named by what they were made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from harken.audio.health import Health
from harken.audio.quality import Finding
from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.embeddings.embedder import ClipFeatures, EmbeddingSpec

#: 3: entries of files whose headers were compared with what is there; those of other schemas are made again
SCHEMA = 3


class EmbeddingStore:
    """One small file a recording: `<root>/<spec fingerprint>/<ab>/<sha256 of the recording>.safetensors`.

    The name says everything that the content depends on, so an entry never goes stale, two runs never
    disagree, and the bytes of a store do not depend on how often a run was interrupted. Files appear whole
    (written aside, then renamed) and carry a digest: a damaged entry counts as missing and is made again.
    """

    def __init__(self, root: str | Path, spec: EmbeddingSpec) -> None:
        self.folder = Path(root) / spec.fingerprint()[:24]
        describe = self.folder / "spec.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not describe.exists():
                write_atomically(describe, json_text(spec.model_dump(mode="json"), indent=2).encode() + b"\n")
        except OSError as error:
            raise HarkenError(
                f"cannot keep embeddings there ({error.strerror})", file=root, next_step="Name another folder as store"
            ) from None

    def path(self, sha256: str) -> Path:
        """Place of the entry of a recording with this SHA-256."""
        return self.folder / sha256[:2] / f"{sha256}.safetensors"

    def get(self, sha256: str) -> ClipFeatures | None:
        """The features of a recording; None without a complete entry."""
        try:
            data = self.path(sha256).read_bytes()
        except OSError:
            return None
        try:
            tensors = safetensors.numpy.load(data)
            length = int.from_bytes(data[:8], "little")
            header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["harken"])
            if header["schema"] != SCHEMA or header["digest"] != _digest(tensors):
                return None
            return ClipFeatures(
                embedding=tensors["embedding"],
                sketch_BC=tensors["sketch"],
                short_time_D=tensors["short_time"],
                level_db=float(tensors["level_db"][0]),
                seconds=float(tensors["seconds"][0]),
                sha256=sha256,
                findings=tuple(Finding(**finding) for finding in header["findings"]),
                health=Health(tensors["health"]) if "health" in tensors else None,
            )
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError):
            return None

    def put(self, features: ClipFeatures) -> None:
        """Store the features of a recording."""
        tensors: dict[str, np.ndarray] = {
            "embedding": features.embedding,
            "sketch": features.sketch_BC,
            "short_time": features.short_time_D,
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
        data = safetensors.numpy.save(tensors, metadata={"harken": json_text(header, sort_keys=True)})
        path = self.path(features.sha256)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, data)

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("??/*.safetensors"))


def _digest(tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tensors[name].dtype.str}{tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
