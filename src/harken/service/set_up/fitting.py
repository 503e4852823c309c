"""A process that learns the normal sound of a machine: `python -m harken.service.set_up.fitting`.

It reads a `FitRequest` as one line of JSON, and writes lines of JSON: `{"progress": [done, all]}`, then `{"result":
...}` or `{"error": {...}}`. It ends when its standard input does, so that it does not outlive who has started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harken.core.errors import HarkenError
from harken.core.json_text import json_text
from harken.core.sentences import Sentence
from harken.monitor.detector import Detector
from harken.service.episode_rule import EpisodeRule

#: rates of false alarms that people choose from
RATES = ("1/week", "1/month", "1/quarter")


@dataclass(frozen=True)
class FitRequest:
    """recordings: folder of them. model: to be written. left_out: names of files that are not learned from.

    keep_outliers: also learn from those that are unlike all others. hop_s: time from the beginning of one window to
    that of the next when it is listened to; None: gapless.
    """

    recordings: str
    model: str
    left_out: tuple[str, ...] = ()
    keep_outliers: bool = False
    hop_s: float | None = None


def fitted(request: FitRequest) -> dict[str, Any]:
    """Learn, and write the model. Raises HarkenError.

    What came of it: `recordings`, number learned from; `set_aside`: `file`, `reason`, `outlier` of others; `notes`;
    `alarm`: sentences, and `rates`: such by rate, as `text` and what each was made of (`Sentence.to_json`).
    """
    folder = Path(request.recordings)
    detector = Detector.fit(
        folder,
        exclude=[str(folder / name) for name in request.left_out],
        keep_outliers=request.keep_outliers,
        progress=lambda done, count: _print({"progress": [done, count]}),
    )
    detector.save(request.model)
    return {
        "recordings": len(detector.training.names),
        "set_aside": [
            {"file": aside.path.name, "reason": aside.reason, "outlier": aside.outlier} for aside in detector.set_aside
        ],
        "notes": [*detector.notes],
        "alarm": _made_of(detector.alarm.sentences()),
        "rates": {rate: _made_of(EpisodeRule.of(detector, rate, request.hop_s).sentences()) for rate in RATES},
    }


def _made_of(sentences: Iterable[str]) -> list[dict[str, Any]]:
    return [{"text": said, **said.to_json()} for said in sentences if isinstance(said, Sentence)]


def main() -> None:
    """See the module."""
    values = json.loads(sys.stdin.readline())
    request = FitRequest(**{**values, "left_out": tuple(values["left_out"])})
    threading.Thread(target=_end_with_input, name="parent", daemon=True).start()
    with suppress(OSError, AttributeError):
        os.nice(10)  # machines that are listened to meanwhile come first
    try:
        _print({"result": fitted(request)})
    except HarkenError as error:
        _print({"error": error.sentence.to_json()})


def request_line(request: FitRequest) -> str:
    """As it is read."""
    return json_text(asdict(request)) + "\n"


def _end_with_input() -> None:
    # Not by `sys.stdin`, whose lock worker processes would be forked with.
    while os.read(0, 1):
        pass
    os._exit(1)


def _print(line: dict[str, Any]) -> None:
    print(json_text(line), flush=True)


if __name__ == "__main__":
    main()
