"""Messages as JSON to an address, signed as Standard Webhooks says (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from typing import Any

from harken.core.errors import HarkenError
from harken.core.extras import need
from harken.core.json_text import json_text
from harken.core.version import __version__
from harken.service.records import Message
from harken.service.sinks.base import NotDeliveredError, RefusedError, Sink

#: answers about the message; all others that are no success are about the address, and may end
FINAL = frozenset({400, 413, 415, 422})
_SECRET_PREFIX = "whsec_"


class WebhookSink(Sink):
    """POSTs each message to `url`.

    secret: signs it; `whsec_` and base64, or any text. Headers: `webhook-id`, the message's id; `webhook-timestamp`,
    seconds since 1970 of this attempt; `webhook-signature`, `v1,` and the base64 of the HMAC-SHA256 of
    `ID.TIMESTAMP.BODY`. headers: more of them. timeout_s: for the answer. verify: check TLS certificates, by
    the system's authorities or those of a file.
    Answers of 400, 413, 415 and 422 refuse a message for good; redirects are not followed.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        secret: str | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 10.0,
        verify: bool | str = True,
    ) -> None:
        super().__init__(name)
        self.url = url
        self._key = None if secret is None else signing_key(secret)
        self._headers = {"User-Agent": f"harken/{__version__}", **(headers or {})}
        self._timeout_s = timeout_s
        self._verify = verify
        self._session: Any = None

    def start(self) -> None:
        self._session = need("requests", "webhooks").Session()

    def deliver(self, message: Message) -> None:
        requests = need("requests", "webhooks")
        body = json_text(message.as_json()).encode()
        try:
            answer = self._session.post(
                self.url,
                data=body,
                headers={**self._headers, "Content-Type": "application/json", **self._signed(message.id, body)},
                timeout=self._timeout_s,
                allow_redirects=False,
                verify=self._verify,
                stream=True,
            )
        except requests.RequestException as error:
            raise NotDeliveredError(
                f"{without_secrets(self.url)} does not answer ({_short(error)})", next_step="Check address and network"
            ) from None
        with answer:
            code = answer.status_code
            after = answer.headers.get("Retry-After", "")
        if 200 <= code < 300:
            return
        cause = f"{without_secrets(self.url)} answers {code} {answer.reason or ''}".rstrip()
        if code in FINAL:
            raise RefusedError(cause)
        raise NotDeliveredError(
            cause, next_step="Check the receiver", after_s=float(after) if after.isdigit() and len(after) < 7 else 0.0
        )

    def _signed(self, identity: str, body: bytes) -> dict[str, str]:
        stamp = str(int(time.time()))
        headers = {"webhook-id": identity, "webhook-timestamp": stamp}
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, identity, stamp, body)
        return headers

    def close(self) -> None:
        if self._session is not None:
            self._session.close()


def signing_key(secret: str) -> bytes:
    """The bytes of a secret: of base64 after `whsec_`, else of the text. HarkenError for what is not base64."""
    if not secret.startswith(_SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise HarkenError("the secret of a webhook is not base64 after whsec_", next_step="Copy it again") from None


def signature(key: bytes, identity: str, stamp: str, body: bytes) -> str:
    """Value of `webhook-signature`."""
    digest = hmac.new(key, f"{identity}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def without_secrets(url: str) -> str:
    """Scheme and host of an address, for messages: user, path and query may hold secrets."""
    scheme, slashes, remainder = url.partition("://")
    host = remainder.partition("/")[0].partition("?")[0].rpartition("@")[2]
    return f"{scheme}{slashes}{host}"


def _short(error: Exception) -> str:
    """The innermost cause, without addresses."""
    while error.__context__ is not None and isinstance(error.__context__, Exception):
        error = error.__context__
    return " ".join(str(getattr(error, "strerror", None) or type(error).__name__).split())
