"""The page of the monitor: what it says of each machine, what it takes, and what it refuses."""

from __future__ import annotations

import html
import http.client
import json
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from harken.core.errors import HarkenError
from harken.page import details
from harken.page.machines import Machines, key_of
from harken.page.security import RequestRate, is_loopback, known_host
from harken.page.server import PageServer
from harken.page.settings import PageSettings
from harken.page.state import PageState
from harken.page.texts import LANGUAGES, catalogue, chosen_language, texts
from harken.service.changes import Changes
from harken.service.store.store import Store
from postgres import Postgres, postgres_programs
from stored_plant import MONITOR, NAMES, SENTENCE, fill

TOKEN = "a-token-of-twenty-four-c"


class Browser:
    """Plain requests to a server."""

    def __init__(self, server: PageServer) -> None:
        self.port = int(server.url.rpartition(":")[2])

    def __call__(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def text(self, path: str, **headers: str) -> str:
        status, _, body = self(path, **headers)
        assert status == 200, body
        return body.decode()

    def json(self, path: str) -> Any:
        return json.loads(self.text(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    fill(folder)
    return folder


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    server = PageServer(PageSettings(folder / "store.db", folder / "evidence", port=0))
    server.start()
    yield Browser(server)
    server.stop()


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[Browser]:
    """With a token."""
    server = PageServer(PageSettings(folder / "store.db", folder / "evidence", port=0, token=TOKEN))
    server.start()
    yield Browser(server)
    server.stop()


def lines(page: str) -> list[str]:
    """Name and state of each machine in order."""
    found = re.findall(r"<h2><a [^>]*>(.*?)</a> <span[^>]*>(.*?)</span>", page)
    return [f"{name}: {state}" for name, state in found]


def test_each_machine_has_a_line_the_worst_first(browser: Browser) -> None:
    page = browser.text("/", Accept_Language="en")
    assert [re.sub(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) ", "", line) for line in map(_without_clock, lines(page))] == [
        "PUMP 3: sounds different since TIME",
        "Compressor: NO VALID SIGNAL: sensor failure",
        "Gearbox: NO SIGNAL since TIME",
        "Fan &lt;b&gt;1&lt;/b&gt;: as usual",
        "Slider: out of service",
    ]
    assert "One of 5 machines sounds different" in page
    assert SENTENCE in page
    assert "the signal is stuck at one value" in page
    assert "last heard" in page
    german = browser.text("/", Accept_Language="de-DE,de;q=0.9")
    assert "klingt anders seit" in german
    assert "neuer Ton bei 3,0 kHz durchgehend, 25 dB über allen 75 normalen Aufnahmen" in german
    # What an earlier release has stored stays as it was, and screen readers are told.
    assert '<span lang="en">the signal is stuck at one value</span>' in german
    assert '<html lang="de">' in german


def _without_clock(line: str) -> str:
    return re.sub(r"\d\d:\d\d", "TIME", line)


def test_the_page_of_a_machine_has_its_alarm_sound_and_history(browser: Browser) -> None:
    page = browser.text(f"/machines/{key_of(MONITOR, 'PUMP 3')}")
    for evidence in ("e1", "e2", "e3"):
        assert f"/evidence/{evidence}/sound" in page
    assert "/evidence/e1/picture" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "Once in 710 recordings." in page
    assert browser(f"/machines/{'0' * 12}")[0] == 404
    status, headers, body = browser("/evidence/e1/sound")
    assert (status, headers["content-type"], body[:4]) == (200, "audio/flac", b"fLaC")


@pytest.mark.parametrize("machine", NAMES)
def test_every_machine_has_a_page(browser: Browser, machine: str) -> None:
    page = browser.text(f"/machines/{key_of(MONITOR, machine)}", Accept_Language="de")
    assert html.escape(machine) in page
    assert ("kein Ton aufbewahrt" in page) == (machine != "PUMP 3")


def test_scores_over_time_have_gaps_where_nothing_was_heard(browser: Browser) -> None:
    week = browser.json(f"/machines/{key_of(MONITOR, 'Gearbox')}/scores/week")
    assert len(week["time"]) in (165, 166, 167, 168, 169)
    assert week["maximum"][-3:-1] == [None, None] or week["time"][-1] < week["until"] - 2 * 3600
    assert week["limit"] == 2.2
    day = browser.json(f"/machines/{key_of(MONITOR, 'PUMP 3')}/scores/day")
    assert max(value for value in day["maximum"] if value) > 2.5
    assert day["alarms"]
    assert browser(f"/machines/{key_of(MONITOR, 'PUMP 3')}/scores/decade")[0] == 404


def test_what_people_ask_reaches_the_monitor(browser: Browser, folder: Path) -> None:
    key = key_of(MONITOR, "PUMP 3")
    form = {"demand": "acknowledge", "who": "Jo <b>", "text": "bearing ordered"}
    store = Store.open(folder / "store.db", MONITOR)
    status, headers, _ = browser(f"/machines/{key}/ask", "POST", urlencode(form).encode())
    assert status == 303
    (request,) = store.requests()
    assert (request.machine, request.demand, request.who, request.text) == (
        "PUMP 3", "acknowledge", "Jo <b>", "bearing ordered",
    )  # fmt: skip
    store.commit(Changes(requests_done={request.number: "acknowledged"}))
    page = browser.text(headers["location"])
    assert "Done: acknowledged" in page
    # By a program; a shelving ends.
    body = json.dumps({"demand": "shelve", "hours": 2, "who": "robot"}).encode()
    status, _, answer = browser(f"/v1/machines/{key}/requests", "POST", body, Content_Type="application/json")
    assert status == 200, answer
    (request,) = store.requests()
    assert request.until is not None
    assert timedelta(hours=1.9) < request.until - datetime.now(UTC) < timedelta(hours=2)
    for wrong in ({"demand": "explode"}, {"demand": "shelve"}, {"demand": "acknowledge", "hours": 3},
                  {"demand": "shelve", "hours": -1}, {"demand": "acknowledge", "who": "x" * 101}):  # fmt: skip
        status, _, answer = browser(
            f"/v1/machines/{key}/requests", "POST", json.dumps(wrong).encode(), Content_Type="application/json"
        )
        assert status in (400, 422), (wrong, answer)
    store.commit(Changes(requests_done={request.number: "shelved"}))
    store.close()


def test_programs_see_what_the_page_shows(browser: Browser) -> None:
    machines = browser.json("/v1/machines")
    assert [machine["state"] for machine in machines] == ["alarm", "sensor", "silent", "normal", "out of service"]
    pump = machines[0]
    assert pump["alarm"]["sentence"] == SENTENCE
    assert browser.json(f"/v1/machines/{pump['key']}") | {"score": 0} == pump | {"score": 0}
    (alarm,) = browser.json(f"/v1/machines/{pump['key']}/alarms")
    assert browser.json(f"/v1/alarms/{alarm['id']}") == alarm
    assert browser(f"/alarms/{alarm['id']}")[1]["location"].startswith(f"/machines/{pump['key']}#")
    assert browser.json("/healthz") == {"healthy": True}
    assert "/v1/machines/{key}/score" in browser.json("/openapi.json")["paths"]


def test_no_name_becomes_a_path(browser: Browser) -> None:
    assert browser("/evidence/e4/sound")[0] == 404
    assert browser("/evidence/e4/picture")[0] == 404
    for path in ("/evidence/..%2f..%2fetc%2fpasswd/sound", "/evidence/e1/..%2f..%2fstore.db", "/static/../store.db",
                 "/static/%2e%2e/app.py", "/machines/..%2f", "/v1/evidence/%2e%2e/sound", "/v1/machines/../../x",
                 "/%00", "/machines/%0d%0aX-Evil:1"):  # fmt: skip
        status, headers, body = browser(path)
        assert status in (404, 422), path
        assert "x-evil" not in headers
        assert b"root:" not in body


def test_other_sites_can_neither_read_nor_ask(browser: Browser) -> None:
    _, headers, _ = browser("/")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    key = key_of(MONITOR, "PUMP 3")
    form = urlencode({"demand": "acknowledge"}).encode()
    assert browser(f"/machines/{key}/ask", "POST", form, Sec_Fetch_Site="cross-site")[0] == 403
    assert browser(f"/machines/{key}/ask", "POST", form, Origin="http://evil.example")[0] == 403
    assert browser("/v1/machines", Host="evil.example")[0] == 421
    assert browser(f"/machines/{key}/ask", "POST", b"x" * 70_000)[0] == 413
    assert browser(f"/machines/{key}/ask", "POST", b"", Content_Length="99999999")[0] == 413


def test_a_token_is_needed_everywhere_but_for_health(guarded: Browser) -> None:
    for path in ("/v1/machines", "/openapi.json", "/v1/evidence/e1/sound"):
        assert guarded(path)[0] == 401, path
    for path in ("/", f"/machines/{key_of(MONITOR, 'PUMP 3')}", "/events", "/evidence/e1/sound"):
        status, headers, _ = guarded(path)
        assert (status, headers["location"].partition("?")[0]) == (303, "/login"), path
    assert guarded("/healthz")[0] == 200
    assert guarded("/v1/machines", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert guarded("/v1/machines", Authorization="Bearer wrong")[0] == 401
    status, headers, _ = guarded("/login?next=/machines/x", "POST", urlencode({"token": TOKEN}).encode())
    cookie = headers["set-cookie"]
    assert (status, headers["location"]) == (303, "/machines/x")
    assert "HttpOnly" in cookie
    assert TOKEN not in cookie
    assert guarded("/", Cookie=cookie.partition(";")[0])[0] == 200
    assert guarded("/login?next=//evil.example", "POST", urlencode({"token": TOKEN}).encode())[1]["location"] == "/"
    # Guesses are slowed down.
    assert 429 in {guarded("/login", "POST", b"token=guess")[0] for _ in range(15)}


def test_an_address_that_others_reach_needs_a_token(tmp_path: Path) -> None:
    with pytest.raises(HarkenError, match="others reach"):
        PageSettings(tmp_path / "store.db", tmp_path, host="0.0.0.0")
    with pytest.raises(HarkenError, match="fewer than 16"):
        PageSettings(tmp_path / "store.db", tmp_path, token="short")
    assert is_loopback("127.0.0.2")
    assert is_loopback("::1")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("localhost.evil.example")
    assert known_host("[::1]:8765", ())
    assert not known_host("127.0.0.1.evil.example", ())
    assert known_host("plant.local:8765", ("plant.local",))


def test_a_taken_address_is_said(browser: Browser, folder: Path) -> None:
    server = PageServer(PageSettings(folder / "store.db", folder / "evidence", port=browser.port))
    with pytest.raises(HarkenError, match="cannot be served"):
        server.start()


def test_requests_per_client_are_limited() -> None:
    rate = RequestRate(per_second=1.0, burst=2, most_clients=2)
    assert [rate.wait_s("a", now=0.0) for _ in range(2)] == [0.0, 0.0]
    assert rate.wait_s("a", now=0.25) == pytest.approx(0.75)
    assert rate.wait_s("b", now=0.25) == 0.0
    assert rate.wait_s("a", now=1.5) == 0.0


def test_it_shows_the_same_from_postgresql(folder: Path) -> None:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL (initdb, pg_ctl) is not on this machine")
    now = datetime.now(UTC)
    shown = {}
    with Postgres() as server:
        there = server.new_database()
        fill(folder / "postgresql", days=2.0, place=there)
        fill(folder / "sqlite", days=2.0)
        for place in (there, str(folder / "sqlite" / "store.db")):
            store = Store.open(place, MONITOR)
            with store.reading() as connection:
                views = Machines().all(connection, now)
                hours = details.scores(connection, MONITOR, "Gearbox", "week", now)
            store.close()
            shown[place] = [(view.machine, view.state, len(view.strip)) for view in views], len(hours["time"])
    assert len(set(map(repr, shown.values()))) == 1, shown


def test_a_demo_of_another_time_is_shown_as_if_it_were_now(tmp_path: Path) -> None:
    fill(tmp_path, days=1.0, ago=timedelta(days=200))
    states = {}
    for replayed in (True, False):
        state = PageState(PageSettings(tmp_path / "store.db", tmp_path / "evidence", replayed=replayed))
        with state.store.reading() as connection:
            (fan,) = (view for view in state.machines.all(connection, state.now()) if view.machine.startswith("Fan"))
        states[replayed] = fan.state, len(fan.strip) > 20
        state.store.close()
    assert states == {True: ("normal", True), False: ("silent", False)}


def test_languages_have_the_same_words() -> None:
    def fields(words: str) -> set[str | None]:
        return {name for _, name, _, _ in string.Formatter().parse(words) if name is not None}

    english = catalogue("en")
    for language in LANGUAGES:
        other = catalogue(language)
        assert other.keys() == english.keys()
        assert {key: fields(words) for key, words in other.items()} == {
            key: fields(words) for key, words in english.items()
        }
    assert chosen_language(None, "fr, de;q=0.8") == "de"
    assert chosen_language("xx", None) == "en"
    now = datetime(2026, 3, 5, 12, tzinfo=UTC)
    assert texts("en").ago(now - timedelta(seconds=130), now) == "2 min ago"
    assert texts("en").ago(now - timedelta(days=9), now) == "9 days ago"
    assert texts("en").when(now - timedelta(days=400), now).endswith("2025")


def test_a_recording_is_judged_by_the_model_of_the_machine(tmp_path: Path, make_clips: Callable[..., Path]) -> None:
    import harken

    hums = make_clips("normal", 12)

    model = tmp_path / "pump.harken"
    harken.Detector.fit(hums).save(model)
    fill(tmp_path / "stored", days=0.1, model=model)
    server = PageServer(PageSettings(tmp_path / "stored" / "store.db", tmp_path / "stored" / "evidence", port=0))
    server.start()
    try:
        browser, key = Browser(server), key_of(MONITOR, "PUMP 3")
        recording = sorted(hums.iterdir())[0]
        status, _, body = browser(f"/v1/machines/{key}/score", "POST", recording.read_bytes())
        expected = harken.load(model).score(recording).as_json()
        assert status == 200, body
        assert json.loads(body) | {"file": ""} == expected | {"file": ""}
        status, _, body = browser(f"/v1/machines/{key}/score", "POST", b"this is no sound")
        assert status == 400
        assert "harken-" not in body.decode()
    finally:
        server.stop()


def test_people_say_what_a_sound_was_and_choose_a_version(
    browser: Browser, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of(MONITOR, "PUMP 3")
    page = browser.text(f"/machines/{key}")
    (alarm,) = set(re.findall(r"/teach\?alarm=(\w+)&amp;demand=normal", page))
    assert "Jo &lt;b&gt;" in page
    assert f"/machines/{key}/teach?demand=rollback&amp;version=1" in page
    question = browser.text(f"/machines/{key}/teach?demand=normal&alarm={alarm}", Accept_Language="en")
    assert "is it fine?" in question
    assert "The same model listens to Compressor, Fan &lt;b&gt;1&lt;/b&gt;, Gearbox, Slider" in question
    form = {"demand": "normal", "alarm": alarm, "who": "Jo", "text": "new recipe"}
    status, headers, _ = browser(f"/machines/{key}/teach", "POST", urlencode(form).encode())
    assert status == 303
    store = Store.open(folder / "store.db", MONITOR)
    request = next(each for each in store.requests() if each.demand == "normal")
    assert (request.alarm, request.who, request.text, request.force) == (alarm, "Jo", "new recipe", False)
    # The page looks for the answer again, but not for ever.
    monkeypatch.setattr("harken.page.actions._MODEL_PATIENCE_S", 0.0)
    late = store.ask(replace(request, time=request.time - timedelta(minutes=2), number=0))
    for number, refreshed in ((request.number, True), (late, False)):
        for place in ("/", f"/machines/{key}"):
            assert ('http-equiv="refresh"' in browser.text(f"{place}?asked={number}")) == refreshed
    store.commit(Changes(requests_done={late: "done"}))
    # The model is against it: that can be overruled.
    store.commit(Changes(requests_done={request.number: "refused: is like a known fault. Force it (--force)."}))
    page = browser.text(headers["location"], Accept_Language="en")
    assert "Not done:" in page
    assert "It is normal all the same: learn it" in page
    status, _, _ = browser(f"/machines/{key}/teach", "POST", urlencode(form | {"force": "1"}).encode())
    assert next(each for each in store.requests() if each.demand == "normal").force
    # Without a name, of another machine's alarm, and of no version, nothing is asked.
    assert browser(f"/machines/{key}/teach", "POST", urlencode(form | {"who": ""}).encode())[0] == 400
    other = key_of(MONITOR, "Gearbox")
    assert browser(f"/machines/{other}/teach?demand=normal&alarm={alarm}")[0] == 404
    assert browser(f"/machines/{key}/teach?demand=rollback&version=9")[0] == 404
    assert browser(f"/machines/{key}/teach?demand=rollback&version=x")[0] == 400
    assert browser(f"/machines/{key}/teach?demand=normal&since=soon")[0] == 400
    assert browser(f"/machines/{key}/teach", "POST", urlencode(form).encode(), Origin="http://evil.example")[0] == 403
    body = json.dumps({"demand": "rebaseline", "who": "Ada", "since": "2026-03-01T00:00:00Z"}).encode()
    answer = browser(f"/v1/machines/{key}/requests", "POST", body, Content_Type="application/json")
    assert answer[0] == 200, answer
    assert [version["number"] for version in browser.json(f"/v1/machines/{key}/models")] == [2, 1]
    store.commit(Changes(requests_done={each.number: "done" for each in store.requests()}))
    store.close()
