"""Sinks against real peers: brokers, an HTTP server, programs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harken.core.errors import HarkenError
from harken.service.alarm_state import AlarmState
from harken.service.http_server import HealthServer
from harken.service.records import Message
from harken.service.sensor import SensorState
from harken.service.sinks.base import NotDeliveredError, RefusedError, Sink
from harken.service.sinks.command import CommandSink
from harken.service.sinks.metrics import Metrics
from harken.service.sinks.mqtt import BrokerAddress, MqttSink
from harken.service.sinks.notify import NotifySink
from harken.service.sinks.webhook import WebhookSink
from peers import MOSQUITTO, amqtt_broker, free_port, listening, mosquitto, receiver, wait_for

TIME = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


def message(number: int = 1, **payload: Any) -> Message:
    return Message(
        f"id-{number}", number, "alarm", "pump", TIME, {"state": "unacknowledged", "active": True, **payload}
    )


# ---- webhook ---------------------------------------------------------------------------------------------


def test_a_webhook_is_signed_as_standard_webhooks_says() -> None:
    key = b"thirty-two bytes of a secret key"
    with receiver() as peer:
        sink = WebhookSink("hook", peer.url, secret=f"whsec_{base64.b64encode(key).decode()}")
        sink.start()
        sink.deliver(message(7, note="läuft"))
        sink.close()
        headers, body = peer.requests[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == "id-7"
    assert headers["content-type"] == "application/json"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert json.loads(body)["note"] == "läuft"
    assert json.loads(body)["time"] == "2026-03-01T12:00:00+00:00"


@pytest.mark.parametrize("code", [400, 413, 415, 422])
def test_answers_about_the_message_refuse_it(code: int) -> None:
    with receiver() as peer:
        peer.answers = [code]
        sink = WebhookSink("hook", peer.url)
        sink.start()
        with pytest.raises(RefusedError, match=str(code)):
            sink.deliver(message())


@pytest.mark.parametrize("code", [301, 401, 404, 410, 429, 500, 503])
def test_answers_about_the_address_are_tried_again(code: int) -> None:
    with receiver() as peer:
        peer.answers = [code]
        sink = WebhookSink("hook", f"{peer.url}/path?token=secret")
        sink.start()
        with pytest.raises(NotDeliveredError) as error:
            sink.deliver(message())
        assert "secret" not in str(error.value)
        assert len(peer.requests) == 1
        sink.deliver(message())


def test_a_webhook_that_does_not_answer_is_tried_again() -> None:
    sink = WebhookSink("hook", f"http://user:secret@127.0.0.1:{free_port()}/token")
    sink.start()
    with pytest.raises(NotDeliveredError, match=r"refused") as error:
        sink.deliver(message())
    assert "secret" not in str(error.value)
    assert "token" not in str(error.value)


def test_a_secret_that_is_not_base64_is_refused() -> None:
    with pytest.raises(HarkenError, match="base64"):
        WebhookSink("hook", "http://localhost", secret="whsec_???")


# ---- command ---------------------------------------------------------------------------------------------


def script(folder: Path, program: str) -> list[str]:
    file = folder / "program.py"
    file.write_text(program)
    return [sys.executable, str(file)]


def test_a_command_reads_the_message(tmp_path: Path) -> None:
    command = script(
        tmp_path, "import os, sys; open(sys.argv[1], 'w').write(sys.stdin.read() + os.environ['HARKEN_MESSAGE_ID'])"
    )
    CommandSink("page", [*command, str(tmp_path / "got")]).deliver(message(3))
    body, identity = (tmp_path / "got").read_text().split("\n")
    assert json.loads(body) == message(3).as_json()
    assert identity == "id-3"


@pytest.mark.parametrize(("code", "error"), [(65, RefusedError), (1, NotDeliveredError), (75, NotDeliveredError)])
def test_exit_codes_of_a_command(tmp_path: Path, code: int, error: type[HarkenError]) -> None:
    command = script(tmp_path, f"import sys; print('no paper', file=sys.stderr); sys.exit({code})")
    with pytest.raises(error, match=f"exit code {code}: no paper"):
        CommandSink("page", command).deliver(message())


def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    child = f"import time; time.sleep(1.5); open({str(mark)!r}, 'w')"
    command = script(tmp_path, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")
    with pytest.raises(NotDeliveredError, match="killed"):
        CommandSink("page", command, timeout_s=0.4).deliver(message())
    time.sleep(1.6)
    assert not mark.exists()


def test_a_command_is_interrupted(tmp_path: Path) -> None:
    sink = CommandSink("page", script(tmp_path, "import time; time.sleep(600)"), timeout_s=600)
    threading.Timer(0.3, sink.interrupt).start()
    begun = time.monotonic()
    with pytest.raises(NotDeliveredError):
        sink.deliver(message())
    assert time.monotonic() - begun < 300


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotDeliveredError, match="cannot be started"):
        CommandSink("page", [str(tmp_path / "none")]).deliver(message())


# ---- people ----------------------------------------------------------------------------------------------


def test_people_get_sentences() -> None:
    with receiver() as peer:
        sink = NotifySink("people", peer.url.replace("http://", "json://"))
        sink.deliver(
            message(
                event="raised",
                headline="sounds different",
                sentence="The pump sounds different.",
                why="new tone near 3.0 kHz",
            )
        )
        (got,) = peer.messages
        assert got["title"] == "pump: sounds different"
        assert got["message"] == "The pump sounds different. Heard: new tone near 3.0 kHz."
        sink.deliver(message(sentence="Acknowledged.", quiet=True))
        assert len(peer.requests) == 1
        peer.answers = [500]
        with pytest.raises(NotDeliveredError, match="500"):
            sink.deliver(message(sentence="Again."))


def test_an_address_that_apprise_does_not_know() -> None:
    with pytest.raises(HarkenError, match="none that Apprise understands") as error:
        NotifySink("people", "carrierpigeon://secret")
    assert "secret" not in str(error.value)


# ---- MQTT ------------------------------------------------------------------------------------------------


def mqtt_sink(port: int, **options: Any) -> MqttSink:
    address = {key: options.pop(key) for key in list(options) if key in BrokerAddress.__dataclass_fields__}
    options = {"monitor": "plant", "machines": ["pump"], "patience_s": 5.0, **options}
    return MqttSink("broker", BrokerAddress("127.0.0.1", port, **address), **options)


def publishes_states(port: int) -> None:
    """Birth, messages in order, retained state, discovery, and the end."""
    with listening(port) as listener:
        sink = mqtt_sink(port)
        sink.start()
        for number in (1, 2, 3):
            sink.deliver(message(number, state=f"s{number}"))
        wait_for(lambda: len(listener.payloads("harken/plant/messages")) == 3)
        assert [json.loads(text)["id"] for text in listener.payloads("harken/plant/messages")] == [
            "id-1",
            "id-2",
            "id-3",
        ]
        assert listener.payloads("harken/plant/status") == ["online"]
        config = json.loads(listener.payloads("homeassistant/binary_sensor/harken_plant_pump/alarm/config")[0])
        assert config["state_topic"] == "harken/plant/pump/alarm"
        assert config["availability_topic"] == "harken/plant/status"
        # Home Assistant, started again, asks for its entities.
        listener.client.publish("homeassistant/status", "online", qos=1)
        wait_for(lambda: len(listener.payloads("homeassistant/sensor/harken_plant_pump/state/config")) == 2)
        sink.close()
        wait_for(lambda: listener.payloads("harken/plant/status")[-1] == "offline")
    with listening(port, "harken/#") as late:
        wait_for(lambda: late.payloads("harken/plant/pump/alarm"))
        assert json.loads(late.payloads("harken/plant/pump/alarm")[0])["state"] == "s3"
        assert all(retained for _, _, retained in late.received)
        assert not late.payloads("harken/plant/messages")


def test_mqtt_states_with_amqtt() -> None:
    port = free_port()
    with amqtt_broker(port):
        publishes_states(port)


@needs_mosquitto
def test_mqtt_states_with_mosquitto(tmp_path: Path) -> None:
    port = free_port()
    with mosquitto(tmp_path, port, "allow_anonymous true"):
        publishes_states(port)


@needs_mosquitto
def test_the_last_will_tells_of_a_monitor_that_was_killed(tmp_path: Path) -> None:
    port = free_port()
    program = (
        "import os\nfrom test_sinks import *\n"
        f"sink = mqtt_sink({port})\nsink.start()\nsink.deliver(message())\nos._exit(1)"
    )
    with mosquitto(tmp_path, port, "allow_anonymous true"), listening(port, "harken/#") as listener:
        subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent, check=False)
        wait_for(lambda: listener.payloads("harken/plant/status") == ["online", "offline"])


@needs_mosquitto
def test_mqtt_over_tls_with_a_password(tmp_path: Path) -> None:
    if shutil.which("openssl") is None or shutil.which("mosquitto_passwd") is None:
        pytest.skip("openssl and mosquitto_passwd are needed")
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*request, *names], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["mosquitto_passwd", "-b", "-c", "users", "harken", "right"], cwd=tmp_path, check=True)
    for file in ("users", "key.pem"):
        (tmp_path / file).chmod(0o600)
    port, certificate = free_port(), str(tmp_path / "cert.pem")
    lines = [f"certfile {certificate}", f"keyfile {tmp_path}/key.pem", f"password_file {tmp_path}/users"]
    with mosquitto(tmp_path, port, "allow_anonymous false", *lines):
        options: dict[str, Any] = {"user": "harken", "tls": True, "ca_file": certificate}
        sink = mqtt_sink(port, password="right", **options)
        sink.start()
        sink.deliver(message())
        sink.close()
        for wrong, why in (
            ({"password": "wrong"}, "not authorized"),
            ({"password": "right", "ca_file": None}, "does not answer"),
        ):
            sink = mqtt_sink(port, patience_s=1.0, **{**options, **wrong})
            sink.start()
            with pytest.raises(NotDeliveredError, match=why):
                sink.deliver(message())
            sink.close()


def test_a_broker_that_comes_back_gets_the_message_and_the_states() -> None:
    port = free_port()
    sink = mqtt_sink(port, patience_s=0.5)
    sink.start()
    with pytest.raises(NotDeliveredError, match="does not answer"):
        sink.deliver(message(1))
    with amqtt_broker(port), listening(port, "harken/#") as listener:
        wait_for(lambda: _delivered(sink, message(1)))
        sink.deliver(message(2, state="acknowledged"))
        assert [json.loads(text)["id"] for text in listener.payloads("harken/plant/messages")] == ["id-1", "id-2"]
    with pytest.raises(NotDeliveredError):
        sink.deliver(message(3))
    with amqtt_broker(port):
        wait_for(lambda: _delivered(sink, message(3)))
        # This broker remembers nothing of before.
        with listening(port, "harken/#") as late:
            wait_for(lambda: late.payloads("harken/plant/pump/alarm"))
            assert json.loads(late.payloads("harken/plant/pump/alarm")[-1])["id"] == "id-3"
    sink.interrupt()
    sink.close()


def _delivered(sink: Sink, what: Message) -> bool:
    try:
        sink.deliver(what)
    except NotDeliveredError:
        return False
    return True


# ---- metrics, health ---------------------------------------------------------------------------------------


def fetched(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_and_health_over_http() -> None:
    metrics, well = Metrics(), [True]
    server = HealthServer(metrics, lambda: (well[0], {"sources": {}}), host="127.0.0.1", port=0)
    server.start()
    try:
        metrics.machine("pump", AlarmState("unacknowledged"), SensorState())
        metrics.machine("pump", AlarmState("acknowledged"), SensorState())
        url = f"http://127.0.0.1:{server.port}"
        code, text = fetched(f"{url}/metrics")
        assert code == 200
        assert 'harken_alarm_state{machine="pump",state="unacknowledged"} 0.0' in text
        assert 'harken_alarm_state{machine="pump",state="acknowledged"} 1.0' in text
        assert fetched(f"{url}/healthz") == (200, '{"sources": {}}\n')
        well[0] = False
        assert fetched(f"{url}/healthz")[0] == 503
        assert fetched(f"{url}/other")[0] == 404
        with pytest.raises(HarkenError, match="cannot be listened at"):
            HealthServer(metrics, lambda: (True, {}), host="127.0.0.1", port=server.port)
    finally:
        server.stop()
