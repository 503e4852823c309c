"""Recordings that programs send to be judged."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.monitor.detector import Detector, load

#: models that are kept in memory
_MOST_MODELS = 4
#: recordings that are judged at the same time; others wait
_MOST_AT_ONCE = 2


class RecordingScorer:
    """Judges recordings with models that are loaded once. Threads may share it."""

    def __init__(self) -> None:
        self._models: OrderedDict[tuple[str, float], Detector] = OrderedDict()
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(_MOST_AT_ONCE)

    @staticmethod
    def file() -> IO[bytes]:
        """Where a recording is put meanwhile; it is gone when it is closed."""
        return tempfile.NamedTemporaryFile(prefix="harken-", suffix=".wav")

    def score(self, model: str, recording: str) -> dict[str, Any]:
        """The verdict, JSON-able, without the name of the file. Raises HarkenError where there is none."""
        with self._places:
            verdict = self._model(Path(model)).score(recording)
        return {name: value for name, value in verdict.as_json().items() if name != "file"}

    def _model(self, path: Path) -> Detector:
        try:
            key = (str(path), (path / "manifest.json").stat().st_mtime)
        except OSError:
            raise HarkenError(
                Sentence("the model of the machine is not there any more"), next_step=Sentence("Ask its administrator")
            ) from None
        with self._lock:
            if key not in self._models:
                self._models[key] = load(path)
                while len(self._models) > _MOST_MODELS:
                    self._models.popitem(last=False)
            self._models.move_to_end(key)
            return self._models[key]
