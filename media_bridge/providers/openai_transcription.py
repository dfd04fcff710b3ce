"""OpenAI's live transcription session: a websocket per call, 8 kHz μ-law as it comes.

How a session begins is here, what becomes of it in `openai_transcription_stream`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from media_bridge.providers.base import ProviderConfig, SttProfile
from media_bridge.providers.openai_client import request_id, versioned_origin
from media_bridge.providers.openai_local_turns import LocalTurns
from media_bridge.providers.openai_stt_options import OpenAISttOptions, session_update
from media_bridge.providers.openai_transcription_stream import AnyTurns, TranscriptionStream, refusal
from media_bridge.providers.openai_turns import ServerTurns
from media_bridge.providers.utterances import warm_vad
from media_bridge.providers.vendor_socket import lost, open_socket, parsed, warm_origin
from stayline.errors import ProviderError


class LiveTranscription:
    """See `SttProvider`. The options are checked, `api` and `turn_detection` are set."""

    def __init__(self, config: ProviderConfig, options: OpenAISttOptions) -> None:
        self.profile = SttProfile(native_mulaw=True)
        self._config = config
        self._options = options
        self._origin = versioned_origin(config)
        self._configure = json.dumps(session_update(config, options))

    async def warm(self) -> None:
        await self._warm_vad()
        await warm_origin(self._origin)

    async def connect(self, *, call_id: str) -> TranscriptionStream:
        """Open one call's ear; returns when OpenAI has accepted the configuration.

        Raises:
            ProviderError: OpenAI refused or could not be reached.
        """
        await self._warm_vad()
        numbers = itertools.count(1)

        async def open_() -> ClientConnection:
            return await self._open(request_id(call_id, "stt", next(numbers)))

        return TranscriptionStream(self._config, await open_(), open_, self._turns(), self._options.final_timeout)

    async def aclose(self) -> None:
        """Nothing is shared between calls."""

    def _turns(self) -> AnyTurns:
        options = self._options
        if options.turn_detection == "local":
            return LocalTurns(options.rule())
        if options.turn_detection == "server_vad":
            return ServerTurns(options.prefix_ms, options.silence_ms)
        return ServerTurns(None, None)

    async def _warm_vad(self) -> None:
        if self._options.turn_detection == "local":
            await warm_vad()

    async def _open(self, headers: Mapping[str, str]) -> ClientConnection:
        key, timeout = self._config.api_key, self._options.connect_timeout
        socket: ClientConnection | None = None
        try:
            async with asyncio.timeout(timeout):
                socket = await open_socket(
                    "openai",
                    self._origin,
                    "/realtime",
                    query=[("intent", "transcription")],
                    headers={"Authorization": f"Bearer {key}", **headers},
                    secret=key,
                    timeout=timeout,
                )
                await socket.send(self._configure)
                await self._accepted(socket)
        except BaseException as error:
            if socket is not None:  # also when cancelled: nobody will close what we opened
                socket.transport.abort()
            if isinstance(error, ConnectionClosed):
                raise lost("openai", error) from None
            if isinstance(error, TimeoutError):
                raise ProviderError("openai", f"no session within {timeout:g} s.", retryable=True) from None
            raise
        return socket

    async def _accepted(self, socket: ClientConnection) -> None:
        while True:
            message = parsed(await socket.recv())
            if message.get("type") == "session.updated":
                return
            if message.get("type") == "error":
                raise refusal(self._config, message.get("error"))
