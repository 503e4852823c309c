"""Who may use the page, and what a browser may do with it."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Collection
from urllib.parse import urlsplit

#: no script, style or picture but our own files; nobody frames the page or takes its forms elsewhere
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
#: characters of a token, at least
SHORTEST_TOKEN = 16
COOKIE = "harken_session"


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this computer alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def session_of(token: str) -> str:
    """What the browser keeps in place of the token."""
    return hmac.new(token.encode(), b"harken page session", hashlib.sha256).hexdigest()


def permits(token: str, authorization: str | None, cookie: str | None) -> bool:
    """Whether a request shows the token, as `Bearer` or by the cookie of a log-in; compared in constant time."""
    scheme, _, given = (authorization or "").partition(" ")
    by_header = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
    by_cookie = hmac.compare_digest((cookie or "").encode(), session_of(token).encode())
    return by_header or by_cookie


def known_host(header: str | None, names: Collection[str]) -> bool:
    """Whether the Host header names this computer as it is reached: another site's name may lead here (DNS
    rebinding). names: further ones; `*` for all."""
    host = urlsplit(f"//{header or ''}").hostname or ""
    return is_loopback(host) or "*" in names or host in names


def same_site(headers: dict[str, str]) -> bool:
    """Whether what changes something was sent by the page itself, or by no browser."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


class RequestRate:
    """Requests per client: `burst` at once, and one more every 1 / `per_second` s. Bounded in memory."""

    def __init__(self, per_second: float, burst: int, most_clients: int = 4096) -> None:
        self.per_second, self.burst, self._most = per_second, burst, most_clients
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: str, now: float | None = None) -> float:
        """Seconds until the client may ask again; 0: it may now, and has."""
        now = time.monotonic() if now is None else now
        left, at = self._left.pop(client, (float(self.burst), now))
        left = min(self.burst, left + (now - at) * self.per_second)
        allowed = left >= 1.0
        self._left[client] = (left - 1.0 if allowed else left, now)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1.0 - left) / self.per_second
