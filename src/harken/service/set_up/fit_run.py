"""A fit that runs in a process of its own: it can be watched and cancelled, and a page is answered meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import Any

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.service.set_up.fitting import FitRequest, request_line

#: seconds for a process to end when it is asked to
_END_S = 3.0


class FitRun:
    """Starts at once. done, count: recordings that were listened to, and all. result, error: once it is over."""

    def __init__(self, request: FitRequest) -> None:
        self.request = request
        self.done, self.count = 0, 0
        self.result: dict[str, Any] | None = None
        self.error: HarkenError | None = None
        self.cancelled = False
        self._last: deque[str] = deque(maxlen=5)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harken.service.set_up.fitting"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._keep_errors, name="errors of fit", daemon=True).start()
        self._thread = threading.Thread(target=self._read, name="fit", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """End it; the model is what it was before."""
        self.cancelled = True
        if self._process.poll() is None:
            # With its workers.
            with suppress(ProcessLookupError, PermissionError, AttributeError):
                os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._thread.join(_END_S)

    def _read(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.write(request_line(self.request))
            self._process.stdin.flush()
        for text in self._process.stdout:
            with suppress(ValueError):
                self._note(json.loads(text))
        self._process.wait()
        with suppress(OSError):
            self._process.stdin.close()
        if self.result is None and self.error is None and not self.cancelled:
            said = self._last[-1] if self._last else f"exit code {self._process.returncode}"
            self.error = HarkenError(
                Sentence("fitting has broken off ({reason})", reason=said), next_step=Sentence("Try again")
            )

    def _note(self, line: dict[str, Any]) -> None:
        if "progress" in line:
            self.done, self.count = line["progress"]
        elif "result" in line:
            self.result = line["result"]
        elif "error" in line:
            self.error = HarkenError(Sentence.from_json(line["error"]))

    def _keep_errors(self) -> None:
        assert self._process.stderr is not None
        self._last.extend(line.strip() for line in self._process.stderr if line.strip())
