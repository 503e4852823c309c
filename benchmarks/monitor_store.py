"""Store and alarms of the monitor under kills, over days of windows, and with a score that hovers at the limit.

    python benchmarks/monitor_store.py [--kills 200] [--windows 8640] [--only kills hovering days size]

Kills: a process commits windows of a source that numbers them, and hands messages to a sink, until it is killed (-9) at
a random moment; the next one takes up. Afterwards windows, alarms and messages are compared with those of a process
that nobody killed, on SQLite and, where this machine has it, on PostgreSQL. Hovering: 24 hours of windows whose score
is around one of the limits of the rule: annunciations. Days: four machines in fast motion: growth of memory, open
files, and time per window. Size (only where asked for): scores of one machine over 90 days in fast motion, thinned as
they age: the file of the store.
"""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.synchronize
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from alarm_rates import run
from harken.detection.calibration import Calibration
from harken.monitor.alarm import AlarmSetting
from harken.monitor.judge import judge
from harken.monitor.verdict import Verdict
from harken.monitor.view_scores import ViewScores
from harken.service.alarm_state import Acknowledge, AlarmState, Clear, Event, Raise, step
from harken.service.changes import Changes, WindowScore
from harken.service.episode_rule import EpisodeRule
from harken.service.evidence import EvidenceFolder
from harken.service.machine_alarm import MachineAlarm
from harken.service.recorder import Recorder
from harken.service.records import HeardWindow, Window
from harken.service.requests import Request
from harken.service.store import tables
from harken.service.store.store import Store
from harken.service.store.thinning import thin

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from postgres import Postgres, postgres_programs

with suppress(ImportError):  # before processes are forked, which would each import it
    import psycopg  # noqa: F401

START = datetime(2026, 1, 1, tzinfo=UTC)
HOP = timedelta(seconds=10)
RULE = EpisodeRule(AlarmSetting("1/week", Calibration.fit(np.random.default_rng(0).normal(size=500)), 10.0))
#: a fault of 15 windows in every 60
_PERIOD, _FAULT = 60, 15


def heard(machine: str, number: int, score: float) -> HeardWindow:
    """A window of noise with this score."""
    samples_CS = np.random.default_rng(number).normal(0, 0.1, (1, 1600)).astype(np.float32)
    resume = {machine: {"number": number + 1}}
    window = Window(samples_CS, 160, number, 1600 * number, START + number * HOP, resume=resume)
    judged = judge(ViewScores(score), RULE.setting)
    return HeardWindow(machine, window, Verdict(Path("<sound>"), judged.kind, score, p_value=judged.p_value), "model")


def score_of(number: int) -> float:
    """Of a machine with a fault now and then; the same at every try."""
    return float(np.random.default_rng([1, number]).normal(4.0 if number % _PERIOD >= _PERIOD - _FAULT else 0.0))


def commit_windows(place: str, sent: Path, last: int, ready: multiprocessing.synchronize.Event) -> None:
    """Take up where the store is, and go on to window `last`; messages go to a file, one id a line."""
    recorder = Recorder(place)
    recorder.outbox.use_sinks(["file"])
    alarm = MachineAlarm("pump", RULE, "model", recorder)
    stored = recorder.loaded()
    assert stored is not None
    ready.set()
    first = stored.resume.get("pump", {"number": 0})["number"]
    with open(sent, "a", buffering=1) as file:
        for number in range(first, last):
            # Before the window: who takes up does it again if it was not stored.
            if number % _PERIOD == 5:
                alarm.answer(Request("pump", "acknowledge", "ada", START + number * HOP))
            alarm.hear(heard("pump", number, score_of(number)))
            while (message := recorder.outbox.next_message("file")) is not None:
                file.write(message.id + "\n")
                recorder.outbox.delivered("file", message)
    recorder.close()


def summary(place: str) -> tuple[list[int], list[tuple[datetime, str]], list[tuple[int, str, datetime]], list[str]]:
    """Numbers of windows, times and phases of alarms, numbers and events and times of messages, and their ids."""
    store = Store.open(place)
    with store.reading() as connection:
        numbers = [*connection.scalars(sa.select(tables.windows.c.number).order_by(tables.windows.c.number))]
        alarms = tables.alarms.c
        rows = connection.execute(sa.select(alarms.raised, alarms.phase, alarms.windows).order_by(alarms.raised))
        alarm_rows = [tuple(row) for row in rows]
        if store.engine.dialect.name == "sqlite":
            assert connection.scalar(sa.text("PRAGMA integrity_check")) == "ok"
    messages = store.messages(0, 100_000)
    store.close()
    events = [(message.number, message.payload["event"], message.time) for message in messages]
    return numbers, alarm_rows, events, [message.id for message in messages]  # type: ignore[return-value]


def kills(place: str, whole: str, folder: Path, count: int) -> None:
    """Kill a process so often, and compare with one that nobody killed."""
    chance = random.Random(0)
    sent = folder / "sent"
    context = multiprocessing.get_context("fork")
    done = 0
    while done < count:
        ready = context.Event()
        process = context.Process(target=commit_windows, args=(place, sent, 10**9, ready))
        process.start()
        # A quarter while the store is being opened, or made, and the others while windows are stored.
        if done % 4 and not ready.wait(60):
            raise TimeoutError("the store is not opened")
        time.sleep(chance.uniform(0.0, 0.4))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        done += 1
    last = max(summary(place)[0], default=0) + 130
    for each, log in ((place, sent), (whole, folder / "sent_whole")):
        process = context.Process(target=commit_windows, args=(each, log, last, context.Event()))
        process.start()
        process.join()
        assert process.exitcode == 0
    numbers, alarms, events, ids = summary(place)
    expected_numbers, expected_alarms, expected_events, _ = summary(whole)
    assert numbers == expected_numbers == [*range(last)], "windows twice or lost"
    assert alarms == expected_alarms, "alarms twice or lost"
    assert any(event[1] == "raised" for event in events), "no alarm at all"
    assert events == expected_events, "messages twice or lost"
    got = sent.read_text().split()
    assert [*dict.fromkeys(got)] == ids, "messages to the sink lost, or out of order"
    print(
        f"  {count} kills, {last} windows, {len(alarms)} alarms, {len(events)} messages: none lost or twice; "
        f"{len(got) - len(ids)} came twice to the sink, with the same id",
        flush=True,
    )


@contextmanager
def places(folder: Path) -> Iterator[dict[str, tuple[str, str]]]:
    """Two empty stores of each kind that this machine has."""
    sqlite = {"SQLite": (str(folder / "killed.db"), str(folder / "whole.db"))}
    if postgres_programs() is None:
        print("PostgreSQL (initdb, pg_ctl) is not on this machine")
        yield sqlite
        return
    with Postgres() as server:
        yield sqlite | {"PostgreSQL": (server.new_database(), server.new_database())}


def hovering(count: int = 8640) -> None:
    """Annunciations of 24 hours around each limit, with noise of several sizes."""
    normal = RULE.setting.calibration.scores
    limits = {"the limit of single windows": RULE.setting.threshold, "the highest normal score": float(normal[-1])}
    limits |= {
        f"the {share:.0%} quantile of normal scores": float(np.quantile(normal, share)) for share in (0.95, 0.9, 0.8)
    }
    for name, limit in limits.items():
        for spread in (0.01, 0.3, 1.0, 2.0):
            on = run(RULE, limit + spread * np.random.default_rng(2).normal(size=count))
            cells = [annunciations(on, acknowledges) for acknowledges in (False, True)]
            print(f"  {name:<40} +- {spread:<4} {cells[0]}, acknowledged at once {cells[1]}", flush=True)


def annunciations(on_N: NDArray[np.bool_], acknowledges: bool) -> int:
    """How often people are called. on_N: whether the machine sounds abnormal after each window."""
    state, count = AlarmState(), 0
    for number in np.flatnonzero(np.diff(on_N, prepend=False)):
        time_of = START + int(number) * HOP
        events: list[Event] = [Raise(time_of, str(number)) if on_N[number] else Clear(time_of)]
        if acknowledges:
            events.append(Acknowledge(time_of))
        for event in events:
            state, announcements = step(state, event)
            count += sum(each.action == "raised" for each in announcements)
    return count


def days(count: int) -> None:
    """Memory, open files and time per window of four machines."""
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder) / "store.db")
        recorder.outbox.use_sinks(["nobody"])
        evidence = EvidenceFolder(Path(folder) / "evidence", 2**20)
        names = [f"machine {number}" for number in range(4)]
        alarms = {name: MachineAlarm(name, RULE, "model", recorder, evidence=evidence) for name in names}
        seconds, baseline, files = [], 0.0, 0
        for number in range(count):
            for name, alarm in alarms.items():
                window = heard(name, number, score_of(number + 71 * names.index(name)))
                began = time.perf_counter()
                alarm.hear(window)
                seconds.append(time.perf_counter() - began)
            if number % 10 == 0:
                recorder.requests()
                while (message := recorder.outbox.next_message("nobody")) is not None:
                    recorder.outbox.delivered("nobody", message)
            if number == count // 10:
                baseline, files = resident_mib(), len(os.listdir("/proc/self/fd"))
        grown, opened = resident_mib() - baseline, len(os.listdir("/proc/self/fd")) - files
        size = sum(file.stat().st_size for file in Path(folder).glob("store.db*")) / 2**20
        p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1000
        print(
            f"  {count} windows x 4: memory {baseline:.0f} MiB, grown by {grown:.1f} MiB; open files {files}, grown by "
            f"{opened}; store {size:.1f} MiB, evidence {evidence.size / 2**20:.2f} MiB of 1; per window {p50:.1f} ms, "
            f"p99 {p99:.1f} ms",
            flush=True,
        )
        recorder.close()
        evidence.close()


def size(count: int) -> None:
    """Bytes of an SQLite file over so many days of windows."""
    with tempfile.TemporaryDirectory() as folder:
        store, number, random_scores = Store.open(Path(folder) / "store.db"), 0, np.random.default_rng(0)
        for day in range(count):
            for quarter in range(4):
                windows = []
                for score in random_scores.normal(size=round(timedelta(hours=6) / HOP)):
                    start = START + number * HOP
                    scores = (float(score), float(score), 0.5)
                    windows.append(
                        WindowScore("pump", number, 160_000 * number, start, start + HOP, "normal", *scores, "model")
                    )
                    number += 1
                store.commit(Changes(windows=windows))
                while thin(store, START + timedelta(days=day, hours=6 * (quarter + 1))):
                    pass
            if day + 1 in (1, 7, 14, 30, 60, 90):
                with store.engine.connect() as connection:
                    pages, free = (
                        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
                        for name in ("page_count", "freelist_count")
                    )
                megabytes = sum(file.stat().st_size for file in Path(folder).glob("store.db*")) / 1e6
                print(f"  {day + 1} days: {megabytes:.1f} MB, {free / pages:.0%} of it free", flush=True)
        store.close()


def resident_mib() -> float:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--windows", type=int, default=8640)
    parser.add_argument("--stores", nargs="*", default=["SQLite", "PostgreSQL"])
    parser.add_argument("--only", nargs="*", default=["kills", "hovering", "days"])
    options = parser.parse_args()
    if "kills" in options.only:
        with tempfile.TemporaryDirectory() as root, places(Path(root)) as stores:
            for store_name, (killed, whole_one) in stores.items():
                if store_name not in options.stores:
                    continue
                part_folder = Path(root) / store_name
                part_folder.mkdir()
                print(store_name, flush=True)
                kills(killed, whole_one, part_folder, options.kills)
    if "hovering" in options.only:
        print("24 hours of windows around a limit")
        hovering()
    if "days" in options.only:
        print("days")
        days(options.windows)
    if "size" in options.only:
        print("Size of the store, one machine with a window every 10 s:", flush=True)
        size(90)
