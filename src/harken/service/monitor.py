"""The monitor: sources, machines and sinks of a configuration, until it is stopped."""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harken.core.errors import HarkenError
from harken.core.threads import one_thread_for_good
from harken.service import systemd
from harken.service.assembly import (
    LoadedModel,
    Models,
    check_machine,
    make_sink,
    make_source,
    stale_sources,
    unreachable,
)
from harken.service.changes import Changes
from harken.service.configuration.model import Configuration, SinkEntry
from harken.service.configuration.read import read_configuration
from harken.service.delivery import Delivery
from harken.service.feed import Feed, SourceStatus
from harken.service.http_server import HealthServer
from harken.service.judging import WindowJudge
from harken.service.listener import MachineListener
from harken.service.machine import MachineRunner
from harken.service.recorder import Recorder
from harken.service.records import HeardWindow, Message
from harken.service.sinks.base import Sink
from harken.service.sinks.metrics import Metrics
from harken.service.source_watch import SourceWatch
from harken.service.tap import Tap

log = logging.getLogger(__name__)

#: seconds from one look at requests, sources and sinks to the next
TICK_S = 0.5
#: seconds to judge what waits, and in all, when it is stopped
DRAIN_S, END_S = 2.0, 4.5
#: a machine whose thread did not come round for so many seconds hangs
HANGS_S = 600.0


class Monitor:
    """Runs a configuration.

    once: folders end when all that is in them was heard. heard: called with each window that was judged and stored.
    Raises HarkenError, before anything has started, for models that cannot be loaded or do not fit their source, sinks
    that cannot be understood and a store that is none.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        once: bool = False,
        heard: Callable[[HeardWindow], None] = lambda heard: None,
    ) -> None:
        # Threads of BLAS would be set and restored by several threads of this program at once.
        one_thread_for_good()
        self.configuration = configuration
        self._once, self._on_heard = once, heard
        self._models = Models()
        self._judging = threading.Lock()
        self._stopping = threading.Event()
        self._reload_file: Path | None = None
        self._events: queue.SimpleQueue[tuple[str, SourceStatus]] = queue.SimpleQueue()
        loaded = {name: self._models.get(entry) for name, entry in configuration.machines.items()}
        sinks = {name: make_sink(name, entry, configuration) for name, entry in configuration.sinks.items()}
        for name, model in loaded.items():
            check_machine(name, configuration, model)
        self.recorder = Recorder(configuration.store, configuration.monitor)
        stored = self.recorder.loaded()
        #: of this run and those before it, as `Changes.resume`
        self._resume: dict[str, Any] = {} if stored is None else dict(stored.resume)
        self.feeds: dict[str, Feed] = {}
        self.machines: dict[str, MachineRunner] = {}
        self.deliveries: dict[str, Delivery] = {}
        self.metrics = Metrics(
            lambda: {name: delivery.state for name, delivery in self.deliveries.items()}, self.recorder.waiting_messages
        )
        for name in configuration.sources:
            self._add(*self._made(name, configuration, loaded))
        self.recorder.use_sinks(sinks)
        for name, sink in sinks.items():
            self._add_sink(sink, configuration.sinks[name])
        self.server: HealthServer | None = None
        if configuration.http is not None:
            http = configuration.http
            self.server = HealthServer(self.metrics, self.health, host=http.host, port=http.port)
        self._sources = SourceWatch(self._say)

    # ---- assembly ----------------------------------------------------------------------------------------

    def _made(
        self, name: str, configuration: Configuration, loaded: dict[str, LoadedModel]
    ) -> tuple[str, Feed, list[MachineRunner]]:
        """A source by its name, its feed, and the machines that listen to it; nothing of it is started."""
        users = {machine: entry for machine, entry in configuration.machines.items() if entry.source == name}
        source = make_source(configuration.sources[name], next(iter(users)), resume=self._resume, once=self._once)
        taps: dict[str, Tap] = {}
        for machine, entry in users.items():
            taps[machine] = Tap(
                machine,
                loaded[machine].detector.segment_s,
                hop_s=entry.hop_s,
                channels=None if entry.channels is None else [number - 1 for number in entry.channels],
                resume=self._resume,
            )
        feed = Feed(source, [*taps.values()], tell=lambda status: self._events.put((name, status)))
        machines = []
        for machine, entry in users.items():
            model = loaded[machine]
            judge = WindowJudge(machine, model.detector, model.digest, resume=self._resume)
            listener = MachineListener(feed, taps[machine], judge, self._judging)
            machines.append(MachineRunner(machine, entry, model, listener, commit=self.commit, heard=self._note_heard))
        return name, feed, machines

    def _add(self, name: str, feed: Feed, machines: list[MachineRunner]) -> None:
        self.feeds[name] = feed
        self.machines |= {machine.name: machine for machine in machines}

    def _add_sink(self, sink: Sink, entry: SinkEntry) -> Delivery:
        delivery = Delivery(sink, self.recorder, kinds=entry.messages, refused=self._note_refused)
        self.deliveries[sink.name] = delivery
        return delivery

    # ---- running -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start everything, and return when `stop` was called or all sources have ended, after everything has."""
        for name, entry in self.configuration.sinks.items():
            if (problem := unreachable(name, entry)) is not None:
                log.warning("%s", problem)
        if self.recorder.problem:
            log.error("store: %s", self.recorder.problem)
        if self.server is not None:
            self.server.start()
            log.info("metrics and health: http://%s:%d/metrics, /healthz", self.server.host, self.server.port)
        for delivery in self.deliveries.values():
            delivery.start()
        for name in self.feeds:
            self._start(name)
        systemd.notify("READY=1", f"STATUS=listening to {len(self.machines)} machines")
        try:
            while not self._stopping.wait(TICK_S):
                self._tick()
                if all(machine.finished for machine in self.machines.values()):
                    log.info("all sources have ended")
                    break
        finally:
            self._end()

    def _start(self, name: str) -> None:
        """Begin to listen to a source."""
        feed = self.feeds[name]
        for machine in self.machines.values():
            if machine.entry.source == name:
                machine.start()
        feed.start()
        log.info("source %s: listening to %s", name, feed.source.place)

    def stop(self) -> None:
        """Ask `run` to end; from any thread or signal handler."""
        self._stopping.set()

    def _tick(self) -> None:
        try:
            if self._reload_file is not None:
                file, self._reload_file = self._reload_file, None
                self._reload(file)
            self._look_at_sources()
            for request in self.recorder.requests():
                self._answer(request)
        except HarkenError as error:
            log.error("%s", error)
        except Exception:
            log.exception("unexpected")
        if self.health()[0]:
            systemd.notify("WATCHDOG=1")

    def _end(self) -> None:
        """Judge what waits, store it, and give everything up, within `END_S` seconds."""
        systemd.notify("STOPPING=1")
        end = time.monotonic() + END_S
        self._stop_sources(self.feeds, end - 1.0)
        self._look_at_sources()
        self._stop_sinks(self.deliveries, end)
        if self.server is not None:
            self.server.stop()
        self.recorder.close()
        log.info("ended")

    def _stop_sources(self, names: Iterable[str], end: float) -> None:
        """Listen to these no longer; what waits is judged. end: on the monotonic clock."""
        feeds = [self.feeds[name] for name in names]
        machines = [machine for machine in self.machines.values() if machine.listener.feed in feeds]
        for machine in machines:
            machine.stop(DRAIN_S)
        threads = [threading.Thread(target=feed.stop, args=(DRAIN_S,)) for feed in feeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        for machine in machines:
            if not machine.join(max(0.0, end - time.monotonic())):
                log.warning("machine %s: a window is still being judged, and is left to the next start", machine.name)

    def _stop_sinks(self, names: Iterable[str], end: float) -> None:
        deliveries = [self.deliveries[name] for name in names]
        for delivery in deliveries:
            delivery.stop()
        for delivery in deliveries:
            delivery.join(max(0.1, end - time.monotonic()))

    # ---- another configuration -----------------------------------------------------------------------------

    def reload_from(self, file: Path) -> None:
        """Read the configuration of a file soon; from any thread or signal handler."""
        self._reload_file = file

    def _reload(self, file: Path) -> None:
        """Take up a configuration: what has not changed in it goes on as if nothing had been. One with an error changes
        nothing."""
        systemd.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._take_up(read_configuration(file))
        except HarkenError as error:
            self._say("service", headline="configuration not taken up", problem=True,
                      sentence=f"The configuration was not taken up, and the one before it stays: {error}")  # fmt: skip
        systemd.notify("READY=1")

    def _take_up(self, new: Configuration) -> None:
        old = self.configuration
        kept = {"monitor", "store", "evidence", "http"}
        later = [key for key in sorted(kept) if getattr(old, key) != getattr(new, key)]
        loaded = {name: self._models.get(entry) for name, entry in new.machines.items()}
        for name, model in loaded.items():
            check_machine(name, new, model)
        digests = {name: machine.model.digest for name, machine in self.machines.items()}
        stale = stale_sources(old, new, digests, {name: model.digest for name, model in loaded.items()})
        made = [self._made(name, new, loaded) for name in new.sources if name in stale or name not in old.sources]
        sinks = {
            name: make_sink(name, entry, new)
            for name, entry in new.sinks.items()
            if entry != old.sinks.get(name) or (entry.kind == "mqtt" and [*old.machines] != [*new.machines])
        }
        gone = [name for name in self.deliveries if name in sinks or name not in new.sinks]
        # Everything that could fail is done.
        self._stop_sources(stale, time.monotonic() + END_S)
        for name in stale:
            feed = self.feeds.pop(name)
            self.machines = {key: each for key, each in self.machines.items() if each.listener.feed is not feed}
            self._sources.forget(name)
        self._stop_sinks(gone, time.monotonic() + 1.0)
        for name in gone:
            del self.deliveries[name]
        self.recorder.use_sinks(new.sinks)
        self.configuration = new.model_copy(update={key: getattr(old, key) for key in kept})
        for sink in sinks.values():
            self._add_sink(sink, new.sinks[sink.name]).start()
        # Where sources are taken up was known only when the old ones had ended.
        for name, _, _ in made:
            self._add(*self._made(name, new, loaded))
            self._start(name)
        self._models.keep(model.digest for model in loaded.values())
        later_text = f" Another {' and '.join(later)} counts from the next start." if later else ""
        self._say("service", headline="configuration taken up",
                  sentence=f"The configuration was read again: {len(self.machines)} machines.{later_text}")  # fmt: skip

    # ---- what happens ------------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> list[Message]:
        """Store changes, and send their messages on their way."""
        self._resume |= changes.resume
        messages = self.recorder.commit(changes)
        if messages:
            for delivery in self.deliveries.values():
                delivery.wake()
        return messages

    def _say(self, kind: str, **payload: Any) -> None:
        """Record a message of the service itself."""
        log.log(logging.WARNING if payload.get("problem") else logging.INFO, "%s", payload["sentence"])
        self.commit(Changes(messages=[Message(uuid.uuid4().hex, 0, kind, "", datetime.now(UTC), payload)]))

    def _note_heard(self, heard: HeardWindow) -> None:
        lag_s = time.time() - heard.window.end.timestamp()
        self.metrics.judged(heard, lag_s)
        verdict = heard.verdict
        log.debug(
            "machine %s: %s %s %s", heard.machine, heard.window.origin or heard.window.start.isoformat(), verdict.kind,
            "" if verdict.score is None else f"{verdict.score:.4g}",
        )  # fmt: skip
        self._on_heard(heard)

    def _note_refused(self, sink: Sink, message: Message, reason: str) -> None:
        if message.kind == "service":
            return  # a sink that refuses everything would otherwise refuse its own refusals for ever
        self._say(
            "service",
            headline=f"message refused by {sink.name}",
            sentence=f"The sink {sink.name} refused a message for good, which is set aside: {reason}",
            sink=sink.name,
            refused=message.as_json(),
            problem=True,
        )

    def _look_at_sources(self) -> None:
        with suppress(queue.Empty):
            while True:
                name, status = self._events.get_nowait()
                self._sources.changed(name, status)
        for name, feed in self.feeds.items():
            self.metrics.source(name, feed.status())
        self._sources.tick()

    def _answer(self, request: Any) -> None:
        """What somebody asked for by the command line."""

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether the monitor does its work, and how its parts are. A source or sink that is down is no reason to
        start the monitor again: it deals with that itself."""
        now = time.monotonic()
        hanging = [name for name, machine in self.machines.items() if machine.hangs(now, HANGS_S)]
        well = not hanging
        return well, {
            "status": "ok" if well else "failing",
            "hanging": hanging,
            "store": self.recorder.problem or "ok",
            "sources": {name: feed.status().state for name, feed in self.feeds.items()},
            "sinks": {name: delivery.state.problem or "ok" for name, delivery in self.deliveries.items()},
        }
