"""Deliveries: from the outbox in the store to sinks, in order, at least once, whatever fails on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harken.service.changes import Changes
from harken.service.configuration.model import MqttEntry
from harken.service.delivery import Delays, Delivery
from harken.service.mailroom import Mailroom
from harken.service.recorder import Recorder
from harken.service.records import Message
from harken.service.sinks.base import Sink
from harken.service.sinks.mqtt import BrokerAddress, MqttSink
from harken.service.sinks.webhook import WebhookSink
from harken.service.store.store import Store
from harken.service.store.thinning import thin
from peers import MOSQUITTO, Receiver, amqtt_broker, free_port, listening, mosquitto, receiver, wait_for

FAST = Delays(first=0.02, longest=0.1)


def say(recorder: Recorder, *identities: str, kind: str = "alarm", machine: str = "pump") -> None:
    said = datetime.now(UTC)
    machine = "" if kind == "service" else machine
    messages = [Message(name, 0, kind, machine, said, {"sentence": name}) for name in identities]
    recorder.commit(Changes(messages=messages))


@contextmanager
def delivering(recorder: Recorder, *sinks: Sink, **options: Any) -> Iterator[list[Delivery]]:
    recorder.outbox.use_sinks([sink.name for sink in sinks])
    deliveries = [Delivery(sink, recorder.outbox, **{"delays": FAST, **options}) for sink in sinks]
    for delivery in deliveries:
        delivery.start()
    try:
        yield deliveries
    finally:
        for delivery in deliveries:
            delivery.stop()
        assert all(delivery.join(60) for delivery in deliveries)


def ids(peer: Receiver) -> list[str]:
    return [message["id"] for message in peer.messages]


def test_messages_come_in_order_and_go_on_after_a_restart(tmp_path: Path) -> None:
    with receiver() as peer:
        for names in (("a", "b", "c"), ("d", "e")):
            recorder = Recorder(tmp_path / "monitor.db")
            with delivering(recorder, WebhookSink("hook", peer.url)) as (delivery,):
                say(recorder, *names)
                delivery.wake()
                wait_for(lambda names=names: ids(peer)[-len(names) :] == [*names])
                wait_for(lambda recorder=recorder: recorder.outbox.waiting_messages() == {"hook": 0})
            recorder.close()
        assert ids(peer) == ["a", "b", "c", "d", "e"]
        assert [message["number"] for message in peer.messages] == [1, 2, 3, 4, 5]


def test_a_sink_that_is_down_delays_no_other_and_loses_nothing(tmp_path: Path) -> None:
    recorder, port = Recorder(tmp_path / "monitor.db"), free_port()
    down = WebhookSink("down", f"http://127.0.0.1:{port}")
    with receiver() as peer, delivering(recorder, down, WebhookSink("hook", peer.url)) as deliveries:
        for number in range(30):
            say(recorder, f"m{number}")
        wait_for(lambda: len(peer.requests) == 30)
        wait_for(lambda: deliveries[0].state.failures > 1)
        assert recorder.outbox.sinks()["down"].problem
        with receiver(port) as late:
            wait_for(lambda: len(late.requests) == 30)
            assert ids(late) == [f"m{number}" for number in range(30)]
            wait_for(lambda: not deliveries[0].state.problem)
    recorder.close()


def test_what_a_sink_refuses_is_set_aside_and_reported(tmp_path: Path) -> None:
    recorder, reports = Recorder(tmp_path / "monitor.db"), []
    with receiver() as peer:
        peer.answers = [200, 422, 503, 200]
        say(recorder)
        sink = WebhookSink("hook", peer.url)
        with delivering(recorder, sink, refused=lambda *report: reports.append(report)) as (delivery,):
            say(recorder, "a", "b", "c", "d")
            delivery.wake()
            wait_for(lambda: recorder.outbox.waiting_messages() == {"hook": 0})
            assert ids(peer) == ["a", "b", "c", "c", "d"]
            assert (delivery.state.delivered, delivery.state.refused) == (3, 1)
    ((_, message, reason),) = reports
    assert message.id == "b"
    assert "422" in reason
    recorder.close()


def test_a_sink_gets_the_kinds_that_it_is_for(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "monitor.db")
    with receiver() as peer, delivering(recorder, WebhookSink("hook", peer.url), kinds=("alarm",)) as (delivery,):
        say(recorder, "a")
        say(recorder, "s", kind="sensor")
        say(recorder, "b")
        delivery.wake()
        wait_for(lambda: recorder.outbox.waiting_messages() == {"hook": 0})
        assert ids(peer) == ["a", "b"]
    recorder.close()


@contextmanager
def broker(kind: str, port: int, folder: Path) -> Iterator[None]:
    """One that remembers nothing of before."""
    if kind == "amqtt":
        with amqtt_broker(port):
            yield
    else:
        with mosquitto(folder, port, "allow_anonymous true", "persistence false"):
            yield


@pytest.mark.parametrize("kind", ["amqtt", "mosquitto"])
def test_a_broker_that_forgets_learns_what_is_retained_anew(kind: str, tmp_path: Path) -> None:
    """While the monitor runs and nothing happens, and after it was started again."""
    if kind == "mosquitto" and MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    port, rooms = free_port(), []
    entry = MqttEntry(kind="mqtt", host="127.0.0.1", port=port, messages=["alarm", "sensor"])

    def start() -> Recorder:
        recorder = Recorder(tmp_path / "monitor.db")
        sink = MqttSink("broker", BrokerAddress("127.0.0.1", port), monitor="plant", machines=["pump"])
        rooms.append(Mailroom(recorder.outbox, lambda sink, message, reason: None))
        rooms[-1].start(rooms[-1].use({"broker": sink}, {"broker": entry}))
        return recorder

    def stop(recorder: Recorder) -> None:
        rooms[-1].stop(["broker"], time.monotonic() + 60)
        recorder.close()

    def retained() -> dict[str, str]:
        with listening(port) as listener:
            # What is retained comes first; birth, discovery and states are published one after the other.
            wait_for(lambda: {"harken/plant/pump/alarm"} <= {topic for topic, _, _ in listener.received})
            wait_for(lambda: listener.payloads("harken/plant/pump/sensor"))
            return {topic: text for topic, text, _ in listener.received}

    with broker(kind, port, tmp_path):
        recorder = start()
        say(recorder, "service", kind="service")
        say(recorder, "first", "second")
        say(recorder, "good", kind="sensor")
        say(recorder, "gone", machine="fan")
        rooms[-1].wake()
        wait_for(lambda: recorder.outbox.waiting_messages() == {"broker": 0})
    for again in (False, True):
        if again:
            stop(recorder)
            # Nor does age matter: of old messages, the last ones stay.
            store = Store.open(tmp_path / "monitor.db")
            thin(store, datetime.now(UTC) + timedelta(days=60))
            assert [message.id for message in store.messages(0, 10)] == ["service", "second", "good", "gone"]
            store.close()
        with broker(kind, port, tmp_path):
            if again:
                recorder = start()
            topics = retained()
        assert json.loads(topics["harken/plant/pump/alarm"])["id"] == "second"
        assert json.loads(topics["harken/plant/pump/sensor"])["id"] == "good"
        assert topics["harken/plant/status"] == "online"
        assert "homeassistant/binary_sensor/harken_plant_pump/alarm/config" in topics
        assert "harken/plant/service" not in topics, "of no kind that the sink gets"
        assert ("harken/plant/fan/alarm" in topics) is not again, "a machine that is not there any more"
    stop(recorder)


def test_delays_grow_to_a_limit() -> None:
    import random

    delays, chance = Delays(first=1.0, longest=60.0), random.Random(0)
    for failures in range(1, 2000):
        whole = min(2.0 ** min(failures - 1, 60), 60.0)
        assert 0.5 * whole <= delays.after(failures, chance) <= whole
