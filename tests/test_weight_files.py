"""Files of weights: official ones are read without what wrote them, malicious ones are refused and never run."""

from __future__ import annotations

import argparse
import enum
import io
import pickle
import sys
import tarfile
import tracemalloc
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from harken.cli.main import run
from harken.core.errors import WeightsError
from harken.weights.formats import read_contents

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}
MARK = "harken_was_here"


class Call:
    """Pickles as the call of a function that need not exist here."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """stranger("package.module.Name", **members) -> a class that is importable by that name until `forget`."""

    def make(path: str, base: type = object, **members: object) -> Any:
        module, name = path.rsplit(".", 1)
        for depth in range(1, module.count(".") + 2):
            part = ".".join(module.split(".")[:depth])
            if part not in sys.modules:
                monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
        made = types.new_class(name, (base,), exec_body=lambda space: space.update(members))
        made.__module__, made.__qualname__ = module, name
        setattr(sys.modules[module], name, made)
        return made

    return make


def forget() -> None:
    """The packages that the strangers come from are not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("omegaconf", "fairseq", "EAT")]:
        del sys.modules[name]


def with_state(kind: type, **state: object) -> Any:
    made = kind.__new__(kind)
    made.__dict__.update(state)
    return made


# ------------------------------------------------------------- official files


def test_state_dict_and_what_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for key in ("model", "state_dict"):
        torch.save({key: STATE, "cfg": {"layers": 3, "rate": 0.5, "names": ("a", "b")}, "step": 7}, path)
        found = read_contents(path, None)
        assert set(found.tensors) == set(STATE)
        assert np.array_equal(found.tensors["a.weight"], STATE["a.weight"].numpy())
        assert found.settings == {"cfg": {"layers": 3, "rate": 0.5, "names": ["a", "b"]}, "step": 7}
    torch.save(STATE, path)
    assert read_contents(path, None).settings == {}


def test_a_file_is_read_by_what_it_holds_whatever_its_ending_is(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    torch.save(STATE, path)
    assert np.array_equal(read_contents(path, None).tensors["a.weight"], STATE["a.weight"].numpy())
    for data in (b"\x80", b"\x80\0\0\0\0", b"\x80\2}q\0."):
        path.write_bytes(data)
        with pytest.raises(WeightsError):
            read_contents(path, None)


def test_settings_objects_become_plain(tmp_path: Path, stranger: Callable[..., Any]) -> None:
    """As fairseq and omegaconf write them, neither being installed when the file is read."""
    dictionary = stranger("omegaconf.dictconfig.DictConfig")
    sequence = stranger("omegaconf.listconfig.ListConfig")
    node = stranger("omegaconf.nodes.AnyNode")
    metadata = stranger("omegaconf.base.ContainerMetadata")
    config = stranger("EAT.models.EAT_pretraining.Data2VecMultiConfig")
    stranger("fairseq.dataclass.constants.Other")
    choice = enum.Enum("Choice", {"FAST": "fast"}, module="fairseq.dataclass.constants")  # type: ignore[misc]
    sys.modules["fairseq.dataclass.constants"].Choice = choice  # type: ignore[attr-defined]

    about = with_state(metadata, ref_type=Any, object_type=config, optional=True)
    cfg = with_state(dictionary, _metadata=about, _parent=None, _content={})
    cfg._content["depth"] = with_state(node, _parent=cfg, _metadata=about, _val=12)
    sizes = with_state(sequence, _metadata=about, _parent=cfg, _content=[])
    sizes._content.append(with_state(node, _parent=sizes, _val=0.5))
    cfg._content["sizes"] = sizes
    path = tmp_path / "fairseq.pt"
    torch.save(
        {
            "args": argparse.Namespace(arch="eat", lr=[0.1]),
            "cfg": {"model": cfg, "common": with_state(config, fp16=True, choice=choice.FAST)},
            "model": OrderedDict(STATE, _ema=dict(STATE)),
            "extra_state": {"best": np.float64(1.5)},
            "last_optimizer_state": {"state": {0: {"exp_avg": torch.ones(3)}}},
        },
        path,
    )
    forget()
    allowed = set(torch.serialization.get_safe_globals())
    found = read_contents(path, None)
    assert "omegaconf" not in sys.modules
    assert set(found.tensors) == {"a.weight", "a.bias", "_ema.a.weight", "_ema.a.bias"}
    assert found.settings["cfg"] == {
        "model": {"depth": 12, "sizes": [0.5]},
        "common": {"fp16": True, "choice": "fast"},
    }
    assert found.settings["args"] == {"arch": "eat", "lr": [0.1]}
    assert found.settings["last_optimizer_state"] == {"state": {"0": {"exp_avg": None}}}
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_known_packages_are_not_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stranger: Callable[..., Any]
) -> None:
    """Even where fairseq is installed, nothing of it runs: a stand-in takes its place."""

    def run(self: object, *arguments: object) -> None:
        raise AssertionError("code of the file's choice has run")

    kind = stranger("fairseq.tasks.Task", __init__=run, __setstate__=run)
    setup = stranger("fairseq.tasks.setup_task", __new__=run)
    path = tmp_path / "task.pt"
    torch.save({"model": STATE, "task": Call(setup, "x"), "other": with_state(kind, level=3)}, path)
    assert read_contents(path, None).settings == {"task": "x", "other": {"level": 3}}
    forget()


def test_settings_without_end(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    bomb: list[Any] = ["x"]
    for _ in range(60):
        bomb = [bomb, bomb]
    torch.save({"model": STATE, "cfg": bomb}, path)
    with pytest.raises(WeightsError, match="never end"):
        read_contents(path, None)
    loop: list[Any] = []
    loop.append(loop)
    torch.save({"model": STATE, "cfg": loop}, path)
    with pytest.raises(WeightsError, match="never end"):
        read_contents(path, None)


# ------------------------------------------------------------ damaged files


@pytest.mark.parametrize("kind", ["pt", "npz"])
def test_no_flipped_bit_is_read_as_another_number(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    torch.save({"model": STATE}, path) if kind == "pt" else np.savez(path, **STATE)
    whole, refusals = path.read_bytes(), 0
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
        try:
            tensors = read_contents(path, None).tensors
        except WeightsError:
            refusals += 1
            continue
        assert all(np.array_equal(tensors[name], STATE[name].numpy()) for name in STATE), position
    assert refusals > len(whole) // 7 // 4


def test_an_archive_is_bounded_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(10_000_000))
    with pytest.raises(WeightsError, match=r"unpacks to 80,000,\d+ bytes"):
        read_contents(path, None)


# ------------------------------------------------------------ malicious files


def archive(data: bytes) -> bytes:
    """Bytes of a torch file around the instructions `data`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        file.writestr("evil/data.pkl", data)
        file.writestr("evil/version", "3\n")
    return out.getvalue()


def calling(path: str, argument: str) -> bytes:
    """Instructions that call the function at `path`, in the words torch uses."""
    module, name = path.rsplit(".", 1)
    text = argument.encode()
    return f"\x80\x02c{module}\n{name}\nX".encode("latin-1") + len(text).to_bytes(4, "little") + text + b"\x85R."


@pytest.fixture
def payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # What a nested `torch.load(..., weights_only=False)` would run.
    (tmp_path / "inner.pt").write_bytes(pickle.dumps(Call(open, MARK, "w"), protocol=2))
    return tmp_path / MARK


def refused(path: Path, match: str) -> None:
    """By the reader and by the command, which exits with 2 and says what to do next."""
    with pytest.raises(WeightsError, match=match) as caught:
        read_contents(path, None)
    assert caught.value.file == str(path)
    assert caught.value.next_step
    said = io.StringIO()
    words = ["harken", "weights", "add", str(path)]
    with mock.patch.object(sys, "argv", words), redirect_stderr(said), pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == 2
    assert said.getvalue() == f"harken: {caught.value}\n"


GADGETS = {
    "os.system": f"touch {MARK}",
    "posix.system": f"touch {MARK}",
    "builtins.exec": f"open({MARK!r}, 'w')",
    "builtins.eval": f"open({MARK!r}, 'w')",
    "subprocess.getoutput": f"touch {MARK}",
    "torch.load": "inner.pt",
    "torch.serialization.load": "inner.pt",
    "torch.jit.load": "inner.pt",
    "numpy.load": "inner.pt",
    "pickle.loads": "x",
    "runpy.run_path": "inner.pt",
    "importlib.import_module": "this",
    "omegaconfx.run": "x",
    "builtins.getattr": "x",
}


@pytest.mark.parametrize("container", ["archive", "bare"])
@pytest.mark.parametrize("gadget", GADGETS)
def test_code_is_refused_by_name(payload: Path, gadget: str, container: str) -> None:
    data = calling(gadget, GADGETS[gadget])
    path = payload.with_name("evil.pt")
    path.write_bytes(archive(data) if container == "archive" else data)
    named = gadget.removeprefix("builtins.") if container == "bare" else gadget
    refused(path, rf"holds code \(({named.replace('.', '[.]')})\), not only tensors, and was not opened")
    assert not payload.exists()


def test_code_among_settings_is_refused(payload: Path, stranger: Callable[..., Any]) -> None:
    import os

    kind = stranger("fairseq.dataclass.configs.FairseqConfig")
    path = payload.with_name("evil.pt")
    hidden = with_state(kind, common=[argparse.Namespace(run=Call(os.system, f"touch {MARK}"))])
    torch.save({"model": STATE, "cfg": hidden}, path)
    forget()
    refused(path, r"holds code \(\w+\.system\)")
    assert not payload.exists()


def test_stand_in_is_no_way_to_attributes(payload: Path) -> None:
    # An attribute of an allowed class by its dotted name, and the call of what a stand-in made.
    path = payload.with_name("evil.pt")
    path.write_bytes(archive(b"\x80\x02cargparse\nNamespace.__init__.__globals__\n)R."))
    refused(path, "holds code")
    path.write_bytes(archive(b"\x80\x02cfairseq\nrun\n)R)R."))
    refused(path, "holds code")
    assert not payload.exists()


def test_newer_instructions_are_refused(payload: Path) -> None:
    path = payload.with_name("evil.pt")
    for protocol in (0, 3, 4, 5):
        data = pickle.dumps(Call(open, MARK, "w"), protocol=protocol)
        path.write_bytes(archive(data))
        refused(path, "holds code|is damaged")
        path.write_bytes(data)
        refused(path, "holds code|is damaged|not a checkpoint")
    assert not payload.exists()


def test_old_tar_format_is_refused(payload: Path) -> None:
    path = payload.with_name("evil.pt")
    data = pickle.dumps(Call(open, MARK, "w"), protocol=2)
    with tarfile.open(path, "w") as file:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    refused(path, "not a checkpoint in any format")
    assert not payload.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_program_is_refused(payload: Path) -> None:
    path = payload.with_name("program.pt")
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), str(path))
    refused(path, "TorchScript program")


def test_environment_cannot_lift_the_guard(payload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = payload.with_name("evil.pt")
    path.write_bytes(archive(calling("os.system", f"touch {MARK}")))
    refused(path, "os[.]system")
    assert not payload.exists()


def test_arrays_are_written_as_by_safetensors_without_copies(tmp_path: Path) -> None:
    from safetensors.numpy import save

    from harken.training.checkpoints import read_arrays, write_arrays

    rng = np.random.default_rng(0)
    types = ("bool", "u1", "i1", "i2", "u2", "f2", "i4", "u4", "f4", "f8", "i8", "u8")
    arrays = {f"{place % 3}.ünïque {kind}": (100 * rng.random((3, 5))).astype(kind) for place, kind in enumerate(types)}
    arrays |= {"scalar": np.array(2.5), "none": np.zeros((0, 4), np.float32), "turned": np.arange(6.0).reshape(2, 3).T}
    write_arrays(tmp_path / "all", arrays, {"names": ['a\n"b"\x01', "ß"]})
    metadata = {"harken": '{"names": ["a\\n\\"b\\"\\u0001", "\\u00df"]}'}
    expected = save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata=metadata)
    assert (tmp_path / "all").read_bytes() == expected
    read, header = read_arrays(tmp_path / "all")
    assert header == {"names": ['a\n"b"\x01', "ß"]}
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())

    large = {"large": np.ones(2**22, np.float32)}
    tracemalloc.start()
    write_arrays(tmp_path / "large", large, {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.05 * large["large"].nbytes
