"""Makes new versions of models while the monitor listens, and takes those into use that others have made.

One thread does it, beside those that listen. A model belongs to all who use its folder: its writers wait for each
other, all machines of this monitor take a new version into use between two windows, and other monitors find it on the
disk within seconds.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.core.threads import one_thread_for_good
from harken.monitor.bundle import bundle_digest
from harken.monitor.versions import list_versions
from harken.service.assembly import LoadedModel, Models
from harken.service.changes import Changes
from harken.service.daemon_threads import DaemonThreads
from harken.service.kept_features import features_name
from harken.service.learning import teach
from harken.service.machine import MachineRunner, ModelSwap
from harken.service.model_versions import MachineVersion, VersionCount
from harken.service.recorder import Recorder
from harken.service.requests import Request
from harken.service.store.store import StoreError
from harken.service.version_counts import count_versions, recent_windows

log = logging.getLogger(__name__)

#: seconds between two looks at the models of others, and until a request is tried again that the store was away for, or
#: whose answer has not been stored since its machine was replaced
_LOOK_S, _AGAIN_S, _LOST_S = 5.0, 10.0, 300.0
#: what the versions of a model are compared on: the windows that are kept of so long
COMPARED = timedelta(days=7)


class ModelLearner:
    """Answers requests that change a model. machines: those that run, by name. commit: stores changes."""

    def __init__(
        self,
        recorder: Recorder,
        models: Models,
        machines: Callable[[], Mapping[str, MachineRunner]],
        commit: Callable[[Changes], object],
    ) -> None:
        self._recorder, self._models, self._machines, self._commit = recorder, models, machines, commit
        self._work = DaemonThreads("learner")
        #: numbers of requests -> when, on the monotonic clock, they may be taken up again
        self._asked: dict[int, float] = {}
        self._working: set[int] = set()
        self._next_look = 0.0
        #: manifests of models as they were last looked at
        self._seen: dict[Path, tuple[int, int]] = {}

    def start(self) -> None:
        """Begin, and note which versions the models have."""
        self._do(self._note_all)

    def stop(self) -> None:
        """Begin nothing more. What is being made is found, whole or not at all, by the next start."""
        self._work.close(0.0)

    def ask(self, request: Request) -> None:
        """Take up a request, unless it is being worked on."""
        now = time.monotonic()
        if now >= self._asked.get(request.number, 0.0):
            self._asked[request.number] = float("inf")
            self._working.add(request.number)
            self._do(lambda: self._finish(request))

    def look(self) -> None:
        """See, now and then, whether others have changed a model."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_S
            self._do(self._follow)

    def _do(self, work: Callable[[], None]) -> None:
        def done() -> None:
            try:
                work()
            except HarkenError as error:
                log.error("%s", error)

        self._work.submit(done)

    @property
    def busy(self) -> bool:
        """Whether a request is being worked on."""
        return bool(self._working)

    # ---- requests ----------------------------------------------------------------------------------------

    def _finish(self, request: Request) -> None:
        try:
            self._answer(request)
        finally:
            self._working.discard(request.number)

    def _answer(self, request: Request) -> None:
        machine = self._machines().get(request.machine)
        if machine is None:
            answer = Sentence("the monitor does not listen to it any more")
            self._commit(Changes(requests_done={request.number: answer}))
            return
        store = self._recorder.readable
        if store is None:
            self._asked[request.number] = time.monotonic() + _AGAIN_S
            return
        begun = time.monotonic()
        try:
            taught = teach(machine.entry.model, request, store, features_name(machine.model.detector.spec))
            self._use(machine, request, taught.answer)
            self._asked[request.number] = time.monotonic() + _LOST_S
        except StoreError:
            self._asked[request.number] = time.monotonic() + _AGAIN_S
        except HarkenError as error:
            self._refuse(machine, request, refusal_of(error))
        except Exception:
            log.exception("machine %s: unexpected", request.machine)
            self._refuse(
                machine,
                request,
                Sentence(
                    "refused: {reason}",
                    reason=Sentence("this failed in a way that is a mistake of Harken; see its log"),
                ),
            )
        else:
            log.info(
                "machine %s: %s, asked by %s (%.1f s)", request.machine, taught.answer, request.who,
                time.monotonic() - begun,
            )  # fmt: skip
            self._count(machine.entry.model)

    def _refuse(self, machine: MachineRunner, request: Request, answer: Sentence) -> None:
        log.info("machine %s: %s asks: %s; %s", request.machine, request.who, request.demand, answer)
        machine.alarm.refuse(request, answer)

    def _use(self, asked: MachineRunner, request: Request, answer: Sentence) -> None:
        """All machines of the model take its new version into use; the answer says so."""
        path = asked.entry.model
        loaded = self._load(asked)
        sharing = self._sharing(path)
        others = [machine.name for machine in sharing if machine is not asked]
        if others:
            answer = Sentence("{answer}; also of {machines}", answer=answer, machines=", ".join(others))
        for machine in sharing:
            if machine is asked:
                machine.use(ModelSwap(loaded, answer, self._versions(machine), request))
            else:
                said = Sentence("{answer} (asked for {machine})", answer=answer, machine=asked.name)
                machine.use(ModelSwap(loaded, said, self._versions(machine)))
        self._models.keep({loaded.digest, *(machine.model.digest for machine in self._machines().values())})

    def _load(self, machine: MachineRunner) -> LoadedModel:
        loaded = self._models.get(machine.entry)
        # Now, rather than when the next window waits for it.
        loaded.detector.prepare()
        one_thread_for_good()
        self._seen[_real(machine.entry.model)] = _stamp(machine.entry.model)
        return loaded

    def _sharing(self, model: Path) -> list[MachineRunner]:
        return [machine for machine in self._machines().values() if _real(machine.entry.model) == _real(model)]

    # ---- versions ----------------------------------------------------------------------------------------

    def _note_all(self) -> None:
        for machine in self._machines().values():
            self._seen.setdefault(_real(machine.entry.model), _stamp(machine.entry.model))
            self._commit(Changes(versions=self._versions(machine)))

    @staticmethod
    def _versions(machine: MachineRunner, counts: Mapping[int, VersionCount] | None = None) -> list[MachineVersion]:
        versions = list_versions(machine.entry.model)
        in_use, counts = versions[-1].number, counts or {}
        return [MachineVersion.of(machine.name, each, in_use, counts.get(each.number)) for each in versions]

    def _count(self, model: Path) -> None:
        """What each version would have said of what was heard lately; for people who look at versions."""
        store = self._recorder.readable
        if store is None:
            return
        for machine in self._sharing(model):
            spec = features_name(machine.model.detector.spec)
            windows = recent_windows(store, machine.name, spec, COMPARED)
            counts = count_versions(model, windows, machine.rule_for)
            self._commit(Changes(versions=self._versions(machine, counts)))

    def _follow(self) -> None:
        """Take later versions into use that another process has made of a model."""
        for machine in self._machines().values():
            path, stamp = _real(machine.entry.model), _stamp(machine.entry.model)
            if self._seen.get(path) == stamp:
                continue
            self._seen[path] = stamp
            if bundle_digest(path) == machine.model.digest:
                continue
            loaded, used = self._load(machine), machine.model.detector.fitted
            version = loaded.detector.fitted.version
            if version.number <= used.version.number or loaded.detector.spec.fingerprint() != used.spec.fingerprint():
                # Another model: for people to decide, who have the configuration read again.
                continue
            answer = Sentence(
                "version {version} of the model, made by {who}, is in use",
                version=version.number,
                who=version.who or "-",
            )
            for sharing in self._sharing(path):
                sharing.use(ModelSwap(loaded, answer, self._versions(sharing)))
            log.info("model %s: %s", machine.entry.model, answer)
            self._count(path)


def _real(model: Path) -> Path:
    return Path(os.path.realpath(model))


def _stamp(model: Path) -> tuple[int, int]:
    """Changes whenever the manifest of a model is replaced."""
    try:
        stat = (model / "manifest.json").stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_ino)


def refusal_of(error: HarkenError) -> Sentence:
    """The answer of what is not done."""
    reason = error.cause
    if error.next_step:
        reason = Sentence("{cause}. {step}", cause=error.cause, step=error.next_step)
    return Sentence("refused: {reason}", reason=reason)
