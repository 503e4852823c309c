"""Deliveries: from the outbox in the store to sinks, in order, at least once, whatever fails on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harken.service.changes import Changes
from harken.service.delivery import Delays, Delivery
from harken.service.recorder import Recorder
from harken.service.records import Message
from harken.service.sinks.base import Sink
from harken.service.sinks.mqtt import BrokerAddress, MqttSink
from harken.service.sinks.webhook import WebhookSink
from peers import Receiver, amqtt_broker, free_port, listening, receiver, wait_for

FAST = Delays(first=0.02, longest=0.1)


def say(recorder: Recorder, *identities: str, kind: str = "alarm") -> None:
    time = datetime.now(UTC)
    recorder.commit(Changes(messages=[Message(name, 0, kind, "pump", time, {"sentence": name}) for name in identities]))


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
        assert all(delivery.join(15) for delivery in deliveries)


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
    broker = MqttSink("broker", BrokerAddress("127.0.0.1", port), monitor="plant", patience_s=0.3)
    with receiver() as peer, delivering(recorder, broker, WebhookSink("hook", peer.url)) as deliveries:
        for number in range(30):
            say(recorder, f"m{number}")
        wait_for(lambda: len(peer.requests) == 30)
        wait_for(lambda: deliveries[0].state.failures > 1)
        assert recorder.outbox.sinks()["broker"].problem
        with amqtt_broker(port), listening(port, "harken/plant/messages") as listener:
            wait_for(lambda: len(listener.received) == 30)
            assert [f'"id": "m{number}"' in text for number, (_, text, _) in enumerate(listener.received)] == [
                True
            ] * 30
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


def test_delays_grow_to_a_limit() -> None:
    import random

    delays, chance = Delays(first=1.0, longest=60.0), random.Random(0)
    for failures in range(1, 2000):
        whole = min(2.0 ** min(failures - 1, 60), 60.0)
        assert 0.5 * whole <= delays.after(failures, chance) <= whole
