"""Custom classes: `path/to/file.py:Class` or, in an installed package, `package.module:Class`.

Files are identified by their content: each content is loaded once per process, from the bytes that were hashed.
Relative paths start at the current folder.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from harken.core.errors import HarkenError, did_you_mean
from harken.core.threads import refresh_libraries

T = TypeVar("T")

_files: dict[tuple[Path, str], ModuleType] = {}
_trusted: ContextVar[bool] = ContextVar("trusted", default=True)


class UntrustedError(HarkenError):
    """Custom code that would have to be run to go on, and must not be."""


@contextmanager
def without_custom_code(forbidden: bool = True) -> Iterator[None]:
    """Within it, unless `forbidden` is False, nothing that a custom class is in is run or imported: what needs it
    raises UntrustedError."""
    token = _trusted.set(not forbidden)
    try:
        yield
    finally:
        _trusted.reset(token)


def _check_trust(name: str) -> None:
    if not _trusted.get():
        raise UntrustedError(
            f"names custom code, {name}, which was not run", next_step="Read it, and add --trust if you trust it"
        )


def is_custom(name: str) -> bool:
    """Whether a name has the form `file.py:Class` or `package.module:Class`; the class need not exist."""
    source, _, attribute = name.rpartition(":")
    if not attribute.isidentifier():
        return False
    return source.endswith(".py") or all(package.isidentifier() for package in source.split("."))


def custom_names(value: Any) -> list[str]:
    """All names of custom classes in nested sequences and mappings."""
    if isinstance(value, str):
        return [value] if is_custom(value) else []
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    return [name for item in value for name in custom_names(item)] if isinstance(value, (list, tuple)) else []


def check_name(kind: str, name: str, names: Iterable[str]) -> None:
    """Raise ValueError, suggesting the nearest name, unless `name` is in `names` or has the form of a custom class."""
    if not is_custom(name) and name not in (available := sorted(names)):
        hint = f"Write it as {name}:Class" if name.endswith(".py") else ""
        hint = hint or did_you_mean(name, available)
        raise ValueError(f"unknown {kind} {name!r}. {hint}")


def build(cls: type[T], name: str, parameters: Mapping[str, Any] | None) -> T:
    """Create an instance of a named class, built-in or custom, from a recipe's parameters.

    Raises HarkenError, suggesting the nearest, for an unknown parameter, for a missing one, and for errors of a custom
    class, with their line; ValueError of a built-in class for invalid values.
    """
    given, accepted = parameters or {}, inspect.signature(cls).parameters
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    for parameter in given:
        if parameter not in accepted and not any_name:
            hint = did_you_mean(parameter, sorted(accepted))
            raise HarkenError(f"{name} has no parameter {parameter!r}", next_step=hint)
    for parameter, definition in accepted.items():
        variadic = definition.kind in (definition.VAR_KEYWORD, definition.VAR_POSITIONAL)
        if definition.default is definition.empty and parameter not in given and not variadic:
            raise HarkenError(f"{name} needs the parameter {parameter!r}", next_step="Set it under parameters")
    with located_errors(name):
        return cls(**given)


def load_class(name: str, base: type[T]) -> type[T]:
    """Load a custom class, a concrete subclass of `base`.

    Raises HarkenError if the file, module or class does not exist, if loading fails (with the error and its line), and
    if the class is abstract or does not derive from `base`.
    """
    _check_trust(name)
    source, _, attribute = name.rpartition(":")
    path = _source(name)
    with located_errors(name, "cannot be loaded: "):
        module = _loaded(path, _read(path)) if source.endswith(".py") else import_module(source)
    loaded = getattr(module, attribute, None)
    if loaded is None:
        classes = [name for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)]
        defined = [name for name in classes if getattr(module, name).__module__ == module.__name__]
        hint = did_you_mean(attribute, defined, f"It defines: {', '.join(defined) or f'no {base.__name__}'}")
        raise HarkenError(f"has no class {attribute}", file=source, next_step=hint)
    if not isinstance(loaded, type) or not issubclass(loaded, base):
        raise HarkenError(
            f"{attribute} is not a subclass of {base.__name__}",
            file=source,
            next_step=f"Derive it from {base.__module__.rpartition('.')[0]}.{base.__name__}",
        )
    if inspect.isabstract(loaded):
        missing = ", ".join(sorted(getattr(loaded, "__abstractmethods__", ())))
        raise HarkenError(f"{attribute} does not implement {missing}", file=source, next_step=f"Implement {missing}")
    return loaded


def code_sha256(name: str) -> str | None:
    """SHA-256 of the source file of a custom class, which is not run; None for other names.

    Raises HarkenError if the file or module does not exist.
    """
    return hashlib.sha256(_read(_source(name))).hexdigest() if is_custom(name) else None


def code_digests(name: str, parameters: Any = None) -> dict[str, str]:
    """`code_sha256` of every custom class among `name` and its parameters, by name."""
    digest = code_sha256(name)
    digests = {} if digest is None else {name: digest}
    for parameter in custom_names(parameters):
        # A parameter may only look like a custom class; if it is one, the code that loads it reports the error.
        with suppress(HarkenError):
            digests[parameter] = str(code_sha256(parameter))
    return digests


def code_identity(name: str, parameters: Any = None) -> dict[str, Any]:
    """`code_digests` as an entry of a stage's identity; empty without custom classes."""
    code = code_digests(name, parameters)
    return {"code_sha256": code} if code else {}


@contextmanager
def located_errors(name: str, doing: str = "") -> Iterator[None]:
    """Context in which errors of a custom class become HarkenErrors with the line of its file.

    doing: start of the message. Errors of other names are not changed.
    """
    try:
        yield
    except HarkenError:
        raise
    except (Exception, SystemExit) as error:
        if not is_custom(name):
            raise
        # As text, since tracebacks from other processes are text only.
        trace = "".join(traceback.format_exception(error))
        lines = re.findall(rf'File "{re.escape(str(_source(name)))}", line (\d+)', trace)
        source, _, attribute = name.rpartition(":")
        where = f"line {lines[-1]}: " if lines else "" if doing else f"{attribute}: "
        message = " ".join(str(error).split())
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        step = "Correct the file" if lines or doing else "Check the class, for example with check_detector"
        step = f"Install {missing}, or correct the file" if missing else step
        raise HarkenError(f"{doing}{where}{type(error).__name__}: {message}", file=source, next_step=step) from error


def _source(name: str) -> Path:
    """Source file of a custom class."""
    source = name.rpartition(":")[0]
    if source.endswith(".py"):
        return Path(source).absolute()
    _check_trust(name)
    try:
        spec = find_spec(source)
    except Exception as error:  # find_spec imports the parent packages
        raise HarkenError(
            f"cannot be found ({type(error).__name__}: {error})", file=source, next_step="Check that it is installed"
        ) from error
    if spec is None:
        raise HarkenError("there is no such module", file=source, next_step="Install it, or give a file: file.py:Class")
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise HarkenError("has no source file", file=source, next_step="Give the module that defines the class")
    return Path(spec.origin)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        cause = "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise HarkenError(
            cause, file=path, next_step="Check the path; relative paths start at the current folder"
        ) from None


def _loaded(path: Path, data: bytes) -> ModuleType:
    """Module of `data`, the content of `path`. Byte code is not cached: its time stamps would miss quick edits."""
    digest = hashlib.sha256(data).hexdigest()
    if (path, digest) not in _files:
        unique = hashlib.sha256(f"{path}\0{digest}".encode()).hexdigest()[:12]
        module = ModuleType(f"harken_custom_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{unique}")
        module.__file__ = str(path)
        # Dataclasses, among others, look up their module by name.
        sys.modules[module.__name__] = module
        try:
            exec(compile(data, str(path), "exec", dont_inherit=True), vars(module))
        except BaseException:
            del sys.modules[module.__name__]
            raise
        _files[path, digest] = module
        refresh_libraries()
    return _files[path, digest]
