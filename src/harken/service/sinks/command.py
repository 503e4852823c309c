"""Messages to a program: JSON on its standard input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress

from harken.core.json_text import json_text
from harken.service.records import Message
from harken.service.sinks.base import NotDeliveredError, RefusedError, Sink

#: of sysexits.h, EX_DATAERR: the message is at fault
REFUSED = 65


class CommandSink(Sink):
    """Starts `command`, a program and its arguments without a shell, per message, with the message as one line of JSON
    on standard input and its id in HARKEN_MESSAGE_ID.

    Exit code 0: it has the message; 65 (EX_DATAERR): it refuses it for good; any other, or more than `timeout_s`: it
    is tried again. What takes too long is killed with all that it started.
    """

    def __init__(self, name: str, command: Sequence[str], *, timeout_s: float = 30.0) -> None:
        super().__init__(name)
        self.command = [*command]
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def deliver(self, message: Message) -> None:
        program = self.command[0]
        # A file, not a pipe: what the program leaves running may hold it open.
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env={**os.environ, "HARKEN_MESSAGE_ID": message.id},
                    start_new_session=True,
                )
            except OSError as error:
                raise NotDeliveredError(
                    f"{program} cannot be started ({error.strerror})", next_step="Check its path and permissions"
                ) from None
            self._process = process
            try:
                process.communicate((json_text(message.as_json()) + "\n").encode(), self._timeout_s)
            except subprocess.TimeoutExpired:
                _kill(process)
                raise NotDeliveredError(
                    f"{program} took more than {self._timeout_s:g} s, and was killed", next_step="Let it answer sooner"
                ) from None
            finally:
                self._process = None
            said.seek(0)
            lines = said.read(100_000).decode(errors="replace").split("\n")
        if process.returncode == 0:
            return
        last = next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
        cause = f"{program} ended with exit code {process.returncode}" + (f": {last}" if last else "")
        if process.returncode == REFUSED:
            raise RefusedError(cause)
        raise NotDeliveredError(cause, next_step="Check the program")

    def interrupt(self) -> None:
        process = self._process
        if process is not None:
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its group."""
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
