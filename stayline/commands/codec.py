"""`stayline codec`: lets Temporal's own UI and command line read encrypted payloads, and encrypt what they send.

Temporal's protocol for codec servers (docs.temporal.io/codec-server): `POST /decode` and `POST /encode` take and
answer `{"payloads": […]}`, protobuf's `Payloads` as JSON. The UI asks from the reader's browser, so the origin of a
request decides: it must be exactly the UI's. The command line sends none.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Self

from aiohttp import web
from google.protobuf import json_format
from rich.console import Console
from temporalio.api.common.v1 import Payload, Payloads

from stayline.encryption import SETTING, Encryption
from stayline.errors import ConfigError
from stayline.settings import Settings

LOCAL_UI: Final = ("http://127.0.0.1:8233", "http://localhost:8233")
"""Where the UI of a dev server on this machine is, and of docker-compose.yml. An origin is what was typed."""

# What Temporal's UI sends; the last two only if it passes its user's token on.
_HEADERS: Final = "content-type, x-namespace, authorization, authorization-extras"
_LARGEST: Final = 64 * 1024 * 1024  #: bytes of one request; a whole history has 50 MiB at most
_LOCAL: Final = ("127.0.0.1", "localhost", "::1", "[::1]")

Codec = Callable[[Sequence[Payload]], Awaitable[list[Payload]]]


class CodecServer:
    """Use as an async context manager.

        async with CodecServer(settings) as server:
            print(server.url)

    Args:
        port: None: that of the settings; 0: any.

    Attributes:
        origins: of the web pages that may ask; may be changed at any time.

    Raises:
        ConfigError: encryption is off, or the network could read payloads without a token.
    """

    def __init__(self, settings: Settings, *, port: int | None = None) -> None:
        host, own = settings.codec_listen
        self._host, self._port = host, own if port is None else port
        self._token = settings.codec_token.get_secret_value()
        if not self._token and self._host not in _LOCAL:
            raise ConfigError(
                f"Whoever reaches {settings.codec_addr} could read every call.",
                fix="Set STAYLINE_CODEC_TOKEN, or listen on 127.0.0.1 (STAYLINE_CODEC_ADDR).",
            )
        self.encryption = Encryption.of(settings.encryption_keys)
        if not self.encryption.names:
            raise ConfigError("Payloads are not encrypted: there is nothing to decode.", fix=f"Set {SETTING}.")
        self.origins = {settings.codec_origin} if settings.codec_origin else set(LOCAL_UI)
        app = web.Application(client_max_size=_LARGEST)
        for path, codec in (("/encode", self.encryption.encode), ("/decode", self.encryption.decode)):
            app.router.add_post(path, self._answering(codec))
            app.router.add_options(path, self._preflight)
        self._runner = web.AppRunner(app, access_log=None)

    @property
    def url(self) -> str:
        """What `--codec-endpoint` and `--ui-codec-endpoint` want. Known when it has started."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host.strip("[]"), self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(
                f"The codec server cannot listen on {self._host}:{self._port}: {error.strerror}.",
                fix="Set STAYLINE_CODEC_ADDR.",
            ) from error
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    async def _preflight(self, request: web.Request) -> web.Response:
        return web.Response(status=204, headers=self._cors(request))

    def _answering(self, codec: Codec) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            headers = self._cors(request)
            if not self._may(request):
                return web.Response(status=401, text="Wrong or no bearer token.", headers=headers)
            if request.content_type != "application/json":  # a form needs no preflight
                return web.Response(status=415, text="Send application/json.", headers=headers)
            try:
                payloads = json_format.Parse(await request.read(), Payloads())
                done = Payloads(payloads=await codec(payloads.payloads))
            except (json_format.ParseError, UnicodeDecodeError):
                text = 'Send {"payloads": [{"metadata": {…}, "data": "…"}]}, values in base64.'
                return web.Response(status=400, text=text, headers=headers)
            except ConfigError as error:
                return web.Response(status=400, text=str(error), headers=headers)
            body = json_format.MessageToJson(done, indent=None)
            return web.Response(text=body, content_type="application/json", headers=headers)

        return answer

    def _cors(self, request: web.Request) -> dict[str, str]:
        """
        Raises:
            HTTPForbidden: a web page asks that is not the UI.
        """
        origin = request.headers.get("Origin")
        if origin is None:
            return {}
        if origin not in self.origins:
            raise web.HTTPForbidden(text="This web page may not ask. STAYLINE_CODEC_ORIGIN names the one that may.")
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": _HEADERS,
            "Access-Control-Allow-Credentials": "true",
            "Vary": "Origin",
        }

    def _may(self, request: web.Request) -> bool:
        if not self._token:
            return True
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token.encode())


async def run_codec(settings: Settings) -> None:
    """Serve until Ctrl-C.

    Raises:
        ConfigError
    """
    console = Console(stderr=True, highlight=False)
    async with CodecServer(settings) as server:
        console.print(f"Codec server  {server.url}")
        console.print(f"Keys          {', '.join(server.encryption.names)}")
        console.print(f"For the UI    {', '.join(sorted(server.origins))}")
        console.print(
            f"Try           temporal workflow show --codec-endpoint {server.url} --workflow-id call-…",
            soft_wrap=True,
        )
        await asyncio.Event().wait()
