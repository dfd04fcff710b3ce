"""Webhooks as Twilio sends them: signed forms, one more try when the first fails, then error 11200."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiohttp
from yarl import URL

from media_bridge.carriers import signature
from stayline.lab.verbs import BAD_CONTENT_TYPE, FETCH_FAILURE, CarrierFault

TIMEOUT = 15.0
"""Seconds that Twilio waits for an answer to a voice webhook."""
AGAIN_AFTER = 0.5
"""Seconds to the second try. Twilio does not say; one process of several that share an address may be dying."""

_TWIML_TYPES = ("text/xml", "application/xml", "text/html")


class Webhooks:
    """Sends webhooks to the bridge.

    Args:
        bridge_url: origin where the bridge listens.
        public_url: origin that the bridge believes it has (behind a proxy); empty: the same. Requests are
            signed for the public address and sent to the bridge's, which is what a proxy does.
    """

    def __init__(
        self, session: aiohttp.ClientSession, auth_token: str, bridge_url: str, public_url: str = ""
    ) -> None:
        self.public_url = (public_url or bridge_url).rstrip("/")
        self._bridge_url = bridge_url.rstrip("/")
        self._session = session
        self._auth_token = auth_token

    def reachable(self, url: str) -> str:
        """Where a public URL (http or websocket) is really found."""
        public, real = urlsplit(self.public_url), urlsplit(self._bridge_url)
        parts = urlsplit(url)
        if public.netloc == real.netloc or parts.netloc != public.netloc:
            return url
        websocket = "wss" if real.scheme == "https" else "ws"
        scheme = websocket if parts.scheme in ("ws", "wss") else real.scheme
        return urlunsplit(parts._replace(scheme=scheme, netloc=real.netloc))

    def sign_stream(self, url: str) -> dict[str, str]:
        return {signature.HEADER: signature.sign_stream(self._auth_token, url)}

    async def twiml(self, method: str, url: str, form: Mapping[str, str]) -> str:
        """Ask for TwiML, twice if need be.

        Raises:
            CarrierFault: 11200 when both tries fail, 12300 when the answer is not XML by its type.
        """
        token = secrets.token_hex(16)
        try:
            kind, body = await self._send(method, url, form, token)
        except CarrierFault:
            await asyncio.sleep(AGAIN_AFTER)
            kind, body = await self._send(method, url, form, token)
        if body.strip() and kind not in _TWIML_TYPES:
            raise CarrierFault(BAD_CONTENT_TYPE, f"Invalid Content-Type {kind!r} from {urlsplit(url).path}")
        return body if body.strip() else "<Response/>"

    async def notify(self, url: str, form: Mapping[str, str]) -> None:
        """Post a status callback.

        Raises:
            CarrierFault: 11200; Twilio does not try again.
        """
        await self._send("POST", url, form, secrets.token_hex(16))

    async def _send(self, method: str, url: str, form: Mapping[str, str], token: str) -> tuple[str, str]:
        headers = {"User-Agent": "TwilioProxy/1.1", "I-Twilio-Idempotency-Token": token}
        if method == "GET":
            url += ("&" if urlsplit(url).query else "?") + urlencode(form)
        signed = form if method == "POST" else {}
        headers[signature.HEADER] = signature.sign_webhook(self._auth_token, url, signed)
        path = urlsplit(url).path
        try:
            async with self._session.request(
                method,
                URL(self.reachable(url), encoded=True),  # as signed, not rewritten
                data=form if method == "POST" else None,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            ) as response:
                body = await response.text()
                if response.status // 100 != 2:
                    raise CarrierFault(FETCH_FAILURE, f"{path} answered {response.status}")
                return response.content_type, body
        except (TimeoutError, aiohttp.ClientError, UnicodeDecodeError) as error:
            reason = str(error) or type(error).__name__
            raise CarrierFault(FETCH_FAILURE, f"{path} could not be fetched: {reason}") from error
