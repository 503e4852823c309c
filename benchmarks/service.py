"""The monitor as a whole: kills, latency, a broker that is down, many sensors.

    python benchmarks/service.py [--only kills latency broker sensors] [--kills 200] [--seconds 60] [--sensors 1000]

Kills: `Monitor` judges numbered recordings of a folder, in which a fault comes and goes, and tells a webhook, until
it is killed (-9) at a random moment; the next one takes up. Afterwards windows, alarms, answers and messages are
counted, on SQLite and, where this machine has it, PostgreSQL. Latency: `harken monitor -` is given sound in real
time: seconds to the start, memory, and from the last sample of a window to its verdict in the store. Broker: messages
of an hour, one per five seconds, while Mosquitto is down; in fast motion. Sensors: so many virtual ones, which share
a model, each with a window of ten seconds at a moment of its own within ten minutes, of which `--seconds` are waited
for in real time; then all of them at the same moment.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from harken.service import fleet
from harken.service.changes import Changes
from harken.service.configuration.read import checked
from harken.service.delivery import Delays, Delivery
from harken.service.monitor import Monitor
from harken.service.recorder import Recorder
from harken.service.records import Block, HeardWindow, Message
from harken.service.sinks.mqtt import BrokerAddress, MqttSink
from harken.service.sinks.webhook import WebhookSink
from harken.service.sources.base import SoundSource, SourceForm
from peers import MOSQUITTO, free_port, listening, mosquitto, receiver, wait_for
from service_kills import RATE, kills, model_of, sound, stores


def percentiles(values: list[float]) -> str:
    """Median, 99th percentile and maximum."""
    p50, p99 = np.percentile(values, [50, 99])
    return f"median {p50:.3f} s, p99 {p99:.3f} s, most {max(values):.3f} s"


# ---- latency -----------------------------------------------------------------------------------------------


def latency(folder: Path, seconds: int) -> None:
    """See the module."""
    model = model_of(folder, 1.0)
    words = [Path(sys.executable).with_name("harken"), "monitor", "-", "-m", model, "--rate", str(RATE), "--json",
             "--page", "0"]  # fmt: skip
    begun = time.monotonic()
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False, cwd=folder
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    while b"listening to" not in process.stderr.readline():
        pass
    start_s = time.monotonic() - begun
    time.sleep(3)
    status = Path(f"/proc/{process.pid}/status").read_text()
    idle_mib = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    heard: list[tuple[int, float]] = []

    def read() -> None:
        for row in process.stdout or ():
            heard.append((json.loads(row)["number"], time.monotonic()))

    threading.Thread(target=read, daemon=True).start()
    threading.Thread(target=process.stderr.read, daemon=True).start()
    ends, began = [], time.monotonic()
    for number in range(seconds):
        data = (sound(5_000 + number, 1.0) * 32767).astype("<i2").tobytes()
        for piece in range(10):
            time.sleep(max(0.0, began + number + (piece + 1) / 10 - time.monotonic()))
            process.stdin.write(data[piece * 3200 : (piece + 1) * 3200])
            process.stdin.flush()
        ends.append(time.monotonic())
    process.stdin.close()
    process.wait(30)
    lags = [at - ends[number] for number, at in heard]
    print(f"latency: start {start_s:.2f} s, idle {idle_mib:.0f} MiB; {len(lags)} of {seconds} windows, last sample to "
          f"stored verdict: {percentiles(lags)}; load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")  # fmt: skip


# ---- broker ------------------------------------------------------------------------------------------------


def broker(folder: Path, messages: int = 720) -> None:
    """See the module."""
    if MOSQUITTO is None:
        print("broker: mosquitto is not installed")
        return
    recorder, port = Recorder(folder / "broker.db"), free_port()
    with receiver() as peer:
        sinks = [
            MqttSink("broker", BrokerAddress("127.0.0.1", port), monitor="plant", patience_s=1.0),
            WebhookSink("hook", peer.url),
        ]
        recorder.outbox.use_sinks([sink.name for sink in sinks])
        deliveries = [Delivery(sink, recorder.outbox, delays=Delays(0.01, 3.0)) for sink in sinks]
        for delivery in deliveries:
            delivery.start()
        begun, at_hook = time.monotonic(), 0.0
        for number in range(messages):
            message = Message(f"m{number}", 0, "alarm", f"machine-{number % 4}", datetime.now(UTC), {"state": "normal"})
            recorder.commit(Changes(messages=[message]))
            for delivery in deliveries:
                delivery.wake()
        wait_for(lambda: len(peer.requests) >= messages)
        at_hook = time.monotonic() - begun
        received: list[str] = []
        with mosquitto(folder, port, "allow_anonymous true"), listening(port, "harken/plant/messages") as listener:
            wait_for(lambda: not recorder.outbox.waiting_messages()["broker"], 120)
            time.sleep(0.5)
            received += [json.loads(text)["id"] for _, text, _ in listener.received]
        for delivery in deliveries:
            delivery.stop()
    recorder.close()
    first = list(dict.fromkeys(received))
    lost = messages - len(first)
    print(f"broker: {messages} messages while it was down; the webhook had all after {at_hook:.1f} s; of the broker "
          f"lost {lost}, in order {first == [f'm{n}' for n in range(messages)][: len(first)]}, twice "
          f"{len(received) - len(first)}")  # fmt: skip


# ---- sensors -----------------------------------------------------------------------------------------------


class VirtualSensor(SoundSource):
    """Gives a window of ten seconds at each of its times, on the monotonic clock."""

    live = True
    form = SourceForm(RATE, 1)

    def __init__(self, number: int, times: list[float]) -> None:
        self.number, self.times = number, times

    @property
    def place(self) -> str:
        return f"sensor {self.number}"

    def listen(self, stop: threading.Event) -> Generator[Block | None]:
        samples_CS = sound(20_000 + self.number % 50, 10.0)[None]
        for row, moment in enumerate(self.times):
            while not stop.is_set() and time.monotonic() < moment:
                stop.wait(min(2.0, max(0.0, moment - time.monotonic())))
                yield None
            if stop.is_set():
                return
            position = row * 2 * samples_CS.shape[1]
            yield Block(samples_CS, RATE, position, datetime.fromtimestamp(time.time() - 10.0, UTC))
        while not stop.is_set():
            stop.wait(2.0)
            yield None


def sensors(folder: Path, count: int, seconds: int) -> None:
    """See the module."""
    model, rng, lags = model_of(folder, 10.0), random.Random(0), []
    settle_s = 20.0 + count / 50
    zero = time.monotonic() + settle_s
    spread = [zero + rng.uniform(0, 600) for _ in range(count)]
    # Those of the first `seconds`, and a moment at which all have a window.
    together = zero + seconds + 10.0
    times = [[moment, together] if moment < zero + seconds else [together] for moment in spread]
    fleet.make_source = lambda entry, machines, **options: VirtualSensor(int(machines[0]), times[int(machines[0])])  # type: ignore[assignment]
    data: dict[str, Any] = {
        "sources": {str(number): {"kind": "stream", "url": "virtual"} for number in range(count)},
        "machines": {str(number): {"source": str(number), "model": str(model)} for number in range(count)},
        "http": None,
        "store": "sensors.db",
    }

    def heard(window: HeardWindow) -> None:
        lags.append((time.monotonic(), time.time() - window.window.end.timestamp()))

    begun = time.monotonic()
    monitor = Monitor(checked(data, folder), heard=heard)
    thread = threading.Thread(target=monitor.run)
    thread.start()
    wait_for(lambda: len(monitor.fleet.machines) == count, 120)
    print(f"sensors: {count} made in {time.monotonic() - begun:.0f} s, {threading.active_count()} threads")
    expected = sum(len(each) for each in times)
    wait_for(lambda: time.monotonic() >= together, settle_s + seconds + 600)
    cpu_s = time.process_time()
    wait_for(lambda: len(lags) >= expected, 600)
    cpu_s = time.process_time() - cpu_s
    monitor.stop()
    thread.join()
    alone = [lag for at, lag in lags if at < together]
    burst = [lag for at, lag in lags if at >= together]
    rss_mib = int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024
    print(
        f"sensors: {len(alone)} windows in {seconds} s (one per sensor in ten minutes): {percentiles(alone)}; all "
        f"{len(burst)} at once: {percentiles(burst)}, {cpu_s:.0f} CPU-s; lost {expected - len(lags)}; {rss_mib:.0f} "
        f"MiB; load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("kills", "latency", "broker", "sensors")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--sensors", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only:
            folder = Path(scratch) / name
            folder.mkdir()
            if name == "kills":
                with stores(folder) as places:
                    for kind, place in places.items():
                        (folder / kind).mkdir()
                        kills(folder / kind, place, kind, options.kills)
            elif name == "latency":
                latency(folder, options.seconds)
            elif name == "broker":
                broker(folder)
            else:
                sensors(folder, options.sensors, options.seconds)


if __name__ == "__main__":
    main()
