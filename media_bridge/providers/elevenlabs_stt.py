"""ElevenLabs speech to text: Scribe live, for models named `…realtime` or `…live`, and Scribe by the utterance.

The live session is in `elevenlabs_scribe` and its neighbours, the requests are in `elevenlabs_file_stt`.
"""

from __future__ import annotations

import re
from typing import Final

from websockets.asyncio.client import ClientConnection

from media_bridge.providers import elevenlabs_file_stt, elevenlabs_scribe
from media_bridge.providers.base import ProviderConfig, SttProfile, SttStream
from media_bridge.providers.elevenlabs_client import ElevenLabsClient, origin, require_key
from media_bridge.providers.elevenlabs_scribe_stream import ScribeStream
from media_bridge.providers.elevenlabs_scribe_turns import LocalTurns, Turns, VendorTurns
from media_bridge.providers.options import read_options
from media_bridge.providers.utterances import require_vad, warm_vad
from media_bridge.providers.vendor_socket import open_socket, warm_origin

LIVE: Final = re.compile(r"(^|_)(realtime|live)(_|$)")
"""`scribe_v2_realtime`, `scribe_v3_live`; the others (`scribe_v2`, `scribe_v3`) take files only."""


class ElevenLabsStt:
    """Adapter of ElevenLabs' recognisers."""

    def __init__(self, config: ProviderConfig) -> None:
        require_key(config)
        self._config = config
        self._base_url = origin(config)
        self._client = ElevenLabsClient(config)
        self._live: elevenlabs_scribe.ScribeOptions | None = None
        if LIVE.search(config.model):
            self._live = read_options(elevenlabs_scribe.ScribeOptions, config, "stt")
            elevenlabs_scribe.check(self._live)
            self._own_turns = self._live.commit_strategy == "manual"
        else:
            self._file = read_options(elevenlabs_file_stt.ScribeFileOptions, config, "stt")
            self._own_turns = True
        self.profile = SttProfile(native_mulaw=self._live is not None)
        if self._own_turns:
            require_vad(config.provider)

    async def warm(self) -> None:
        await warm_origin(self._base_url)
        if self._own_turns:
            await warm_vad()

    async def connect(self, *, call_id: str) -> SttStream:
        """Open one call's ear. A live one has its session when this returns.

        Raises:
            ProviderError: ElevenLabs refused or could not be reached; of files it is told with the first one.
        """
        if self._own_turns:
            await warm_vad()
        if self._live is None:
            request = elevenlabs_file_stt.request(self._config, self._file)
            return elevenlabs_file_stt.FileStream(self._client, request, self._file)
        stream = ScribeStream(self._open, _turns(self._live), call_id, self._config.api_key)
        await stream.connect()
        return stream

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _open(self, timeout: float | None) -> ClientConnection:
        assert self._live is not None
        return await open_socket(
            "elevenlabs",
            self._base_url,
            elevenlabs_scribe.PATH,
            query=elevenlabs_scribe.query(self._config, self._live),
            headers={"xi-api-key": self._config.api_key},
            secret=self._config.api_key,
            timeout=timeout,
        )


def _turns(options: elevenlabs_scribe.ScribeOptions) -> Turns:
    if options.commit_strategy == "manual":
        return LocalTurns(options.timed, options.rule())
    return VendorTurns(options.timed, round(options.vad_silence_threshold_secs * 1000))
