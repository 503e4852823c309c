"""A machine is set up step by step: source, normal sound, model, configuration. What pages and programs ask of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harken.core.errors import HarkenError, writing
from harken.core.names import shown
from harken.core.sentences import Sentence
from harken.service.configuration.read import read_configuration
from harken.service.live_sound import LiveSound
from harken.service.records import Resume
from harken.service.set_up.choices import Kind, machine_name, shown_source, source_entry, source_of, without_password
from harken.service.set_up.ear import Ear
from harken.service.set_up.enough import USUAL_S, RecordedFiles, files_of, interval_s
from harken.service.set_up.fit_run import FitRun
from harken.service.set_up.fitting import RATES, FitRequest
from harken.service.set_up.folder import Draft, SetUpFolder
from harken.service.set_up.go_live import go_live
from harken.service.set_up.recorder import NormalRecorder
from harken.service.set_up.state import Phase, SetUpState, values_of

log = logging.getLogger(__name__)

#: recordings at most of one go, and seconds between two of them at most
MOST_RECORDINGS, LONGEST_EVERY_S = 5000, 3600.0
#: fewer recordings are not learned from
LEAST_TO_FIT = 10
#: seconds after which a source is closed where nobody looks and nothing is recorded
IDLE_S = 120.0
#: seconds between two looks at what goes on
_TICK_S = 0.2


class SetUp:
    """Of one machine at a time, in a folder. Threads may share it.

    page: entry of the page in a configuration that it writes. segment_s: length of recordings of sound without an end.
    started: called when a configuration was written, with what of its source is known already. Every step raises
    HarkenError where it cannot be done, and logs who asked for it.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        page: dict[str, Any] | None = None,
        segment_s: float = USUAL_S,
        idle_s: float = IDLE_S,
        started: Callable[[Resume], None] = lambda learned: None,
    ) -> None:
        self.place = SetUpFolder(folder)
        self.started = started
        self._page, self._segment_s, self._idle_s = page, segment_s, idle_s
        self._draft = self.place.read_draft()
        self._files = RecordedFiles()
        self._ear: Ear | None = None
        self._fit: FitRun | None = None
        self._problem = ""
        self._looked = time.monotonic()
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="set-up", daemon=True)
        self._thread.start()

    # ---- seen --------------------------------------------------------------------------------------------

    def state(self) -> SetUpState:
        """How far it is."""
        with self._lock:
            draft, ear, fit = self._draft, self._ear, self._fit
            values: dict[str, Any] = {"machines": self._machines(), "problem": self._problem}
            if not draft.machine:
                return SetUpState("source", **values)
            values |= values_of(ear, fit)
            values |= {
                "machine": draft.machine, "kind": draft.source["kind"], "place": shown_source(draft.source),
                "recorded": self._files.of(self.place.normal(draft.machine)), "result": draft.result,
                "left_out": tuple(draft.left_out), "kept_outliers": tuple(draft.kept),
            }  # fmt: skip
            return SetUpState(self._phase(), **values)

    @property
    def live(self) -> LiveSound | None:
        """The sound that is heard now."""
        ear = self._ear
        return None if ear is None else ear.live

    @property
    def is_recording(self) -> bool:
        """Whether sound is being recorded."""
        ear = self._ear
        return ear is not None and ear.recorder is not None and not ear.recorder.ended

    def looked(self) -> None:
        """Somebody has an open page."""
        self._looked = time.monotonic()

    def outliers(self) -> list[str]:
        """Recordings that stood out in the last fit, in its order."""
        return self._draft.outliers

    def outlier_file(self, number: int) -> Path | None:
        """The sound of one of them; None where there is none. No name of a client becomes a path."""
        names, files = self.outliers(), files_of(self.place.normal(self._draft.machine))
        wanted = names[number] if 0 <= number < len(names) else None
        return next((file for file in files if file.name == wanted), None)

    # ---- steps -------------------------------------------------------------------------------------------

    def choose(self, machine: str, kind: Kind, choice: str, by: str = "") -> None:
        """Name a machine and its source, and listen to it."""
        with self._step(f"{by} listens to {kind} {without_password(choice)} for {machine}"):
            self._need("source", "paused", "listening", "fitted")
            others = [name for name in self._machines() if name != self._draft.machine]
            name, entry = machine_name(machine, others), source_entry(self.place, kind, choice)
            self._close_ear()
            same = name == self._draft.machine and entry == self._draft.source
            draft = self._draft if same else Draft(name, entry)
            self.place.write_draft(draft)
            self._draft = draft
            self._listen()

    def listen(self, by: str = "") -> None:
        """Listen again."""
        with self._step(f"{by} listens to {self._draft.machine} again"):
            self._need("paused", "listening", "fitted")
            self._change(result=None)
            self._listen()

    def record(self, most: int = 60, every_s: float = 0.0, *, existing: bool = False, by: str = "") -> None:
        """Record normal sound: at most so many recordings, gapless or one every so many seconds.

        existing: also the files that are in the folder already.
        """
        with self._step(f"{by} records {self._draft.machine}, {most} recordings"):
            self._need("listening")
            if not 1 <= most <= MOST_RECORDINGS or not 0 <= every_s <= LONGEST_EVERY_S:
                raise HarkenError(
                    Sentence("that many cannot be recorded"),
                    next_step=Sentence("Give 1 to {most} recordings", most=MOST_RECORDINGS),
                )
            assert self._ear is not None
            folder = self.place.normal(self._draft.machine)
            with writing(folder, "Check the folder and the disk"):
                recorder = NormalRecorder(folder, most=most, seconds=self._segment_s, every_s=every_s or None)
            self._ear.record(recorder, existing=existing)

    def stop(self, by: str = "") -> None:
        """Record no more; go on listening."""
        with self._step(f"{by} stops the recording of {self._draft.machine}"):
            self._need("recording", "listening")
            if self._ear is not None:
                self._ear.stop_recording()

    def fit(self, left_out: tuple[str, ...] = (), kept: tuple[str, ...] = (), by: str = "") -> None:
        """Learn from what was recorded. left_out, kept: recordings that stood out, as a person decided."""
        with self._step(f"{by} fits a model of {self._draft.machine}"):
            self._need("paused", "listening", "fitted")
            unknown = {*left_out, *kept} - {*self.outliers()}
            if unknown:
                raise HarkenError(
                    Sentence("these recordings did not stand out"), next_step=Sentence("Open the page again")
                )
            files = files_of(self.place.normal(self._draft.machine))
            if len(files) < LEAST_TO_FIT and self._files.summed(files).recordings < LEAST_TO_FIT:
                raise HarkenError(
                    Sentence("{count} recordings are too few to learn from", count=len(files)),
                    next_step=Sentence("Record {least} or more", least=LEAST_TO_FIT),
                )
            self._close_ear()
            self._change(left_out=[*left_out], kept=[*kept])
            draft = self._draft
            self._fit = FitRun(
                FitRequest(
                    str(self.place.normal(draft.machine)),
                    str(self.place.model(draft.machine)),
                    left_out=tuple(left_out),
                    keep_outliers=bool(kept),
                    hop_s=self._hop_s(),
                )
            )

    def cancel(self, by: str = "") -> None:
        """End the fit that goes on."""
        with self._step(f"{by} cancels the fit of {self._draft.machine}"):
            fit, self._fit = self._fit, None
        if fit is not None:
            fit.cancel()

    def start(self, rate: str = RATES[-1], by: str = "") -> None:
        """Write the configuration, and have the machine monitored. rate: of false alarms, one of `RATES`."""
        with self._step(f"{by} has {self._draft.machine} monitored"):
            self._need("fitted")
            learned = go_live(self.place, self._draft, rate, self._hop_s(), self._page)
            self.place.write_draft(Draft())
            self._close_ear()
            self._draft = Draft()
        self.started(learned)

    def discard(self, by: str = "") -> None:
        """Begin with another machine. Recordings and models stay."""
        with self._step(f"{by} begins again"):
            self._need("source", "paused", "listening", "fitted")
            self._close_ear()
            self.place.write_draft(Draft())
            self._draft = Draft()

    def fail(self, problem: str) -> None:
        """Say why what was set up cannot run."""
        self._problem = problem

    def close(self) -> None:
        """End whatever goes on."""
        self._closing.set()
        self._thread.join(2.0)
        with self._lock:
            fit, self._fit = self._fit, None
            self._close_ear()
        if fit is not None:
            fit.cancel()

    # ---- within ------------------------------------------------------------------------------------------

    @contextmanager
    def _step(self, says: str) -> Iterator[None]:
        with self._lock:
            log.info("set-up: %s", shown(says.strip()))
            self._problem = ""
            self._looked = time.monotonic()
            yield

    def _phase(self) -> Phase:
        draft, ear = self._draft, self._ear
        if not draft.machine:
            return "source"
        if self._fit is not None:
            return "fitting"
        if ear is None:
            return "paused" if draft.result is None else "fitted"
        return "recording" if self.is_recording else "listening"

    def _need(self, *phases: Phase) -> None:
        if self._phase() not in phases:
            raise HarkenError(Sentence("that cannot be done at this step"), next_step=Sentence("Open the page again"))

    def _machines(self) -> tuple[str, ...]:
        if not self.place.configuration.exists():
            return ()
        return tuple(read_configuration(self.place.configuration).machines)

    def _change(self, **values: Any) -> None:
        draft = Draft(**{**asdict(self._draft), **values})
        self.place.write_draft(draft)
        self._draft = draft

    def _listen(self) -> None:
        if self._ear is None:
            machine = self._draft.machine
            self._ear = Ear(source_of(self.place, self._draft.source, machine), machine)

    def _close_ear(self) -> None:
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.close()

    def _hop_s(self) -> float | None:
        """The machine is listened to as often as it was recorded."""
        files = files_of(self.place.normal(self._draft.machine))
        return interval_s(files, self._files.summed(files))

    def _run(self) -> None:
        while not self._closing.wait(_TICK_S):
            try:
                self._tick()
            except HarkenError as error:
                self._problem = str(error)
            except Exception:
                log.exception("set-up: unexpected")

    def _tick(self) -> None:
        ear = self._ear
        if ear is not None:
            ear.work()
            while ear.works and not self._closing.is_set():
                ear.work()
        with self._lock:
            fit = self._fit
            if fit is not None and fit.over:
                self._fit = None
                if fit.error is not None:
                    self._problem = str(fit.error)
                    self._change(result=None)
                elif fit.result is not None:
                    self._change(result=fit.result)
            idle = time.monotonic() - self._looked > self._idle_s
            if self._ear is not None and idle and not self.is_recording:
                log.info("set-up: nobody looks; %s is not listened to any longer", self._draft.machine)
                self._close_ear()
