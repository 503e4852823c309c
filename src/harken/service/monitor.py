"""The monitor: sources, machines and sinks of a configuration, until it is stopped."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.core.threads import one_thread_for_good
from harken.service import systemd
from harken.service.alone import alone
from harken.service.assembly import Models, check_machine, make_sink, stale_sources, unreachable
from harken.service.changes import Changes
from harken.service.configuration.model import Configuration
from harken.service.configuration.read import read_configuration
from harken.service.evidence import EvidenceFolder
from harken.service.fleet import Fleet
from harken.service.http_server import HealthServer
from harken.service.learner import ModelLearner
from harken.service.live_sound import LiveSound
from harken.service.mailroom import Mailroom
from harken.service.missed import UnjudgedWindows, missed
from harken.service.recorder import Recorder
from harken.service.records import HeardWindow, Message
from harken.service.requests import MODEL_DEMANDS, Request
from harken.service.sinks.base import Sink
from harken.service.sinks.metrics import Metrics
from harken.service.source_watch import SourceWatch
from harken.service.store.features import FeatureLimits
from harken.service.store_watch import StoreWatch
from harken.service.texts import title_and_text

log = logging.getLogger(__name__)

#: seconds from one look at requests and changes of sources to the next, and between signs of life in the store
TICK_S, SEEN_S = 0.5, 10.0
#: seconds in which it ends
END_S = 4.5
#: a machine whose thread did not come round for so many seconds hangs, as does what was judged for as long: three
#: times what a minute of sound takes the largest encoder on a small computer. A window that took longer would hang
#: again after each restart
HANGS_S = 180.0


class Monitor:
    """Runs a configuration.

    once: folders end when all that is in them was heard. heard: called with each window that was judged and stored.
    Raises HarkenError, before anything has started, for models that cannot be loaded or do not fit their source, sinks
    that cannot be understood, a store that is none, and one that a monitor of this name is using.
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
        self._on_heard = heard
        self._models = Models()
        self._stopping = threading.Event()
        self._stopped_by = "an error"
        self._reload_file: Path | None = None
        self._seen_s = -SEEN_S
        self._not_judged = UnjudgedWindows()
        loaded = {name: self._models.get(entry) for name, entry in configuration.machines.items()}
        sinks = {name: make_sink(name, entry, configuration) for name, entry in configuration.sinks.items()}
        for name, model in loaded.items():
            check_machine(name, configuration, model)
        self._alone = ExitStack()
        owner = self._alone.enter_context(alone(configuration))
        kept = configuration.features
        limits = FeatureLimits(kept.quota_bytes, timedelta(seconds=kept.age_s))
        self.recorder = Recorder(configuration.store, configuration.monitor, limits, owner)
        self.evidence = EvidenceFolder(configuration.evidence_folder, configuration.evidence.quota_bytes)
        self.fleet = Fleet(self.recorder, self.commit, evidence=self.evidence, once=once, heard=self._note_heard)
        self.learner = ModelLearner(self.recorder, self._models, lambda: self.fleet.machines, self.commit)
        self.mailroom = Mailroom(self.recorder.outbox, self._note_refused)
        self.metrics = Metrics(lambda: self.mailroom.states, self.recorder.outbox.waiting_messages)
        for name in configuration.sources:
            self.fleet.add(self.fleet.make(name, configuration, loaded))
        self.mailroom.use(sinks, configuration.sinks)
        self.server: HealthServer | None = None
        if configuration.http is not None:
            http = configuration.http
            self.server = HealthServer(self.metrics, self.health, host=http.host, port=http.port)
        self._source_watch, self._store_watch = SourceWatch(self._say), StoreWatch(self._say)

    # ---- running -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start everything, and return when `stop` was called or all sources have ended, after everything has.

        Raises HarkenError, after everything has ended, for what could not be done (`missed`), and where another process
        became this monitor.
        """
        for name, entry in self.configuration.sinks.items():
            if (problem := unreachable(name, entry)) is not None:
                log.warning("%s", problem)
        self._store_watch.look(self.recorder.problem)
        if self.server is not None:
            self.server.start()
            log.info("metrics and health: http://%s:%d/metrics, /healthz", self.server.host, self.server.port)
        self.mailroom.start(self.configuration.sinks)
        for name in self.configuration.sources:
            self.fleet.start(name)
        self.learner.start()
        systemd.notify("READY=1", f"STATUS=listening to {len(self.configuration.machines)} machines")
        try:
            while not self._stopping.wait(TICK_S):
                self._tick()
                if self.recorder.taken is not None:
                    raise self.recorder.taken
                if all(machine.finished for machine in self.fleet.machines.values()) and not self.learner.busy:
                    log.info("all sources have ended")
                    self._stopped_by = "the end of all sources"
                    break
        finally:
            sources = [feed.status() for feed in self.fleet.sources.values()]
            self._end()
        self._not_judged.tell()
        # Who ends the monitor has known of what fails.
        stopped = self._stopping.is_set()
        error = missed(self.recorder, () if stopped else sources, UnjudgedWindows() if stopped else self._not_judged)
        if error is not None:
            raise error

    def stop(self, by: str = "the program") -> None:
        """Ask `run` to end; from any thread or signal handler. by: what is written of it in the store."""
        self._stopped_by = by
        self._stopping.set()

    def reload_from(self, file: Path) -> None:
        """Read the configuration of a file soon; from any thread or signal handler."""
        self._reload_file = file

    def live(self, monitor: str, machine: str) -> LiveSound | None:
        """The sound of a machine as it is heard; None for one that is not listened to, or by another monitor."""
        runner = self.fleet.machines.get(machine) if monitor == self.configuration.monitor else None
        return None if runner is None else runner.listener.tap.live

    def _tick(self) -> None:
        try:
            if self._reload_file is not None:
                file, self._reload_file = self._reload_file, None
                self._reload(file)
            self._look_at_sources()
            for request in self.recorder.requests():
                self._answer(request)
            self._store_watch.look(self.recorder.problem)
            self.metrics.store(self.recorder.store_failures)
            self.learner.look()
            now = time.monotonic()
            if now - self._seen_s >= SEEN_S:
                self._seen_s = now
                self.recorder.seen()
                self.fleet.forget_models()
                for machine in self.fleet.machines.values():
                    machine.alarm.tick(datetime.now(UTC))
                for name, feed in self.fleet.sources.items():
                    self.metrics.source(name, feed.status())
        except HarkenError as error:
            log.error("%s", error)
        except Exception:
            log.exception("unexpected")
        if not self.fleet.hanging(HANGS_S):
            systemd.notify("WATCHDOG=1")

    def _end(self) -> None:
        """Judge what waits, store it, and give everything up, within `END_S` seconds."""
        systemd.notify("STOPPING=1")
        end = time.monotonic() + END_S
        self.learner.stop()
        self.fleet.stop([*self.fleet.sources], end - 1.0)
        self.mailroom.stop(self.mailroom.states, end)
        if self.server is not None:
            self.server.stop()
        self.recorder.close(self._stopped_by)
        self.evidence.close(max(0.0, end - time.monotonic()))
        self._alone.close()
        log.info("ended")

    # ---- another configuration -----------------------------------------------------------------------------

    def _reload(self, file: Path) -> None:
        """Take up a configuration: what has not changed in it goes on as if nothing had been. One with an error changes
        nothing."""
        systemd.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._take_up(read_configuration(file))
        except HarkenError as error:
            sentence = f"The configuration was not taken up, and the one before it stays: {error}"
            self._say("service", headline="configuration not taken up", sentence=sentence, problem=True)
        systemd.notify("READY=1")

    def _take_up(self, new: Configuration) -> None:
        old, machines = self.configuration, self.fleet.machines
        fixed = ("monitor", "store", "evidence", "features", "http", "page")
        later = [key for key in fixed if getattr(old, key) != getattr(new, key)]
        loaded = {name: self._models.get(entry) for name, entry in new.machines.items()}
        digests = {name: machine.model.digest for name, machine in machines.items()}
        stale = stale_sources(old, new, digests, {name: model.digest for name, model in loaded.items()})
        fresh = [name for name in new.sources if name in stale or name not in old.sources]
        for name, model in loaded.items():
            check_machine(name, new, model)
        for name in fresh:
            self.fleet.make(name, new, loaded)
        sinks = {
            name: make_sink(name, entry, new)
            for name, entry in new.sinks.items()
            if entry != old.sinks.get(name) or (entry.kind == "mqtt" and [*old.machines] != [*new.machines])
        }
        # Everything that could fail was tried.
        self.fleet.stop(stale, time.monotonic() + END_S)
        for name in stale:
            self._source_watch.forget(name)
        self.mailroom.start(self.mailroom.use(sinks, new.sinks))
        self.configuration = new.model_copy(update={key: getattr(old, key) for key in fixed})
        for name in fresh:
            # Made now, since it takes up what the one before it has stored last.
            self.fleet.add(self.fleet.make(name, new, loaded))
            self.fleet.start(name)
        self._models.keep(model.digest for model in loaded.values())
        later_text = f" What it says of {' and '.join(later)} counts from the next start." if later else ""
        sentence = f"The configuration was read again: {len(loaded)} machines.{later_text}"
        self._say("service", headline="configuration taken up", sentence=sentence)

    # ---- what happens ------------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> list[Message]:
        """Store changes, and send their messages on their way."""
        messages = self.recorder.commit(changes)
        for message in messages:
            if message.kind == "alarm":
                level = logging.WARNING if message.payload.get("annunciation") else logging.INFO
                log.log(level, "%s. %s", *title_and_text(message), extra={"fields": message.as_json()})
        if messages:
            self.mailroom.wake()
        return messages

    def _say(self, kind: str, **payload: Any) -> None:
        """Record a message of the service itself."""
        log.log(logging.WARNING if payload.get("problem") else logging.INFO, "%s", payload["sentence"])
        self.commit(Changes(messages=[Message(uuid.uuid4().hex, 0, kind, "", datetime.now(UTC), payload)]))

    def _note_heard(self, heard: HeardWindow) -> None:
        machine, verdict = self.fleet.machines.get(heard.machine), heard.verdict
        self._not_judged.note(heard)
        self.metrics.judged(heard, time.time() - heard.window.end.timestamp())
        if machine is not None:
            self.metrics.machine(machine.name, machine.alarm.state, machine.sensor.state)
        place = heard.window.origin or heard.window.start.isoformat()
        score = "" if verdict.score is None else f" {verdict.score:.4g}"
        why = f" ({verdict.not_judged})" if verdict.not_judged else ""
        log.debug("machine %s: %s %s%s%s", heard.machine, place, verdict.kind, score, why)
        self._on_heard(heard)

    def _note_refused(self, sink: Sink, message: Message, reason: str) -> None:
        if message.kind == "service":
            return  # a sink that refuses everything would refuse the reports of what it refused for ever
        self._say(
            "service",
            headline=f"message refused by {sink.name}",
            sentence=f"The sink {sink.name} refused a message for good, which is set aside: {reason}",
            sink=sink.name,
            refused=message.as_json(),
            problem=True,
        )

    def _look_at_sources(self) -> None:
        for name, status in self.fleet.changed_sources():
            self._source_watch.changed(name, status)
            self.metrics.source(name, status)
        self._source_watch.tick()

    def _answer(self, request: Request) -> None:
        """What somebody asked for by command line or page."""
        if request.demand in MODEL_DEMANDS:
            self.learner.ask(request)
            return
        machine = self.fleet.machines.get(request.machine)
        if machine is not None:
            answer = machine.alarm.answer(request)
        else:
            answer = Sentence("the monitor does not listen to it any more")
            self.commit(Changes(requests_done={request.number: answer}))
        log.info("machine %s: %s asks: %s; %s", request.machine, request.who, request.demand, answer)

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether the monitor does its work, and how its parts are. A source or sink that is down is no reason to
        start the monitor again: it deals with that itself."""
        hanging = self.fleet.hanging(HANGS_S)
        return not hanging, {
            "status": "failing" if hanging else "ok",
            "hanging": hanging,
            "store": self.recorder.problem or "ok",
            "evidence": self.evidence.problem or "ok",
            "sources": {name: feed.status().state for name, feed in self.fleet.sources.items()},
            "sinks": {name: state.problem or "ok" for name, state in self.mailroom.states.items()},
        }
