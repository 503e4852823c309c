"""`/metrics` and `/healthz` over HTTP."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harken.core.errors import HarkenError
from harken.core.extras import need
from harken.core.json_text import json_text
from harken.service.sinks.metrics import Metrics

log = logging.getLogger(__name__)


class HealthServer:
    """Answers GET in threads of its own.

    health: (whether all is well, JSON-able details), asked at each `/healthz`, which answers 200 or 503.
    Raises HarkenError where the port is taken or not allowed.
    """

    def __init__(
        self, metrics: Metrics, health: Callable[[], tuple[bool, dict[str, Any]]], *, host: str, port: int
    ) -> None:
        exposition = need("prometheus_client.exposition", "metrics")

        class Handler(BaseHTTPRequestHandler):
            timeout = 10
            server_version = "harken"
            sys_version = ""

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    encode, content_type = exposition.choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, content_type, encode(metrics.registry))
                elif path == "/healthz":
                    well, details = health()
                    self._answer(200 if well else 503, "application/json", json_text(details).encode() + b"\n")
                else:
                    self._answer(404, "text/plain; charset=utf-8", b"There are /metrics and /healthz.\n")

            def _answer(self, code: int, content_type: str, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                log.debug("http %s: " + format, self.address_string(), *args)

        try:
            self._server = _Server((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise HarkenError(
                f"the address {host}:{port} cannot be listened at ({getattr(error, 'strerror', None) or error})",
                next_step="Give another one under http, or end what listens there",
            ) from None
        self.host, self.port = host, int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="http", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Requests that hang must not keep the monitor from ending.
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("http %s", client_address, exc_info=True)
