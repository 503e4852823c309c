"""The `harken` command in this process: the same output and exit codes, without a new interpreter's seconds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import FileIO, StringIO
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

import pytest

from harken.cli.main import run

#: the installed program
HARKEN = Path(sys.executable).with_name("harken")
#: A shell function in place of the program: it hands its words, each ended by a zero byte, to this process, which
#: answers with the exit code and a file of what is printed. Globs, redirections and `&&` are the shell's own.
_FUNCTION = r"""
harken() {
    printf '%s\0' "$PWD" "$@" $'\1' >&$ASK
    local code file
    read -r code file <&$ANSWER
    cat "$file"
    return "$code"
}
"""


@contextmanager
def _captured(words: list[str], folder: Path | None) -> Iterator[tuple[StringIO, StringIO]]:
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["harken", *words])
        if folder is not None:
            patch.chdir(folder)
        yield out, err


def called(*words: object, folder: Path | None = None) -> CompletedProcess[str]:
    """`harken WORDS` as its entry point runs it, in a folder (None: the current one)."""
    arguments = [*map(str, words)]
    with _captured(arguments, folder) as (out, err):
        try:
            run()
            code: object = 0
        except SystemExit as stop:
            code = stop.code
    return CompletedProcess(arguments, code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


def harken(*words: object, code: int = 0, folder: Path | None = None) -> CompletedProcess[str]:
    """`called`, with the exit code that is expected."""
    done = called(*words, folder=folder)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def main(words: Sequence[str]) -> None:
    """`called`, for processes that are started with it; nothing is printed."""
    sys.exit(called(*words).returncode)


def program(*words: object, code: int = 0, folder: Path | None = None) -> CompletedProcess[str]:
    """The same by the installed program, in a process of its own."""
    done = subprocess.run([HARKEN, *map(str, words)], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def pasted(text: str, folder: Path) -> CompletedProcess[str]:
    """Lines of a page as a user would paste them into a shell that stops at the first error; `harken` runs here."""
    asked, ask = os.pipe()
    answer, answered = os.pipe()
    environment = {**os.environ, "ASK": str(ask), "ANSWER": str(answer)}
    with TemporaryDirectory() as scratch:
        out, err, printed = (Path(scratch) / name for name in ("out", "err", "printed"))
        with (
            out.open("w") as stdout,
            err.open("w") as stderr,
            os.fdopen(asked, "rb", buffering=0) as questions,
            os.fdopen(answered, "w") as answers,
            subprocess.Popen(
                ["bash", "-ec", _FUNCTION + text], cwd=folder, env=environment, pass_fds=(ask, answer),
                stdout=stdout, stderr=stderr,
            ) as shell,
        ):  # fmt: skip
            os.close(ask)
            os.close(answer)
            for place, *words in _questions(questions):
                done = called(*words, folder=Path(place))
                printed.write_text(done.stdout)
                stderr.write(done.stderr)
                stderr.flush()
                answers.write(f"{done.returncode} {printed}\n")
                answers.flush()
        return CompletedProcess(text, shell.returncode, out.read_text(), err.read_text())


def _questions(stream: FileIO) -> Iterator[list[str]]:
    """Words of each call, until the shell has ended."""
    words: list[str] = []
    pending = b""
    while data := stream.read(65536):
        *whole, pending = (pending + data).split(b"\0")
        for word in whole:
            if word == b"\1":
                yield words
                words = []
            else:
                words.append(word.decode())


def official_scores(text: str) -> list[str]:
    """Those that `harken evaluate` prints."""
    return re.findall(r"official score \(domain_generalization\): (0\.\d+)", text)
