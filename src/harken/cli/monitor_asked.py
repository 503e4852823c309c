"""harken monitor status, alarms, ack, shelve ...: ask a monitor by its store, whether it runs or not."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harken.cli.console import emit, line, say, user_name
from harken.cli.monitor_run import DEFAULT_STORE
from harken.core.errors import HarkenError, did_you_mean

if TYPE_CHECKING:
    from harken.service.requests import Demand
    from harken.service.store.store import Store

#: seconds to wait for its answer
_ANSWER_S = 10.0

StoreOption = Annotated[str, typer.Option("--store", help="Folder, or postgresql://..., that the monitor writes to.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="The configuration of the monitor.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
MachineArgument = Annotated[str, typer.Argument(help="Name of the machine.", show_default=False)]
WhoOption = Annotated[str | None, typer.Option("--by", help="Who asks for it (default: the user of this computer).")]
TextOption = Annotated[str, typer.Option("--note", help="Why; it is kept with the alarm.")]


def status(store: StoreOption = DEFAULT_STORE, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show whether the monitor runs, and how its machines, sensors and sinks are."""
    from harken.service.store.overview import overview

    seen = overview(opened(store, config))
    running = seen.running
    runs = running is not None and running.runs(datetime.now(UTC))
    last, stopped = (None, None) if running is None else (running.seen, running.stopped)
    if json:
        emit({
            "monitor": seen.monitor, "runs": runs, "seen": _text(last), "stopped": _text(stopped),
            "stopped_by": "" if running is None else running.stopped_by, "messages": seen.messages,
            "machines": [_jsonable(asdict(machine)) for machine in seen.machines],
            "sinks": [_jsonable(asdict(sink)) for sink in seen.sinks],
        })  # fmt: skip
        return
    state = "runs" if runs else f"does not run, last seen {_text(last)}"
    if running is not None and running.stopped is not None:
        state = f"stopped {_text(running.stopped)} by {running.stopped_by}"
    line(f"monitor {seen.monitor}: {state}")
    for machine in seen.machines:
        state = machine.state.get("display") or machine.state.get("phase") or "normal"
        heard = "nothing heard yet" if machine.last is None else f"last heard {_text(machine.last)}: {machine.kind}"
        score = "" if machine.score is None else f" {machine.score:.4g}"
        if machine.not_judged and machine.sensor != "failure":
            score = f" ({machine.not_judged})"
        sensor = f", sensor {machine.sensor}" + (f" ({machine.reason})" if machine.reason else "")
        line(f"{machine.machine}: {state}, {heard}{score}{sensor if machine.sensor else ''}")
    for sink in seen.sinks:
        problem = f": {sink.problem}" if sink.problem else ""
        line(f"sink {sink.sink}: {seen.messages - sink.position} messages waiting{problem}")


def alarms(
    machine: Annotated[str | None, typer.Argument(help="Name of a machine (default: all).", show_default=False)] = None,
    last: Annotated[int, typer.Option(help="How many.", min=1)] = 20,
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """List alarms, the latest first."""
    from harken.service.store.overview import alarms as alarms_of

    store_of = opened(store, config)
    if machine is not None:
        check_machine(store_of, machine)
    for alarm in alarms_of(store_of, machine=machine, limit=last):
        if json:
            emit({"record": "alarm", **_jsonable(asdict(alarm))})
            continue
        by = f", acknowledged by {alarm.acknowledged_by}" if alarm.acknowledged_by else ""
        until = f" to {_text(alarm.ended)}" if alarm.ended is not None else ""
        phase = "over" if alarm.phase == "normal" else alarm.phase
        line(f"{alarm.machine}: {phase}, {_text(alarm.raised)}{until}{by}. {alarm.sentence}")


def ack(
    machine: MachineArgument,
    by: WhoOption = None,
    note: TextOption = "",
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
) -> None:
    """Acknowledge the alarm of a machine: somebody knows."""
    ask(opened(store, config), machine, "acknowledge", by, note)


def shelve(
    machine: MachineArgument,
    hours: Annotated[float, typer.Option("--hours", help="For so long.", min=0.01, max=24 * 31)] = 8.0,
    by: WhoOption = None,
    note: TextOption = "",
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
) -> None:
    """Say nothing of the alarms of a machine for a time. It is listened to all the same."""
    ask(opened(store, config), machine, "shelve", by, note, until=datetime.now(UTC) + timedelta(hours=hours))


def unshelve(
    machine: MachineArgument,
    by: WhoOption = None,
    note: TextOption = "",
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
) -> None:
    """End shelving now."""
    ask(opened(store, config), machine, "unshelve", by, note)


def out_of_service(
    machine: MachineArgument,
    by: WhoOption = None,
    note: TextOption = "",
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
) -> None:
    """Say nothing of the alarms of a machine until it is put back: it is being repaired."""
    ask(opened(store, config), machine, "out of service", by, note)


def in_service(
    machine: MachineArgument,
    by: WhoOption = None,
    note: TextOption = "",
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
) -> None:
    """Put a machine back into service."""
    ask(opened(store, config), machine, "in service", by, note)


def ask(
    store: Store, machine: str, demand: Demand, by: str | None, note: str, *, patience_s: float = _ANSWER_S, **more: Any
) -> None:
    """Leave a request in the store, and wait for the monitor's answer if it runs. more: fields of `Request`.

    Raises HarkenError for a request that is none, and for one that is refused.
    """
    from harken.service.requests import Request, check_request
    from harken.service.store.overview import overview

    check_machine(store, machine)
    request = Request(machine, demand, by or user_name(), datetime.now(UTC), text=note, **more)
    check_request(request)
    number = store.ask(request)
    running = overview(store).running
    if running is None or not running.runs(datetime.now(UTC)):
        say("the monitor does not run; it takes this up when it does")
        return
    end = time.monotonic() + patience_s
    while (answer := store.answer(number)) is None:
        if time.monotonic() > end:
            say("the monitor has not answered yet; it takes this up as soon as it can")
            return
        time.sleep(0.1)
    if answer.startswith("refused: "):
        raise HarkenError(answer.removeprefix("refused: ").rstrip("."), file=machine)
    line(f"{machine}: {answer}")


def opened(store: str, config: Path | None) -> Store:
    """The store of a monitor, by its configuration or place. Raises HarkenError where there is none."""
    from harken.service.store.overview import monitors
    from harken.service.store.store import Store

    if config is not None:
        from harken.service.configuration.read import read_configuration

        configuration = read_configuration(config)
        place, name = configuration.store, configuration.monitor
    else:
        place, name = (store if "://" in store else str(Path(store) / "monitor.db")), "monitor"
    if "://" not in place and not Path(place).is_file():
        raise HarkenError(
            "there is no store of a monitor", file=place, next_step="Give its --store or --config, or start it first"
        )
    store_of = Store.open(place, name)
    names = monitors(store_of)
    if config is None and name not in names and len(names) == 1:
        store_of = Store.open(place, names[0])
    return store_of


def check_machine(store: Store, machine: str) -> None:
    """Raise HarkenError unless the monitor of the store has the machine."""
    from harken.service.store.overview import overview

    names = [each.machine for each in overview(store).machines]
    if machine not in names:
        raise HarkenError(f"the monitor has no machine {machine!r}", next_step=did_you_mean(machine, names))


def _text(time: datetime | None) -> str:
    return "never" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, dict):
        return {key: _jsonable(inside) for key, inside in value.items()}
    return [_jsonable(inside) for inside in value] if isinstance(value, list) else value
