"""Two people act on one alarm at once: there is one state, both are seen, and the later one is told who was first."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from command_line import called
from harken.page.machines import key_of
from harken.page.server import PageServer
from harken.page.settings import PageSettings
from harken.service.alarm_state import AlarmState
from harken.service.machine_alarm import MachineAlarm
from harken.service.recorder import Recorder
from harken.service.requests import Request
from postgres import Postgres, postgres_programs
from test_machine_alarm import LOUD, hear, rule

KEY = key_of("monitor", "pump")


class Plant:
    """A machine in alarm whose monitor answers, and a page of it. place: of the store."""

    def __init__(self, place: str | Path, evidence: Path) -> None:
        self.place = place
        self.recorder = Recorder(place)
        self.alarm = MachineAlarm("pump", rule(), "m1", self.recorder)
        hear(self.alarm, [0.0] * 5 + [LOUD] * 10)
        evidence.mkdir(exist_ok=True)
        self.server = PageServer(PageSettings(place, evidence, port=0))
        self.server.start()
        self._ended = threading.Event()
        self._monitor = threading.Thread(target=self._answer)
        self._monitor.start()

    def _answer(self) -> None:
        """As `Monitor` does."""
        while not self._ended.wait(0.05):
            self.recorder.seen()
            for request in self.recorder.requests():
                self.alarm.answer(request)

    def close(self) -> None:
        self._ended.set()
        self._monitor.join()
        self.server.stop()
        self.recorder.close()

    def get(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> tuple[dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", int(self.server.url.rpartition(":")[2]), timeout=30)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()

    # ---- three ways to ask --------------------------------------------------------------------------------

    def by_page(self, demand: str, who: str, text: str) -> str:
        form = urlencode({"demand": demand, "who": who, "text": text})
        headers, _ = self.get(f"/machines/{KEY}/ask", "POST", form)
        _, page = self.get(headers["location"], Accept_Language="en")
        (answer,) = re.findall(r'role="status">Done: (.*?)</p>', page)
        return answer

    def by_program(self, demand: str, who: str, text: str) -> str:
        body = {"demand": demand, "who": who, "text": text, **({"hours": 2.0} if demand == "shelve" else {})}
        _, answer = self.get(f"/v1/machines/{KEY}/requests", "POST", json.dumps(body), Content_Type="application/json")
        number = json.loads(answer)["number"]
        while (asked := json.loads(self.get(f"/v1/requests/{number}")[1]))["answer"] is None:
            pass
        return str(asked["answer"])

    def by_command(self, demand: str, who: str, text: str) -> str:
        verb = {"acknowledge": "ack", "out of service": "out-of-service"}.get(demand, demand)
        place = self.place if "://" in str(self.place) else Path(self.place).parent
        done = called("monitor", verb, "pump", "--store", place, "--by", who, "--note", text)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().removeprefix("pump: ")


@contextmanager
def plant_at(place: str | Path, folder: Path) -> Iterator[Plant]:
    plant = Plant(place, folder / "evidence")
    try:
        yield plant
    finally:
        plant.close()


def at_once(*asks: tuple[Callable[[str, str, str], str], str, str]) -> dict[str, str]:
    """The answer to each person of (way, demand, name)."""
    together, answers = threading.Barrier(len(asks)), {}

    def ask(way: Callable[[str, str, str], str], demand: str, who: str) -> None:
        together.wait()
        answers[who] = way(demand, who, f"{who} wrote this")

    threads = [threading.Thread(target=ask, args=entry) for entry in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) == {who for *_, who in asks}
    return answers


def history(plant: Plant, *people: str) -> list[tuple[str, str]]:
    """(person, action) of the page, the earliest first; every one with the comment."""
    _, page = plant.get(f"/machines/{KEY}", Accept_Language="en")
    lines = re.findall(r"<tr><td>.*?</td><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", page)
    for who in people:
        assert any((who, f"{who} wrote this") == (name, text) for name, _, text in lines), page
    return [(who, action) for who, action, _ in reversed(lines) if who in people]


def stored_state(plant: Plant) -> AlarmState:
    values: Any = plant.recorder.loaded()
    return AlarmState.from_json(values.states["pump"]["state"])


def all_acknowledge(plant: Plant) -> None:
    """From page, program and command line at once."""
    asks = [(plant.by_page, "acknowledge", "Ada"), (plant.by_program, "acknowledge", "Bo"),
            (plant.by_command, "acknowledge", "Cy")]  # fmt: skip
    answers = at_once(*asks)
    (first,) = [who for who, answer in answers.items() if answer == "acknowledged"]
    for who in {"Ada", "Bo", "Cy"} - {first}:
        assert answers[who].startswith(f"it is acknowledged already: {first} was first, at 20")
    lines = history(plant, "Ada", "Bo", "Cy")
    assert lines[0] == (first, "seen")
    assert [action for _, action in lines[1:]] == ["also seen"] * 2
    assert stored_state(plant).phase == "acknowledged"
    (alarm,) = json.loads(plant.get(f"/v1/machines/{KEY}/alarms")[1])
    assert (alarm["phase"], alarm["acknowledged_by"]) == ("acknowledged", first)


def test_an_alarm_is_acknowledged_once_and_everybody_is_seen(tmp_path: Path) -> None:
    with plant_at(tmp_path / "monitor.db", tmp_path) as plant:
        all_acknowledge(plant)


def test_the_same_in_postgresql(tmp_path: Path) -> None:
    if postgres_programs() is None:
        pytest.skip("no PostgreSQL on this machine")
    pytest.importorskip("psycopg")
    with Postgres() as server, plant_at(server.new_database(), tmp_path) as plant:
        all_acknowledge(plant)


def test_different_requests_at_once_are_all_done_in_some_order(tmp_path: Path) -> None:
    with plant_at(tmp_path / "monitor.db", tmp_path) as plant:
        answers = at_once((plant.by_page, "acknowledge", "Ada"), (plant.by_program, "shelve", "Bo"))
        first, second = [who for who, _ in history(plant, "Ada", "Bo")]
        did = {"Ada": "acknowledged it", "Bo": "shelved it"}[first]
        assert answers[second].endswith(f"; {first} {did} just before")
        assert "just before" not in answers[first]
        state = stored_state(plant)
        assert (state.phase, state.shelved_until is not None) == ("acknowledged", True)

        answers = at_once((plant.by_page, "unshelve", "Di"), (plant.by_program, "shelve", "Ed"))
        *_, (_, last) = history(plant, "Di", "Ed")
        assert (stored_state(plant).shelved_until is not None) == (last == "muted")

        answers = at_once((plant.by_command, "out of service", "Fay"), (plant.by_page, "acknowledge", "Gus"))
        # Ada was first with that, and Gus is seen all the same.
        assert "Ada was first" in answers["Gus"]
        assert {*history(plant, "Fay", "Gus")} == {("Fay", "taken out of service"), ("Gus", "also seen")}
        assert stored_state(plant).out_of_service


def test_who_was_first_is_known_after_a_restart(tmp_path: Path) -> None:
    with plant_at(tmp_path / "monitor.db", tmp_path) as plant:
        plant.by_program("out of service", "Ada", "Ada wrote this")
    recorder = Recorder(tmp_path / "monitor.db")
    alarm = MachineAlarm("pump", rule(), "m1", recorder)
    answer = alarm.answer(Request("pump", "out of service", "Bo", datetime.now(UTC)))
    assert answer.startswith("it is out of service already: Ada was first")
    recorder.close()


def test_in_german_the_answer_is_german(tmp_path: Path) -> None:
    with plant_at(tmp_path / "monitor.db", tmp_path) as plant:
        plant.by_program("acknowledge", "Ada", "")
        headers, _ = plant.get(f"/machines/{KEY}/ask", "POST", urlencode({"demand": "acknowledge", "who": "Bo"}))
        _, page = plant.get(headers["location"], Accept_Language="de")
        assert "Erledigt: schon als gesehen gemeldet: Ada war schneller" in page
        assert "auch gesehen" in page
