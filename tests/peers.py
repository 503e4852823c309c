"""Receivers of messages for tests: MQTT brokers and an HTTP server that remembers what it got."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(condition: Any, seconds: float = 60.0) -> Any:
    """The first true value of `condition()`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return value


class Receiver:
    """An HTTP server. requests: (headers, body) in order. answers: codes of the next ones; then 200."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                receiver.requests.append(({key.lower(): value for key, value in self.headers.items()}, body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]


@contextmanager
def receiver(port: int = 0) -> Iterator[Receiver]:
    """A running `Receiver`. port: 0: any that is free."""
    peer = Receiver(port)
    thread = threading.Thread(target=peer.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield peer
    finally:
        peer.server.shutdown()
        peer.server.server_close()
        thread.join()


@contextmanager
def amqtt_broker(port: int, passwords: Path | None = None) -> Iterator[None]:
    """A broker in Python, in a thread. passwords: a file of users; None: anyone may come."""
    from amqtt.broker import Broker

    auth: dict[str, Any] = {"allow-anonymous": passwords is None}
    if passwords is not None:
        auth["password-file"] = str(passwords)
    config = {"listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}, "sys_interval": 0, "auth": auth}
    config["plugins"] = {
        "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": passwords is None},
        **({"amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(passwords)}} if passwords else {}),
    }
    del config["auth"], config["sys_interval"]
    loop = asyncio.new_event_loop()
    ready, end = threading.Event(), asyncio.Event()

    async def serve() -> None:
        broker = Broker(config, loop=loop)
        await broker.start()
        ready.set()
        await end.wait()
        await broker.shutdown()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(60)
        loop.close()


MOSQUITTO = shutil.which("mosquitto") or next(
    (str(path) for path in [Path("/usr/sbin/mosquitto")] if path.is_file()), None
)


@contextmanager
def mosquitto(folder: Path, port: int, *lines: str) -> Iterator[None]:
    """The broker of Debian. lines: of its configuration, beside the listener."""
    assert MOSQUITTO is not None
    config = folder / "mosquitto.conf"
    config.write_text("\n".join([f"listener {port} 127.0.0.1", "user root", *lines]) + "\n")
    process = subprocess.Popen([MOSQUITTO, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port))
        yield
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    """Whether something listens at a port of this computer."""
    try:
        socket.create_connection(("127.0.0.1", port), 10).close()
    except OSError:
        return False
    return True


class Listener:
    """An MQTT client that remembers. received: (topic, payload, retained) in order."""

    def __init__(self, port: int, topic: str = "#", **login: Any) -> None:
        import paho.mqtt.client as mqtt

        self.received: list[tuple[str, str, bool]] = []
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        if login.get("user"):
            self.client.username_pw_set(login["user"], login["password"])
        if login.get("ca_file"):
            self.client.tls_set(ca_certs=login["ca_file"])
        subscribed = threading.Event()
        self.client.on_connect = lambda client, *others: client.subscribe(topic, qos=1)
        self.client.on_subscribe = lambda *others: subscribed.set()
        self.client.on_message = self._remember
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(60)

    def _remember(self, client: Any, data: Any, message: Any) -> None:
        self.received.append((message.topic, message.payload.decode(), bool(message.retain)))

    def payloads(self, topic: str) -> list[str]:
        return [payload for where, payload, _ in list(self.received) if where == topic]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def listening(port: int, topic: str = "#", **login: Any) -> Iterator[Listener]:
    """A connected `Listener`."""
    listener = Listener(port, topic, **login)
    try:
        yield listener
    finally:
        listener.close()
