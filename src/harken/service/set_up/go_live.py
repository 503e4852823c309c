"""A machine that was learned joins the configuration of a monitor."""

from __future__ import annotations

from typing import Any

from harken.core.errors import HarkenError, writing
from harken.core.files import write_atomically
from harken.core.names import shown
from harken.core.sentences import Sentence
from harken.service.assembly import Models, check_machine
from harken.service.records import Resume
from harken.service.set_up.fitting import RATES
from harken.service.set_up.folder import Draft, SetUpFolder, write_private
from harken.service.set_up.learned import learned_files
from harken.service.set_up.plant_file import literal, with_machine


def go_live(place: SetUpFolder, draft: Draft, rate: str, hop_s: float | None, page: dict[str, Any] | None) -> Resume:
    """Write the configuration with the machine of a draft; what of its source need not be heard.

    rate: of false alarms, one of `RATES`. hop_s: see `MonitoredEntry`. page: entry of the page in a new configuration.
    Raises HarkenError, before anything is written, for what a monitor could not run.
    """
    if rate not in RATES:
        raise HarkenError(
            Sentence("there is no rate {rate!r}", rate=shown(rate)),
            next_step=Sentence("Choose one of: {rates}", rates=", ".join(RATES)),
        )
    machine, source = draft.machine, literal(draft.source)
    learned: Resume = {}
    if source["kind"] == "folder":
        learned = learned_files(place.below(draft.source["path"]), machine, place.normal(machine))
    # Passwords are before the host, or parameters.
    if set("@?") & set(source.get("url", "")):
        write_private(place.secret(machine), draft.source["url"])
        source["url"] = f"${{file:{place.secret(machine).name}}}"
    entry = {"source": machine, "model": place.model(machine).name, "false_alarms": rate}
    if hop_s is not None:
        entry["hop"] = f"{hop_s:g}s"
    text, configuration = with_machine(place.configuration, machine, source, entry, page)
    check_machine(machine, configuration, Models().get(configuration.machines[machine]))
    with writing(place.configuration, "Check the folder and the disk"):
        write_atomically(place.configuration, text.encode())
    return learned
