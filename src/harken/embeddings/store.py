"""Embeddings on disk, named by what they were made from."""

from __future__ import annotations

from pathlib import Path

from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.embeddings.embedder import ClipFeatures, EmbeddingSpec
from harken.embeddings.packed import packed, unpacked


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
            return unpacked(self.path(sha256).read_bytes(), sha256)
        except (OSError, ValueError):
            return None

    def put(self, features: ClipFeatures) -> None:
        """Store the features of a recording."""
        data = packed(features)
        path = self.path(features.sha256)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, data)

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("??/*.safetensors"))
