"""Counts of networks in the user's cache: counting takes torch and seconds, looking up neither.

A count is found again only by the same question to the same code: the key covers every source file of Harken and the
version of torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from harken.bench.work import Counts, Work
from harken.core.files import user_cache, write_atomically
from harken.core.json_text import json_text
from harken.core.plugins import custom_names


def kept_counts(question: Mapping[str, Any], count: Callable[[], Counts]) -> Counts:
    """What `count` gives, from the cache where the question was answered before.

    question: JSON-able, everything that the answer depends on beside the code of Harken. Networks with custom classes
    are always counted: their code may import more.
    """
    if custom_names(question):
        return count()
    text = json_text({**question, "code": _code_sha256()}, sort_keys=True)
    file = user_cache() / "counts" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        return _read(file)
    counts = count()
    # Without a cache that can be written to, plans only take longer.
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json_text(dataclasses.asdict(counts)).encode())
    return counts


def _read(file: Path) -> Counts:
    values = json.loads(file.read_bytes())
    forward, batch = Work(**values.pop("forward")), Work(**values.pop("batch"))
    return Counts(forward=forward, batch=batch, **values)


@lru_cache(maxsize=1)
def _code_sha256() -> str:
    digest = hashlib.sha256()
    with suppress(PackageNotFoundError):
        digest.update(version("torch").encode())
    root = Path(str(files("harken")))
    for file in sorted((*root.rglob("*.py"), *root.rglob("*.toml"))):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()
