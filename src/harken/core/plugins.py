"""Custom classes: `path/to/file.py:Class` or, installed, `package.module:Class`.

A file is known by its content: the same content is loaded once a process, a changed one anew, and what is loaded is
what was hashed. Relative paths start at the current folder.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from harken.core.errors import HarkenError, did_you_mean
from harken.core.threads import look_again

T = TypeVar("T")

_files: dict[tuple[Path, str], ModuleType] = {}


def is_custom(name: str) -> bool:
    """Whether a name is of the form `file.py:Class` or `package.module:Class`, be there such a class or not."""
    place, _, attribute = name.rpartition(":")
    if not attribute.isidentifier():
        return False
    return place.endswith(".py") or all(package.isidentifier() for package in place.split("."))


def custom_names(value: Any) -> list[str]:
    """Every such name in a nest of sequences and mappings."""
    if isinstance(value, str):
        return [value] if is_custom(value) else []
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    return [name for inside in value for name in custom_names(inside)] if isinstance(value, (list, tuple)) else []


def check_name(kind: str, name: str, names: Iterable[str]) -> None:
    """ValueError, with the nearest, unless a name is known or that of a custom class (be it there or not)."""
    if not is_custom(name) and name not in (words := sorted(names)):
        hint = f"Write it as {name}:Class" if name.endswith(".py") else ""
        hint = hint or did_you_mean(name, words, f"There are: {', '.join(words)}")
        raise ValueError(f"unknown {kind} {name!r}. {hint}")


def load_class(name: str, base: type[T]) -> type[T]:
    """The class of a name that `is_custom`, a subclass of `base` with nothing left to implement.

    Raises HarkenError where there is no such file, module or class, where loading it fails (with the error and its
    line), and where the class is of another kind.
    """
    place, _, attribute = name.rpartition(":")
    path = _source(name)
    with blamed(name, "cannot be loaded: "):
        module = _loaded(path, _read(path)) if place.endswith(".py") else import_module(place)
    loaded = getattr(module, attribute, None)
    if loaded is None:
        classes = [word for word, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)]
        defined = [word for word in classes if getattr(module, word).__module__ == module.__name__]
        hint = did_you_mean(attribute, defined, f"It has: {', '.join(defined) or f'no {base.__name__}'}")
        raise HarkenError(f"has no class {attribute}", file=place, next_step=hint)
    if not isinstance(loaded, type) or not issubclass(loaded, base):
        raise HarkenError(
            f"{attribute} is no {base.__name__}",
            file=place,
            next_step=f"Let it subclass {base.__module__.rpartition('.')[0]}.{base.__name__}",
        )
    if inspect.isabstract(loaded):
        missing = ", ".join(sorted(getattr(loaded, "__abstractmethods__", ())))
        raise HarkenError(f"{attribute} lacks {missing}", file=place, next_step=f"Write {missing}")
    return loaded


def code_sha256(name: str) -> str | None:
    """Hex digest of the source file of a name; None of one that is not of this kind. Nothing is run.

    Raises HarkenError where there is no such file or module.
    """
    return hashlib.sha256(_read(_source(name))).hexdigest() if is_custom(name) else None


def code_digests(name: str, parameters: Any = None) -> dict[str, str]:
    """`code_sha256` of a name, and of those anywhere in its parameters, that are of this kind, by name."""
    digest = code_sha256(name)
    digests = {} if digest is None else {name: digest}
    for inside in custom_names(parameters):
        # A parameter may only look like one; if it is one, its user says what is wrong with it.
        with suppress(HarkenError):
            digests[inside] = str(code_sha256(inside))
    return digests


def code_identity(name: str, parameters: Any = None) -> dict[str, Any]:
    """`code_digests` as part of what a stage's files depend on; empty for what comes with the package."""
    code = code_digests(name, parameters)
    return {"code_sha256": code} if code else {}


@contextmanager
def blamed(name: str, doing: str = "") -> Iterator[None]:
    """Errors within it become HarkenErrors that tell the line of the file that `name` names, if it `is_custom`."""
    try:
        yield
    except HarkenError:
        raise
    except (Exception, SystemExit) as error:
        if not is_custom(name):
            raise
        # Text, since the frames of an error in another process come as text only.
        trace = "".join(traceback.format_exception(error))
        lines = re.findall(rf'File "{re.escape(str(_source(name)))}", line (\d+)', trace)
        place, _, attribute = name.rpartition(":")
        where = f"line {lines[-1]}: " if lines else "" if doing else f"{attribute}: "
        said = " ".join(str(error).split())
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        step = "Mend the file" if lines or doing else "Check the class: check_detector and the like tell more"
        step = f"Install {missing}, or mend the file" if missing else step
        raise HarkenError(f"{doing}{where}{type(error).__name__}: {said}", file=place, next_step=step) from error


def _source(name: str) -> Path:
    """The source file of a name that `is_custom`."""
    place = name.rpartition(":")[0]
    if place.endswith(".py"):
        return Path(place).absolute()
    try:
        spec = find_spec(place)
    except Exception as error:  # of the packages around it, which this imports
        raise HarkenError(
            f"cannot be found ({type(error).__name__}: {error})", file=place, next_step="Check that it is installed"
        ) from error
    if spec is None:
        raise HarkenError("there is no such module", file=place, next_step="Install it, or name a file: file.py:Class")
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise HarkenError("is no module with a source file", file=place, next_step="Name the module of the class")
    return Path(spec.origin)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        cause = "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise HarkenError(cause, file=path, next_step="Check the path; a relative one starts here") from None


def _loaded(path: Path, data: bytes) -> ModuleType:
    """The module that `data`, the content of `path`, makes. No byte code is kept: its check would miss quick edits."""
    digest = hashlib.sha256(data).hexdigest()
    if (path, digest) not in _files:
        unique = hashlib.sha256(f"{path}\0{digest}".encode()).hexdigest()[:12]
        module = ModuleType(f"harken_own_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{unique}")
        module.__file__ = str(path)
        # Dataclasses and the like look their module up there.
        sys.modules[module.__name__] = module
        try:
            exec(compile(data, str(path), "exec", dont_inherit=True), vars(module))
        except BaseException:
            del sys.modules[module.__name__]
            raise
        _files[path, digest] = module
        look_again()
    return _files[path, digest]
