"""Messages to an MQTT broker: state that is retained, birth and last will, discovery by Home Assistant."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harken.core.extras import need
from harken.core.json_text import json_text
from harken.core.version import __version__
from harken.service.records import Message
from harken.service.sinks.base import NotDeliveredError, RefusedError, Sink
from harken.service.sinks.home_assistant import STATUS_TOPIC, discovery

#: largest payload of MQTT 3.1.1, section 2.2.3
_LARGEST = 268_435_455


@dataclass(frozen=True)
class BrokerAddress:
    """Where a broker is and how it is spoken to.

    tls: encrypted; ca_file: authorities in place of the system's; certificate_file, key_file: of this client.
    """

    host: str
    port: int = 1883
    user: str | None = None
    password: str | None = None
    tls: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None


class MqttSink(Sink):
    """Publishes with QoS 1; a message is delivered when the broker has acknowledged it.

    Topics, below `PREFIX/MONITOR`: `status`, retained, `online` or, by the last will, `offline`; `messages`, every
    message; `MACHINE/alarm` and `MACHINE/sensor`, retained, the last message of a machine and kind; `source` and
    `service`, retained, the last of these. Payloads: JSON, as `Message.as_json`. What is retained is published again at
    each connection, from `last_messages`, for brokers that forget it.

    monitor: name in topics. machines: those of the monitor, announced to Home Assistant below `discovery_prefix`; None:
    not announced. patience_s: how long a delivery waits for the connection, and for the acknowledgement.
    """

    def __init__(
        self,
        name: str,
        broker: BrokerAddress,
        *,
        monitor: str,
        machines: Iterable[str] = (),
        prefix: str = "harken",
        discovery_prefix: str | None = "homeassistant",
        keep_alive_s: int = 30,
        patience_s: float = 10.0,
    ) -> None:
        super().__init__(name)
        self.broker = broker
        self._base = f"{prefix}/{monitor}"
        self._monitor = monitor
        self._machines = tuple(machines)
        self._discovery_prefix = discovery_prefix
        self._keep_alive_s = keep_alive_s
        self._patience_s = patience_s
        self._client: Any = None
        self._connected = threading.Event()
        self._stopping = threading.Event()
        self._problem = "does not answer"
        #: what was published of the message under way, so that another attempt waits for it and sends no second one
        self._under_way: tuple[str, list[Any]] = ("", [])
        self._retained: dict[str, str] = {}

    # ---- connection --------------------------------------------------------------------------------------

    def start(self) -> None:
        mqtt = need("paho.mqtt.client", "MQTT sinks")
        enums = need("paho.mqtt.enums", "MQTT sinks")
        client = mqtt.Client(enums.CallbackAPIVersion.VERSION2, client_id=f"harken-{self._monitor}-{self.name}")
        client.will_set(f"{self._base}/status", "offline", qos=1, retain=True)
        broker = self.broker
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            client.tls_set(ca_certs=broker.ca_file, certfile=broker.certificate_file, keyfile=broker.key_file)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.reconnect_delay_set(1, 60)
        client.connect_async(broker.host, broker.port, self._keep_alive_s)
        client.loop_start()
        self._client = client

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._problem = f"refuses the connection ({str(reason).lower()})"
            return
        client.publish(f"{self._base}/status", "online", qos=1, retain=True)
        if self._discovery_prefix is not None:
            client.subscribe(STATUS_TOPIC.format(prefix=self._discovery_prefix), qos=1)
        self._announce(client)
        # A broker that lost its memory learns the states anew, those of machines that are no longer here excepted.
        stored = {
            self._state_topic(message): json_text(message.as_json())
            for message in self.last_messages()
            if not message.machine or message.machine in self._machines
        }
        for topic, payload in (stored | self._retained).items():
            client.publish(topic, payload, qos=1, retain=True)
        self._connected.set()

    def _on_connect_fail(self, client: Any, data: Any) -> None:
        self._problem = "does not answer"

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._connected.clear()
        if reason.is_failure and "refuses" not in self._problem:
            self._problem = f"has ended the connection ({str(reason).lower()})"

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        # Home Assistant has started again, and forgotten what it knew.
        if message.payload == b"online":
            self._announce(client)

    def _announce(self, client: Any) -> None:
        if self._discovery_prefix is None:
            return
        for machine in self._machines:
            for topic, payload in discovery(self._discovery_prefix, self._base, self._monitor, machine, __version__):
                client.publish(topic, json_text(payload), qos=1, retain=True)

    # ---- messages ----------------------------------------------------------------------------------------

    def deliver(self, message: Message) -> None:
        if not self._connected.wait(self._patience_s) or self._stopping.is_set():
            raise NotDeliveredError(
                f"the broker {self.broker.host}:{self.broker.port} {self._problem}",
                next_step="Check its address, user, password and TLS",
            )
        self._problem = "does not answer"
        identity, sent = self._under_way
        if identity != message.id:
            payload = json_text(message.as_json())
            if len(payload) > _LARGEST:
                raise RefusedError("the message is longer than MQTT allows")
            state_topic = self._state_topic(message)
            self._retained[state_topic] = payload
            sent = [
                self._client.publish(f"{self._base}/messages", payload, qos=1),
                self._client.publish(state_topic, payload, qos=1, retain=True),
            ]
            self._under_way = message.id, sent
        end = time.monotonic() + self._patience_s
        try:
            while not all(publication.is_published() for publication in sent):
                if time.monotonic() > end or self._stopping.is_set():
                    raise self._unacknowledged()
                time.sleep(0.005)
        except RuntimeError:
            # The connection broke just before it was published.
            self._under_way = ("", [])
            raise self._unacknowledged() from None
        self._under_way = ("", [])

    def _unacknowledged(self) -> NotDeliveredError:
        return NotDeliveredError(
            f"the broker {self.broker.host}:{self.broker.port} has not acknowledged the message",
            next_step="Check the broker and the network",
        )

    def _state_topic(self, message: Message) -> str:
        return f"{self._base}/{message.machine}/{message.kind}" if message.machine else f"{self._base}/{message.kind}"

    def interrupt(self) -> None:
        self._stopping.set()
        self._connected.set()

    def close(self) -> None:
        client = self._client
        if client is None:
            return
        if client.is_connected():
            # A last will is for clients that end without a word.
            gone = client.publish(f"{self._base}/status", "offline", qos=1, retain=True)
            gone.wait_for_publish(0.5)
        client.disconnect()
        client.loop_stop()
