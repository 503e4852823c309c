"""Sources, and the machines that listen to them, as they run."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from harken.service.assembly import LoadedModel, make_source
from harken.service.changes import Changes
from harken.service.configuration.model import Configuration, FolderEntry
from harken.service.evidence import EvidenceFolder
from harken.service.feed import Feed, SourceStatus
from harken.service.judging import WindowJudge
from harken.service.judging_pool import JudgingPool
from harken.service.listener import MachineListener
from harken.service.machine import MachineRunner, rule_of
from harken.service.machine_alarm import MachineAlarm
from harken.service.recent_sound import RecentSound
from harken.service.recorder import Recorder
from harken.service.records import HeardWindow
from harken.service.tap import Tap

log = logging.getLogger(__name__)

#: seconds to judge what waits when a source is stopped
DRAIN_S = 2.0


@dataclass(frozen=True, eq=False)
class Team:
    """A source by its name, its feed, and the machines that listen to it."""

    source: str
    feed: Feed
    machines: tuple[MachineRunner, ...]


class Fleet:
    """All that is listened to. once: folders end when all that is in them was heard. heard: called with each window."""

    def __init__(
        self,
        recorder: Recorder,
        commit: Callable[[Changes], object],
        *,
        evidence: EvidenceFolder | None = None,
        once: bool = False,
        heard: Callable[[HeardWindow], None] = lambda heard: None,
    ) -> None:
        self._recorder, self._commit, self._evidence = recorder, commit, evidence
        self._once, self._heard = once, heard
        self.pool = JudgingPool()
        self._events: queue.SimpleQueue[tuple[Team | None, str, SourceStatus]] = queue.SimpleQueue()
        self._teams: dict[str, Team] = {}

    def make(self, name: str, configuration: Configuration, loaded: dict[str, LoadedModel]) -> Team:
        """The team of a source. It takes up what is stored of it now, and listens to nothing yet.

        Raises HarkenError for what cannot work.
        """
        stored, entry = self._recorder.loaded(), configuration.sources[name]
        resume = {} if stored is None else stored.resume
        users = {machine: user for machine, user in configuration.machines.items() if user.source == name}
        source = make_source(entry, [*users], resume=resume, once=self._once)
        continuous = not isinstance(entry, FolderEntry) or entry.continuous
        channels = {
            machine: None if user.channels is None else [number - 1 for number in user.channels]
            for machine, user in users.items()
        }
        taps = {
            machine: Tap(
                machine,
                loaded[machine].detector.segment_s,
                hop_s=user.hop_s,
                channels=channels[machine],
                resume=resume,
            )
            for machine, user in users.items()
        }
        feed = Feed(
            source, [*taps.values()], tell=lambda status: self._events.put((self._teams.get(name), name, status))
        )
        machines = []
        for machine, user in users.items():
            model = loaded[machine]
            alarm = MachineAlarm(
                machine,
                rule_of(user, model.detector, continuous=continuous),
                model.digest,
                self._recorder,
                commit=self._commit,
                evidence=self._evidence,
                detector=model.detector,
            )
            judge = WindowJudge(
                machine, model.detector, model.digest, resume=resume, channels=channels[machine], pool=self.pool
            )
            listener = MachineListener(feed, taps[machine], judge)
            sensor = None if stored is None else stored.sensors.get(machine)
            machines.append(
                MachineRunner(
                    machine,
                    user,
                    model,
                    listener,
                    alarm=alarm,
                    commit=self._commit,
                    sensor=sensor,
                    recent=None if self._evidence is None else RecentSound(self._evidence, self._busy),
                    heard=self._heard,
                    continuous=continuous,
                )
            )
        return Team(name, feed, tuple(machines))

    def _busy(self) -> bool:
        return self.pool.waiting > 0

    def hanging(self, after_s: float) -> list[str]:
        """Machines whose threads did not come round for so many seconds; all, where what is judged hangs."""
        now = time.monotonic()
        stuck = self.pool.hangs(now, after_s)
        return [
            name
            for name, machine in self.machines.items()
            if machine.hangs(now, after_s) or (stuck and machine.listener.judging)
        ]

    def add(self, team: Team) -> None:
        """Have it, in place of one of the same source."""
        self._teams[team.source] = team

    def start(self, source: str) -> None:
        """Begin to listen."""
        team = self._teams[source]
        for machine in team.machines:
            machine.start()
        team.feed.start()
        log.info("source %s: listening to %s", source, team.feed.source.place)

    def stop(self, sources: Iterable[str], end: float) -> None:
        """Listen to these no longer, and forget them; what waits is judged. end: on the monotonic clock."""
        teams = [self._teams[name] for name in sources]
        machines = [machine for team in teams for machine in team.machines]
        for machine in machines:
            machine.stop(DRAIN_S)
        threads = [threading.Thread(target=team.feed.stop, args=(DRAIN_S,)) for team in teams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        late = [machine.name for machine in machines if not machine.join(max(0.0, end - time.monotonic()))]
        if late:
            names = f"{late[0]} and {len(late) - 1} more" if len(late) > 1 else late[0]
            log.warning("machine %s: a window is not judged yet, and is left to the next start", names)
        for team in teams:
            del self._teams[team.source]
        self.forget_models()

    def forget_models(self) -> None:
        """Drop those from memory that no machine uses any more."""
        self.pool.keep(machine.model.detector for machine in self.machines.values())

    @property
    def sources(self) -> dict[str, Feed]:
        """Feeds by the names of their sources."""
        return {name: team.feed for name, team in self._teams.items()}

    @property
    def machines(self) -> dict[str, MachineRunner]:
        """By name."""
        return {machine.name: machine for team in [*self._teams.values()] for machine in team.machines}

    def changed_sources(self) -> Iterator[tuple[str, SourceStatus]]:
        """What has happened to sources since the last call; their machines know it, too."""
        with suppress(queue.Empty):
            while True:
                team, name, status = self._events.get_nowait()
                if team is not None:
                    for machine in team.machines:
                        machine.source_changed(status)
                yield name, status
