"""Webhooks sent by hand, signed as the carrier does, or otherwise."""

from __future__ import annotations

from xml.etree import ElementTree

import aiohttp

from media_bridge.carriers import signature
from stayline import names
from tests.whole_call.house import TOKEN


class Webhook:
    """Sends forms to the bridge, signed as the carrier does or not."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self._http = http

    async def post(self, path: str, form: dict[str, str], token: str | None = TOKEN) -> tuple[int, str]:
        url = self.url + path
        headers = {} if token is None else {signature.HEADER: signature.sign_webhook(token, url, form)}
        async with self._http.post(url, data=form, headers=headers) as answer:
            return answer.status, await answer.text()

    async def stream_token(self, call_id: str, **form: str) -> str:
        """Have a call admitted; the token that its stream would carry."""
        status, twiml = await self.post(
            names.INBOUND_PATH, {"CallSid": call_id, "To": "+1555", "From": "+1556", **form}
        )
        assert status == 200
        parameter = ElementTree.fromstring(twiml).find("Connect/Stream/Parameter")
        assert parameter is not None
        return parameter.attrib["value"]
