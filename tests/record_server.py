"""A record API with files on 127.0.0.1 that misbehaves when told to, and keeps a log."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Trick:
    """How one request for a file goes wrong.

    status: answered instead, with `headers`. drop_after: bytes of the body after which the connection ends, with
    `reset` by force. spoil: some bytes are others. no_range: the Range header is not seen. wrong_range: answered with
    the range after the one asked for. pause: seconds before each 16 KiB. together: the body waits (5 s at most) until
    so many are being sent.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: int | None = None
    reset: bool = False
    spoil: bool = False
    no_range: bool = False
    wrong_range: bool = False
    pause: float = 0.0
    together: int = 0


@dataclass
class Published:
    data: bytes
    size: int
    md5: str


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients are killed here
            super().handle_error(request, client_address)


class RecordServer:
    """Use as a context manager; `api` is the address of its records.

    tricks: file (or record id) -> what happens to its next requests, one each. always: the same, to every one.
    entries: records have the newer form. log: (path, Range header or "") of every request.
    """

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Published]] = {}
        self.tricks: dict[str, list[Trick]] = {}
        self.always: dict[str, Trick] = {}
        self.entries = False
        self.log: list[tuple[str, str]] = []
        self.sending = 0
        self.most_sending = 0
        self.changed = threading.Condition()
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.api = f"{self.address}/api/records"

    def __enter__(self) -> RecordServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def publish(self, record: str, name: str, data: bytes, *, md5: str | None = None, size: int | None = None) -> None:
        """md5, size: what the record says of the file (default: the truth)."""
        published = Published(data, len(data) if size is None else size, md5 or hashlib.md5(data).hexdigest())
        self.records.setdefault(record, {})[name] = published

    def requests(self, name: str) -> list[str]:
        """The Range header of every request for a file so far, "" where it had none."""
        return [header for path, header in self.log if path.endswith(f"/files/{name}/content")]

    def asked(self, record: str) -> int:
        """How often a record was asked for."""
        return sum(path == f"/api/records/{record}" for path, _ in self.log)

    def trick(self, name: str) -> Trick:
        queue = self.tricks.get(name)
        return queue.pop(0) if queue else self.always.get(name, Trick())

    def describe(self, record: str) -> dict[str, Any]:
        rows: dict[str, dict[str, Any]] = {}
        for name, file in self.records[record].items():
            url = f"{self.api}/{record}/files/{name}"
            links = {"self": url, "content": f"{url}/content"} if self.entries else {"self": f"{url}/content"}
            rows[name] = {"key": name, "size": file.size, "checksum": f"md5:{file.md5}", "links": links}
        return {"id": int(record), "files": {"entries": rows} if self.entries else list(rows.values())}


def _handler(server: RecordServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            server.log.append((self.path, self.headers.get("Range", "")))
            try:
                if match := re.fullmatch(r"/api/records/(\d+)", self.path):
                    self._record(match[1])
                elif match := re.fullmatch(r"/api/records/(\d+)/files/([^/]+)/content", self.path):
                    self._file(match[1], match[2])
                else:
                    self._short(404)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client was killed

        def _short(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _record(self, record: str) -> None:
            trick = server.trick(record)
            if trick.status or record not in server.records:
                self._short(trick.status or 404, trick.headers, b"<html>sign in</html>")
            else:
                self._short(200, {"Content-Type": "application/json"}, json.dumps(server.describe(record)).encode())

        def _file(self, record: str, name: str) -> None:
            file, trick = server.records[record][name], server.trick(name)
            if trick.status:
                self._short(trick.status, trick.headers)
                return
            data, start = file.data, 0
            if trick.spoil:
                middle = len(data) // 2
                data = data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 8]) + data[middle + 8 :]
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if asked and not trick.no_range:
                start = int(asked[1]) + (1 if trick.wrong_range else 0)
                if start >= len(data):
                    self._short(416, {"Content-Range": f"bytes */{len(data)}"})
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            with server.changed:
                server.sending += 1
                server.most_sending = max(server.most_sending, server.sending)
                server.changed.notify_all()
                if trick.together:
                    server.changed.wait_for(lambda: server.most_sending >= trick.together, timeout=5)
            try:
                self._send(data[start:], trick)
            finally:
                with server.changed:
                    server.sending -= 1

        def _send(self, body: bytes, trick: Trick) -> None:
            dropped = trick.drop_after is not None
            for offset in range(0, len(body) if trick.drop_after is None else trick.drop_after, 1 << 14):
                time.sleep(trick.pause)
                self.wfile.write(body[: trick.drop_after][offset : offset + (1 << 14)])
            if dropped:
                if trick.reset:
                    time.sleep(0.05)  # a reset may overtake what was sent before it
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True

    return Handler
