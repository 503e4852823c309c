"""A store as monitors leave it: what a page is shown."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import soundfile as sf
from matplotlib.image import imsave

from harken.core.sentences import Sentence
from harken.service.alarm_state import AlarmState
from harken.service.changes import (
    AlarmRecord,
    Changes,
    EvidenceRecord,
    HistoryEntry,
    ModelInUse,
    SensorRecord,
    WindowScore,
)
from harken.service.model_versions import MachineVersion, VersionCount
from harken.service.store.store import Store

MONITOR, LIMIT = "plant", 2.2
SENTENCE = Sentence(
    "{change} {when}, {height}",
    change=Sentence("new tone near {frequency}", frequency=Sentence("{frequency:.1f} kHz", frequency=3.0)),
    when=Sentence("throughout"),
    height=Sentence(
        "{change:.0f} dB above any of {normals}", change=25, normals=Sentence("{count} normal recordings", count=75)
    ),
)
#: an alarm that lasts, a sensor that failed, silence, usual sound, out of service
NAMES = ("PUMP 3", "Compressor", "Gearbox", "Fan <b>1</b>", "Slider")
STEP_S = 600


def fill(
    folder: Path, days: float = 8.0, model: Path | None = None, place: str | None = None, ago: timedelta = timedelta()
) -> Path:
    """Write `store.db`, or the store at `place`, and `evidence/`; the path of `store.db`."""
    evidence = folder / "evidence"
    evidence.mkdir(parents=True)
    store = Store.open(place or folder / "store.db", MONITOR)
    now = datetime.now(UTC) - ago
    store.seen(now)
    times = np.arange(32_000) / 16_000
    sf.write(evidence / "tone.flac", 0.1 * np.sin(2 * np.pi * 3000 * times), 16_000)
    sf.write(evidence / "hum.flac", 0.1 * np.sin(2 * np.pi * 100 * times), 16_000)
    imsave(evidence / "tone.png", np.linspace(0, 1, 4000).reshape(40, 100))
    for machine in NAMES:
        store.commit(_machine(machine, now, days, model))
    store.close()
    return folder / "store.db"


def _machine(machine: str, now: datetime, days: float, model: Path | None) -> Changes:
    changes, alarm = Changes(), "5f" * 16
    count, onset = int(days * 86_400 / STEP_S), now - timedelta(hours=7)
    for number in range(count):
        # The last window ended a moment ago.
        start = now - timedelta(seconds=STEP_S * (count - number - 1) + 12)
        if machine == "Gearbox" and start > now - timedelta(hours=3):
            break
        alarming = machine == "PUMP 3" and start >= onset
        score = 1.0 + 0.2 * math.sin(number / 9) + 2.0 * alarming
        changes.windows.append(
            WindowScore(
                machine,
                number,
                160_000 * number,
                start,
                start + timedelta(seconds=10),
                "alarm" if alarming else "normal",
                score,
                None,
                0.5,
                "abc",
                alarm=alarm if alarming else "",
            )
        )
    state = AlarmState(out_of_service=machine == "Slider")
    if machine == "PUMP 3":
        state = AlarmState("unacknowledged", alarm, onset, None, True)
        changes.alarms[alarm] = AlarmRecord(
            alarm, machine, "unacknowledged", onset, onset, windows=42, highest=3.2, sentence=SENTENCE, evidence="e1"
        )
        changes.evidence += [
            EvidenceRecord("e1", machine, alarm, onset, 999, "tone.flac", "tone.png", SENTENCE, 3.2),
            EvidenceRecord("e2", machine, "", now, 999, "tone.flac", kind="live"),
            EvidenceRecord("e3", machine, "", now - timedelta(days=2), 999, "hum.flac", kind="normal"),
            # A store that somebody tampered with.
            EvidenceRecord("e4", machine, "", now - timedelta(days=3), 999, "../store.db", "../../etc/passwd"),
        ]
        changes.history.append(HistoryEntry(machine, onset, "raised", "", "<script>alert(1)</script>", alarm))
    if machine == "Compressor":
        changes.sensors.append(SensorRecord(machine, "failure", onset, "the signal is stuck at one value"))
    changes.states[machine] = {"state": state.to_json()}
    counted = VersionCount(now - timedelta(days=7), 1008, 42, 1)
    first = MachineVersion(machine, 1, "fit", "", None, "", None, 75, 0, False, False, counted)
    second = MachineVersion(machine, 2, "update", "Jo <b>", now, "a new recipe", None, 90, 15, True, True, counted)
    changes.versions += [first, second]
    path = str(model) if model is not None else "/nowhere/pump.harken"
    changes.models.append(ModelInUse(machine, "abc", path, onset, LIMIT, ["Once in 710 recordings."]))
    return changes
