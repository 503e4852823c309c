"""The page with a year of scores: bytes and seconds, first and afterwards.

    python benchmarks/page.py [--machines 50] [--window-s 10] [--folder DIR]

A store as thinning leaves it: windows of the last 7 days, minutes to 30 days, hours to a year. One reader by HTTP.
"""

from __future__ import annotations

import argparse
import math
import resource
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from harken.page.machines import key_of
from harken.page.server import PageServer
from harken.page.settings import PageSettings
from harken.service.alarm_state import AlarmState
from harken.service.changes import Changes, ModelInUse
from harken.service.store import tables
from harken.service.store.hours import add_to_hours
from harken.service.store.store import Store

MONITOR, ROWS = "hall", 50_000


def windows(machine: str, now: datetime, window_s: float) -> Iterator[dict[str, Any]]:
    count = int(7 * 86_400 / window_s)
    for number in range(count):
        start = now - timedelta(seconds=window_s * (count - number))
        yield {
            "monitor": MONITOR, "machine": machine, "number": number, "position": number * 160_000, "start": start,
            "end": start + timedelta(seconds=window_s), "kind": "normal", "score": 1 + 0.2 * math.sin(number / 900),
            "event_score": 0.5, "p_value": 0.4, "model": "a" * 64, "reason": "", "alarm": "",
        }  # fmt: skip


def thinned(machine: str, now: datetime) -> Iterator[dict[str, Any]]:
    for period, length, first, last in (("hour", 3600, 365, 30), ("minute", 60, 30, 7)):
        for step in range(int((first - last) * 86_400 / length)):
            yield {
                "monitor": MONITOR, "machine": machine, "period": period, "count": length // 10, "not_judged": 0,
                "start": now - timedelta(days=first) + timedelta(seconds=step * length), "minimum": 0.8, "mean": 1.0,
                "maximum": 1.3,
            }  # fmt: skip


def fill(store: Store, machines: list[str], window_s: float) -> int:
    """Rows that were written."""
    now, written = datetime.now(UTC).replace(microsecond=0), 0
    for machine in machines:
        model = ModelInUse(machine, "a" * 64, "/nowhere/pump.harken", now, 1.5, [])
        store.commit(Changes(states={machine: {"state": AlarmState().to_json()}}, models=[model]))
        for table, rows in ((tables.windows, windows(machine, now, window_s)), (tables.thinned, thinned(machine, now))):
            values = list(rows)
            for begin in range(0, len(values), ROWS):
                with store.transaction() as connection:
                    connection.execute(sa.insert(table), values[begin : begin + ROWS])
                    if table is tables.windows:
                        add_to_hours(connection, values[begin : begin + ROWS])
            written += len(values)
    store.seen(now)
    with store.transaction() as connection:
        connection.execute(sa.update(tables.monitors).values(hours_since=now - timedelta(days=7)))
    return written


def asked(url: str) -> tuple[float, int]:
    """Seconds, bytes."""
    begun = time.monotonic()
    with urllib.request.urlopen(url, timeout=120) as answer:
        size = len(answer.read())
    return time.monotonic() - begun, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=50)
    parser.add_argument("--window-s", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, help="where the store is kept for another run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        place, machines = folder / "store.db", [f"machine {number:02d}" for number in range(args.machines)]
        if not place.exists():
            folder.mkdir(parents=True, exist_ok=True)
            store = Store.open(place, MONITOR)
            rows = fill(store, machines, args.window_s)
            store.close()
            print(f"{rows} rows, {place.stat().st_size / 2**20:.0f} MiB")
        server = PageServer(PageSettings(place, folder / "evidence", port=0))
        begun = time.monotonic()
        server.start()
        print(f"start {time.monotonic() - begun:.2f} s")
        key = key_of(MONITOR, machines[0])
        paths = {
            "first page, at once": "/", "first page, again": "/", "machine": f"/machines/{key}",
            "scores of a week": f"/machines/{key}/scores/week", "scores of a year": f"/machines/{key}/scores/year",
            "scripts and style of the first page": "/static/htmx.min.js",
        }  # fmt: skip
        print("| what | s | kB |\n|---|---|---|")
        for name, path in paths.items():
            seconds, size = asked(server.url + path)
            print(f"| {name} | {seconds:.2f} | {size / 1000:.0f} |")
        server.stop()
        print(f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
