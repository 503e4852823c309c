"""What it costs that people watch the sound of a machine: CPU seconds per second of sound.

    python benchmarks/live_sound.py [--seconds 20]

A machine is heard in blocks of 20 ms, first by nobody, then with open pages that follow it. The cost of the page's own
process is measured with everything in it: drawing, messages, requests.
"""

from __future__ import annotations

import argparse
import http.client
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from harken.page.machines import key_of
from harken.page.server import PageServer
from harken.page.settings import PageSettings
from harken.service.changes import Changes, ModelInUse
from harken.service.live_sound import LiveSound
from harken.service.store.store import Store

BLOCK_S = 0.02


def drawing(rate: int, channels: int, seconds: int, *, watched: bool) -> float:
    """CPU seconds per second of sound, without a page. Sound is given in minutes that are drawn in full."""
    live = LiveSound()
    noise_CS = np.random.default_rng(0).normal(0, 0.1, (channels, round(BLOCK_S * rate))).astype(np.float32)
    now, blocks = datetime.now(UTC), round(min(seconds, 50) / BLOCK_S)
    if not watched:
        began = time.process_time()
        for _ in range(blocks):
            live.hear(noise_CS, rate, now)
    else:
        with live.watched():
            live.hear(noise_CS, rate, now)
            began = time.process_time()
            for _ in range(blocks):
                live.hear(noise_CS, rate, now)
    return (time.process_time() - began) / (blocks * BLOCK_S)


def followed(pages: int, seconds: float) -> tuple[float, float]:
    """CPU seconds per second of the whole process while `pages` follow 16 kHz sound; and kB per second and page."""
    live, stop = LiveSound(), threading.Event()
    with TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "m.db", "monitor")
        store.commit(Changes(models=[ModelInUse("pump", "abc", "pump.harken", datetime.now(UTC), 1.0, [])]))
        store.close()
        settings = PageSettings(Path(folder) / "m.db", Path(folder), port=0, live=lambda monitor, machine: live)
        server = PageServer(settings)
        server.start()
        time.sleep(1.0)
        noise_CS = np.random.default_rng(0).normal(0, 0.1, (1, 320)).astype(np.float32)

        def sound() -> None:
            while not stop.wait(BLOCK_S):
                live.hear(noise_CS, 16_000, datetime.now(UTC))

        threading.Thread(target=sound, daemon=True).start()
        connections, read = [], [0] * pages
        for row in range(pages):
            connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
            connection.request("GET", f"/machines/{key_of('monitor', 'pump')}/live")
            answer = connection.getresponse()
            connections.append(connection)

            def follow(row: int = row, answer: http.client.HTTPResponse = answer) -> None:
                while not stop.is_set():
                    read[row] += len(answer.readline())

            threading.Thread(target=follow, daemon=True).start()
        time.sleep(1.0)
        began, heard = time.process_time(), sum(read)
        time.sleep(seconds)
        cost, size = (time.process_time() - began) / seconds, (sum(read) - heard) / seconds / max(1, pages) / 1000
        stop.set()
        server.stop()
    return cost, size


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
    print("| sound | nobody watches | watched |\n|---|---|---|")
    for rate, channels in ((16_000, 1), (48_000, 1), (48_000, 8)):
        costs = [1000 * drawing(rate, channels, round(seconds), watched=watched) for watched in (False, True)]
        form = f"{rate // 1000} kHz, {channels} channel{'s' * (channels > 1)}"
        print(f"| {form} | {costs[0]:.2f} ms/s | {costs[1]:.1f} ms/s |")
    print("\n| open pages | CPU, the whole process | per page |\n|---|---|---|")
    for pages in (0, 1, 5, 20):
        cost, size = followed(pages, seconds)
        print(f"| {pages} | {1000 * cost:.0f} ms/s | {size:.1f} kB/s |")


if __name__ == "__main__":
    main()
