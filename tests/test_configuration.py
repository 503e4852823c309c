"""Configurations of a monitor: what is wrong is said with its line, the nearest name, and no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from harken.core.errors import HarkenError
from harken.service.configuration.read import read_configuration

PLANT = """\
monitor: hall-2
sources:
  hall:
    kind: stream
    url: rtsp://camera.local/sound
  pumps:
    kind: folder
    path: recordings
machines:
  fan: {source: hall, model: models/fan.harken, channels: [1]}
  pump:
    source: pumps
    model: /models/pump.harken
    false_alarms: 1/week
sinks:
  broker: {kind: mqtt, host: localhost, user: harken, password: "${HARKEN_TEST_PASSWORD}"}
  hook:
    kind: webhook
    url: https://example.com/hook
    secret: ${file:secret}
    messages: [alarm]
http: {port: 9000}
evidence: {quota: 500MB}
"""


@pytest.fixture
def plant_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARKEN_TEST_PASSWORD", "hidden-1")
    (tmp_path / "secret").write_text("hidden-2\n")
    file = tmp_path / "plant.yaml"
    file.write_text(PLANT)
    return file


def test_a_configuration_is_read(plant_file: Path) -> None:
    plant = read_configuration(plant_file)
    assert plant.monitor == "hall-2"
    assert plant.machines["fan"].model == plant_file.parent / "models/fan.harken"
    assert plant.machines["pump"].model == Path("/models/pump.harken")
    assert plant.sources["pumps"].path == plant_file.parent / "recordings"  # type: ignore[union-attr]
    assert plant.sinks["broker"].password == "hidden-1"  # type: ignore[union-attr]
    assert plant.sinks["hook"].secret == "hidden-2"  # type: ignore[union-attr]
    assert plant.sinks["hook"].messages == ("alarm",)
    assert plant.store == str(plant_file.parent / "monitor.db")
    assert plant.evidence.quota_bytes == 500_000_000
    assert "hidden" not in repr(plant)
    assert plant.evidence_folder == plant_file.parent / "evidence" / "hall-2"
    plant_file.write_text(PLANT + "store: postgresql://db/harken\n")
    assert read_configuration(plant_file).evidence_folder == plant_file.parent / "evidence" / "hall-2"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("    path: recordings", "    pth: recordings", r"line 8: .*pth.*Did you mean path"),
        ("kind: folder", "kind: foldr", r"line 7: .*foldr.*Did you mean folder"),
        ("    kind: folder\n", "", r"line 6: .*has no kind"),
        ("source: pumps", "source: pump", r"line 12: .*no source 'pump'.*Did you mean pumps"),
        ("source: pumps", "source: hall", r"line 6: no machine listens to the source pumps"),
        ("1/week", "often", r"line 14: .*often"),
        ("port: 9000", "port: 900000", r"line 22: http.port"),
        ("port: 9000", "port: yes", r"line 22: http.port: yes is no number"),
        ("channels: [1]", "channels: [0]", r"line 10: machines.fan.channels.0"),
        ("quota: 500MB", "quota: much", r"line 23: evidence.quota"),
        ("host: localhost", "hots: localhost", r"line 16: .*hots.*Did you mean host"),
        ("HARKEN_TEST_PASSWORD", "HARKEN_TEST_PASSWRD", r"line 16: .*Did you mean HARKEN_TEST_PASSWORD"),
        ("file:secret", "file:none", r"line 20: .*none cannot be read"),
        ("https://example.com/hook", "ftp://hidden/hook", r"line 19: sinks.hook.url: is no address"),
        ("  pump:", "  fan:", r"line 11: the key 'fan' occurs twice"),
        ("  pump:", "  Fan:", r"'fan' and 'Fan' are hardly told apart"),
        ("  pump:", "  a/b:", r"line 11: .*has a slash"),
        ("  pump:", "  a#b:", r"line 11: .*topics"),
        ("monitor: hall-2", "monitr: hall-2", r"line 1: .*Did you mean monitor"),
        ("machines:", "machine:", r"line 9: .*machine.*Did you mean machines"),
        ("user: harken, ", "", r"line 16: .*a password comes with a user"),
        ("messages: [alarm]", "messages: [alarms]", r"line 21: sinks.hook.messages.0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(plant_file: Path, before: str, after: str, said: str) -> None:
    assert before in PLANT
    plant_file.write_text(PLANT.replace(before, after))
    with pytest.raises(HarkenError, match=said) as error:
        read_configuration(plant_file)
    assert "hidden" not in str(error.value)
    assert str(plant_file) in str(error.value)


def test_machines_share_a_folder_by_channels(plant_file: Path) -> None:
    shared = PLANT.replace("source: hall, model", "source: pumps, model").replace(
        "  hall:\n    kind: stream\n    url: rtsp://camera.local/sound\n", ""
    )
    plant_file.write_text(shared)
    with pytest.raises(HarkenError, match="listen to all of one folder"):
        read_configuration(plant_file)
    plant_file.write_text(shared.replace("    false_alarms: 1/week", "    channels: [2]"))
    assert read_configuration(plant_file).machines["pump"].channels == (2,)


def test_references_can_be_written_out(plant_file: Path) -> None:
    plant_file.write_text(PLANT.replace("monitor: hall-2", "monitor: hall $${HARKEN_TEST_PASSWORD}"))
    assert read_configuration(plant_file).monitor == "hall ${HARKEN_TEST_PASSWORD}"


@pytest.mark.parametrize(
    "text", ["", "- a\n", "machines: {}\nsources: {}\n", "{", "machines: 3\nsources: {a: {kind: pipe}}\n"]
)
def test_what_is_no_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(HarkenError):
        read_configuration(tmp_path / "c.yaml")
