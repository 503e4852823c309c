"""The same recipes on a Ray cluster: the same bytes, whatever dies on the way."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from command_line import called
from harken.bench import executor, ray_cluster
from harken.bench.graph import Task, Unit
from harken.bench.jobs import Job, perform
from harken.bench.ray_cluster import RayCluster
from harken.bench.recipe import load_recipe
from harken.bench.run import run_recipe
from harken.bench.stages import stage_class
from harken.bench.stages.base import Context, Stage
from harken.bench.workspace import Workspace
from harken.cli import main
from harken.core.errors import HarkenError
from harken.core.version import __version__
from harken.data.clips import Clip
from harken.plant.simulate import simulate
from listening import detector_in, humming, write
from test_finetune import SHORT
from test_pipeline import contents, run

NODES = 2
FINETUNE = {**SHORT, "encoder": "dasheng"}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two machines of 93 clips, which take long enough to be killed at."""
    root = tmp_path_factory.mktemp("large")
    sizes = {"train_source": 60, "train_target": 8, "test_per_condition": 6, "supplemental": 1, "seconds": 1.0}
    simulate(root, machines=["fan", "valve"], **sizes)  # type: ignore[arg-type]
    return root


@pytest.fixture(scope="module", autouse=True)
def _own_token() -> Iterator[None]:
    """Neither found nor left in the home of whoever runs this; ray reads it when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex)
        patch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
        yield


def needs_ray() -> None:
    if find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install 'harken[ray]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each, joined once: workers that are ready serve one test after the other."""
    needs_ray()
    import ray
    from ray.cluster_utils import Cluster

    found = Cluster()
    for _ in range(NODES):
        add_node(found)
    ray.init(address=found.address, logging_level=logging.ERROR, log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=80 * 1024 * 1024, include_dashboard=False)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "SHARD_CLIPS", 8)


def same(one: Path, other: Path) -> bool:
    """Whether two workspaces hold the same objects and runs, which are not nothing."""
    found = {part: contents(one / part) for part in ("objects", "runs")}
    return all(found.values()) and found == {part: contents(other / part) for part in found}


def workers(cluster: Any, task: str = "") -> list[Any]:
    """Processes of the cluster that are at a task whose name begins so."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[0].startswith(f"ray::{task}"):
                found.append(process)
        except (psutil.Error, IndexError):
            continue
    return found


def when(condition: Callable[[], Any], act: Callable[[], None], seconds: float = 60) -> threading.Thread:
    """Act as soon as a condition holds, beside what this thread does."""

    def look() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                act()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=look)
    thread.start()
    return thread


def stored(workspace: Path) -> int:
    return sum(1 for _ in (workspace / "store").rglob("*.safetensors"))


# --- the same bytes


@pytest.mark.parametrize(("name", "changes"), [("spectral_knn", None), ("finetune", FINETUNE)])
def test_as_on_one_machine(
    name: str, changes: dict[str, Any] | None, plant: Path, tmp_path: Path, cluster: Any, small_shards: None
) -> None:
    here, tasks = run(plant, tmp_path / "local", name, changes=changes)
    there, started = run(plant, tmp_path / "ray", name, changes=changes, executor=RayCluster(cluster.address))
    assert sorted(started) == sorted(tasks)
    assert not here.failures
    assert not there.failures
    assert same(tmp_path / "local", tmp_path / "ray")
    assert list((tmp_path / "ray" / "scratch").iterdir()) == []
    assert run(plant, tmp_path / "ray", name, changes=changes, executor=RayCluster(cluster.address))[1] == []


@pytest.mark.slow
def test_a_system_with_several_members(plant: Path, tmp_path: Path, cluster: Any, small_shards: None) -> None:
    # In the same place one after the other: bags of ensembles name the folder of their run.
    run(plant, tmp_path / "w", "thuee_system1")
    (tmp_path / "w").rename(tmp_path / "local")
    done, _ = run(plant, tmp_path / "w", "thuee_system1", executor=RayCluster(cluster.address, task_cpus=0.5))
    assert not done.failures
    assert same(tmp_path / "local", tmp_path / "w")


def test_bad_recordings_are_set_aside_everywhere(
    plant: Path,
    tmp_path: Path,
    cluster: Any,
    small_shards: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One recording in twenty: cut, garbled or empty."""
    plant = copytree(plant, tmp_path / "plant")
    clips = sorted(path for path in plant.rglob("*.wav") if path.parent.name != "supplemental")
    rng = random.Random(0)
    bad = rng.sample(clips, max(3, len(clips) // 20))
    for number, clip in enumerate(bad):
        data = clip.read_bytes()
        clip.write_bytes([data[:30], rng.randbytes(len(data)), b""][number % 3])
    told = {}
    for where in ("local", "ray"):
        words = ["harken", "run", "spectral_knn", "--data", str(plant), "--workspace", str(tmp_path / where)]
        words += ["--executor", "ray", "--address", cluster.address] if where == "ray" else []
        monkeypatch.setattr(sys, "argv", [*words, "--json"])
        with pytest.raises(SystemExit) as ended:
            main.run()
        assert ended.value.code == 0
        told[where] = json.loads(capsys.readouterr().out)
        del told[where]["folder"]
    assert len(told["ray"]["quarantined"]) == len(bad)
    assert told["ray"] == told["local"]
    assert same(tmp_path / "local", tmp_path / "ray")


# --- deaths


def test_a_worker_dies_in_the_middle_of_an_embedding(large: Path, tmp_path: Path, cluster: Any) -> None:
    run(large, tmp_path / "local")
    killed = []

    def kill() -> None:
        victim = workers(cluster, "embed/")[0]
        killed.append((victim.pid, stored(tmp_path / "ray")))
        victim.kill()

    thread = when(lambda: stored(tmp_path / "ray") > 10 and workers(cluster, "embed/"), kill)
    done, _ = run(large, tmp_path / "ray", executor=RayCluster(cluster.address))
    thread.join()
    assert len(killed) == 1
    assert killed[0][1] < 150  # in the middle
    assert not done.failures
    assert same(tmp_path / "local", tmp_path / "ray")


@pytest.mark.slow
def test_a_node_dies_in_the_middle_of_an_embedding(large: Path, tmp_path: Path, cluster: Any) -> None:
    changes = {"stages.embed.level": "recorded"}
    run(large, tmp_path / "local", changes=changes)
    node = cluster.list_all_nodes()[-1]  # the first is the head
    gone = []

    def remove() -> None:
        gone.append(stored(tmp_path / "ray"))
        cluster.remove_node(node, allow_graceful=False)

    thread = when(lambda: stored(tmp_path / "ray") > 10, remove)
    try:
        done, _ = run(large, tmp_path / "ray", changes=changes, executor=RayCluster(cluster.address))
    finally:
        thread.join()
        add_node(cluster)
    assert gone
    assert gone[0] < 150
    assert not done.failures
    assert same(tmp_path / "local", tmp_path / "ray")


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_the_driver_is_stopped_and_starts_again(
    sent: signal.Signals, code: int, plant: Path, tmp_path: Path, cluster: Any
) -> None:
    """What was done is found; what was under way is at most a task for each worker."""
    _, tasks = run(plant, tmp_path / "local", "finetune", changes=FINETUNE)
    words = ["run", "finetune", "--profile", "tiny", "--data", str(plant), "--workspace", str(tmp_path / "ray")]
    words += ["--executor", "ray", "--address", cluster.address]
    words += [word for name, value in FINETUNE.items() for word in ("--set", f"{name}={value}")]
    program = f"import sys; from harken.cli.main import run; sys.argv[1:] = {words!r}; run()"
    driver = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def made() -> dict[str, int]:
        return {file.parent.name: file.stat().st_mtime_ns for file in (tmp_path / "ray").glob("objects/*/*/stage.json")}

    end = time.monotonic() + 120
    while len(made()) < 4 and time.monotonic() < end and driver.poll() is None:
        time.sleep(0.01)
    os.kill(driver.pid, sent)
    assert driver.wait(timeout=60) == code
    while workers(cluster, "embed") or workers(cluster, "nearest"):
        assert time.monotonic() < end  # Ray ends the workers of a driver that has gone
        time.sleep(0.05)
    before = made()
    begun = {folder.name.split(".")[0] for folder in (tmp_path / "ray" / "scratch").glob("*.*.*")}
    assert 4 <= len(before) < len(tasks)
    assert len(begun - before.keys()) <= NODES
    done, started = run(plant, tmp_path / "ray", "finetune", changes=FINETUNE, executor=RayCluster(cluster.address))
    assert len(started) == len(tasks) - len(before)
    assert not done.failures
    assert made().items() >= before.items()
    assert same(tmp_path / "local", tmp_path / "ray")


def test_shards_of_a_killed_embedding_are_not_done_again(plant: Path, tmp_path: Path) -> None:
    """Of embed_trained, whose vectors are in scratch until all are there."""
    _, _ = run(plant, tmp_path / "w", "finetune", changes=FINETUNE, machines=["fan"])
    (folder, *_) = [
        file.parent
        for file in sorted((tmp_path / "w" / "objects").rglob("stage.json"))
        if json.loads(file.read_text())["kind"] == "embed_trained"
    ]
    (model,) = [file.parent for file in (tmp_path / "w" / "objects").rglob("training.json")]
    from harken.bench.graph import make_units
    from harken.bench.run import load_clips
    from harken.bench.stages import embed_trained

    (unit,) = make_units(load_clips(plant)[0], ["fan"])
    (tmp_path / "out").mkdir()
    (tmp_path / "scratch").mkdir()
    context = Context(
        clips=list(unit.clips), inputs={"model": (model,)}, out=tmp_path / "out", scratch=tmp_path / "scratch",
        store=tmp_path, logs=tmp_path, seed=0, workers=1,
    )  # fmt: skip
    cls = stage_class("embed_trained")
    number = json.loads((folder / "stage.json").read_text())["parameters"]["checkpoint"]
    parameters = cls.Parameters(checkpoint=number)  # type: ignore[call-arg]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed_trained, "PART", 5)
        for index in (2, 0, 1):
            cls.run_shard(parameters, context, index, 3)
        assert len(list((tmp_path / "scratch").iterdir())) == -(-len(unit.clips) // 5)
        # One is lost, another is damaged; the others are not computed again.
        lost, damaged, *whole = sorted((tmp_path / "scratch").iterdir())
        lost.unlink()
        damaged.write_bytes(damaged.read_bytes()[:20])
        times = {file: file.stat().st_mtime_ns for file in whole}
        cls.run(parameters, context)
    assert {file: file.stat().st_mtime_ns for file in whole} == times
    for name in ("embeddings.safetensors", "clips.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()


class _Slower(Stage):
    """Is overtaken by another process that makes the same object."""

    makes = "x"

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        workspace = Workspace(context.store.parent)
        first = workspace.new("a" * 40)
        (first / "x").write_text("made")
        workspace.keep("a" * 40, first, {})
        (context.scratch / "state").write_text("has no folder any more")


def test_the_first_of_two_that_make_the_same_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harken.bench.jobs.stage_class", lambda kind: _Slower)
    task = Task("slow", "slow", "slow", Unit("", "m", ()), None, {}, {})
    workspace = Workspace(tmp_path)
    made = perform(Job(task, "a" * 40, {}), tmp_path, 1)
    assert made == workspace.get("a" * 40)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_two_stages_make_alike_is_made_once(plant: Path, tmp_path: Path) -> None:
    recipe = load_recipe("spectral_knn")
    file = tmp_path / "twice.yaml"
    twice = recipe.model_copy(
        update={
            "stages": {**recipe.stages, "again": recipe.stages["nearest"]},
            "systems": {**recipe.systems, "again": "again"},
        }
    )
    file.write_text(twice.as_yaml())
    done, started = run(plant, tmp_path / "w", str(file), profile="full", workers=2)
    assert len(started) == 4
    assert [len(one.scores.test) for one in done.systems] == [24, 24]


# --- what can be told beforehand


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["harken", "run", "spectral_knn", *words])
    with pytest.raises(SystemExit) as ended:
        main.run()
    return ended.value.code


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--executor", "ray", "--address", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
        (["--executor", "ray", "--address", "ray://127.0.0.1:1"], "no Ray cluster answers at ray://127.0.0.1:1"),
        (["--executor", "ray", "--address", "nonsense"], "'nonsense' is not an address of a Ray cluster"),
        (["--executor", "ray", "--address", "h:1", "--workers", "2"], "--workers is for this machine"),
        (["--executor", "ray", "--task-gpus", "1.5"], "a task cannot take 1 CPUs and 1.5 GPUs"),
        (["--address", "auto"], "are for a Ray cluster. Add --executor ray"),
    ],
)
def test_bad_options(
    words: list[str], message: str, plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    needs_ray()
    assert command(monkeypatch, "--data", str(plant), "--workspace", str(tmp_path), *words) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_without_ray(
    plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["--data", str(plant), "--workspace", str(tmp_path), "--executor", "ray"]
    assert command(monkeypatch, *words) == 2
    assert "pip install 'harken[ray]'" in capsys.readouterr().err


def test_nothing_imports_ray_but_its_executor() -> None:
    program = "import sys, harken.cli.run, harken.bench.run, harken.bench.ray_cluster; print('ray' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"


def test_nodes_that_cannot(plant: Path, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HarkenError, match=r"no node of the cluster has 1 CPUs and 0\.5 GPUs"):
        run(plant, tmp_path, executor=RayCluster(cluster.address, task_gpus=0.5))
    monkeypatch.setattr(ray_cluster, "_leave_token", lambda workspace: str(tmp_path / "elsewhere" / "token"))
    with pytest.raises(HarkenError, match=r"the workspace is not visible on node .* shared file system"):
        run(plant, tmp_path, executor=RayCluster(cluster.address))


def test_a_place(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    place = ray_cluster.Place(tmp_path, str(tmp_path / "token"), os.getcwd(), None, {}, __version__, 1)
    assert place.enter() is None
    assert "not visible on node" in str(replace(place, token="nowhere").enter())
    assert "recordings are not visible" in str(replace(place, sample="/nowhere/clip.wav").enter())
    assert "has harken" in str(replace(place, version="0").enter())


def test_clips_do_not_travel_with_every_task(cluster: Any, tmp_path: Path) -> None:
    """20,000 of them go to each node once."""
    import ray

    clips = tuple(Clip(f"machine/train/clip_{i:06d}.wav", Path(f"/data/clip_{i:06d}.wav")) for i in range(20_000))
    task = Task("labels", "labels", "labels", Unit("", "all machines", clips), None, {}, {})
    pool = RayCluster(cluster.address).open({}, Workspace(tmp_path))
    try:
        sizes = []
        pool._do = _Recorder(sizes)
        for _ in range(3):
            pool.submit(Job(task, "a" * 40, {}), lambda done, total: None)
        assert len(pool._units) == 1
        assert max(sizes) < 5000
        assert len(ray.get(pool._units[id(task.unit)]).clips) == 20_000
        pool._running.clear()
    finally:
        pool.close()


class _Recorder:
    """Stands for a Ray function; notes the bytes of what it is called with."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    def options(self, **options: Any) -> _Recorder:
        return self

    def remote(self, place: Any, job: Any, unit: Any) -> object:
        from ray import cloudpickle

        self.sizes.append(len(cloudpickle.dumps((place, job))))
        return object()


@pytest.mark.slow
def test_a_task_whose_worker_dies_each_time_is_given_up(
    plant: Path, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = tmp_path / "deadly.py"
    deadly.write_text(
        "import os\n"
        "from pathlib import Path\n"
        "from harken.detection.knn import KNN\n"
        "class Deadly(KNN):\n"
        "    def fit(self, *arguments, **options):\n"
        f"        Path({str(tmp_path)!r}, f'try-{{os.getpid()}}').touch()\n"
        "        os.abort()\n"
    )
    monkeypatch.setattr(ray_cluster, "ATTEMPTS", 2)
    changes = {"stages.nearest.detector": f"{deadly}:Deadly"}
    recipe = load_recipe("spectral_knn", changes=changes)
    with pytest.raises(HarkenError, match=r"the worker of nearest/.* died 2 times .*--executor local"):
        run_recipe(recipe, plant, Workspace(tmp_path / "w"), machines=["fan"], executor=RayCluster(cluster.address))
    assert len(list(tmp_path.glob("try-*"))) == 2


def test_an_archive_is_judged_as_on_one_machine(cluster: Any, tmp_path: Path) -> None:
    """`harken score --executor ray` writes the same bytes, by day."""
    (tmp_path / "normal").mkdir()
    (tmp_path / "archive").mkdir()
    detector_in(tmp_path / "normal").save(tmp_path / "pump.harken")
    for number in range(4):
        write(tmp_path / "archive" / f"pump_2026030{1 + number // 2}_1{number}0000.wav", humming(1.0, 70 + number))
    arguments = ["score", tmp_path / "archive", "-m", tmp_path / "pump.harken", "--results"]
    for folder, options in (("local", ["--workers", 1]), ("ray", ["--executor", "ray"])):
        done = called(*arguments, tmp_path / folder, *options)
        assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "ray")) == ["2026-03-01.parquet", "2026-03-02.parquet"]
    for name in os.listdir(tmp_path / "ray"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
