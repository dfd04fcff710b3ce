"""Pipecat as its users run it on a telephone line: FastAPI websocket, Twilio serializer, 8 kHz in and out.

Runs in an environment of its own (`python -m benchmarks.peers.setup pipecat`), with Pipecat's public API only.

    .peers/pipecat/bin/python benchmarks/peers/pipecat_server.py --port 8000 --turns bare

`--turns`: `bare`: the turn ends with the final transcript, there is no voice activity detector; `silero`: Silero's,
and no further wait; `defaults`: what Pipecat does when nothing is said, Silero and Smart Turn v3. With a detector
the recogniser settles its words on `Finalize`, which Pipecat sends; that is the quicker way for it (a final
transcript that comes before the detector's stop would wait for a timer of 350 ms). Logs are at WARNING: DEBUG, the
default, is slower.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, Literal, get_args

import uvicorn
from fastapi import FastAPI, WebSocket
from loguru import logger

logger.remove()
logger.add(sys.stderr, level="WARNING")

from pipecat.audio.vad.silero import SileroVADAnalyzer  # noqa: E402
from pipecat.pipeline.pipeline import Pipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineParams, PipelineWorker  # noqa: E402
from pipecat.processors.aggregators.llm_context import LLMContext  # noqa: E402
from pipecat.processors.aggregators.llm_response_universal import (  # noqa: E402
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.runner.utils import parse_telephony_websocket  # noqa: E402
from pipecat.serializers.twilio import TwilioFrameSerializer  # noqa: E402
from pipecat.services.deepgram.stt import DeepgramSTTService  # noqa: E402
from pipecat.services.elevenlabs.tts import ElevenLabsTTSService  # noqa: E402
from pipecat.services.openai.llm import OpenAILLMService  # noqa: E402
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService  # noqa: E402
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport  # noqa: E402
from pipecat.turns.user_start import TranscriptionUserTurnStartStrategy  # noqa: E402
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy  # noqa: E402
from pipecat.turns.user_turn_strategies import UserTurnStrategies  # noqa: E402
from pipecat.workers.runner import WorkerRunner  # noqa: E402

Turns = Literal["bare", "silero", "defaults"]

DEEPGRAM, OPENAI, ELEVENLABS = (
    os.environ[f"{name}_BASE_URL"].replace("http://", "") for name in ("DEEPGRAM", "OPENAI", "ELEVENLABS")
)


def user_params(turns: Turns) -> LLMUserAggregatorParams:
    if turns == "defaults":
        return LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer())
    at_once = [SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=0)]
    if turns == "silero":
        strategies = UserTurnStrategies(stop=at_once)
        return LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer(), user_turn_strategies=strategies)
    strategies = UserTurnStrategies(start=[TranscriptionUserTurnStartStrategy()], stop=at_once)
    return LLMUserAggregatorParams(user_turn_strategies=strategies)


def text_services(turns: Turns) -> tuple[Any, Any, Any]:
    stt = DeepgramSTTService(
        api_key="none",
        base_url=f"ws://{DEEPGRAM}",
        settings=DeepgramSTTService.Settings(model="nova-3", **({} if turns == "bare" else {"endpointing": False})),
    )
    llm = OpenAILLMService(
        api_key="none", base_url=f"http://{OPENAI}/v1", settings=OpenAILLMService.Settings(model="gpt-6-luna")
    )
    tts = ElevenLabsTTSService(
        api_key="none",
        url=f"ws://{ELEVENLABS}",
        settings=ElevenLabsTTSService.Settings(model="eleven_flash_v2_5", voice="21m00Tcm4TlvDq8ikWAM"),
    )
    return stt, llm, tts


def application(turns: Turns, realtime: bool) -> FastAPI:
    app = FastAPI()

    @app.websocket("/ws")
    async def media(websocket: WebSocket) -> None:
        await websocket.accept()
        _, call = await parse_telephony_websocket(websocket)
        transport = FastAPIWebsocketTransport(
            websocket=websocket,
            params=FastAPIWebsocketParams(
                audio_in_enabled=True,
                audio_out_enabled=True,
                serializer=TwilioFrameSerializer(
                    stream_sid=call["stream_id"],
                    call_sid=call["call_id"],
                    params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
                ),
            ),
        )
        context = LLMContext([{"role": "system", "content": "Be brief."}])
        if realtime:
            # the call's number goes into the address: resampled sound does not carry it to the vendor
            number = websocket.query_params["call"]
            llm = OpenAIRealtimeLLMService(api_key="none", base_url=f"ws://{OPENAI}/v1/realtime/{number}")
            pair = LLMContextAggregatorPair(context)
            processors = [transport.input(), pair.user(), llm, transport.output(), pair.assistant()]
        else:
            pair = LLMContextAggregatorPair(context, user_params=user_params(turns))
            stt, chat, tts = text_services(turns)
            processors = [transport.input(), stt, pair.user(), chat, tts, transport.output(), pair.assistant()]
        worker = PipelineWorker(
            Pipeline(processors),
            params=PipelineParams(audio_in_sample_rate=8000, audio_out_sample_rate=8000),
        )

        @transport.event_handler("on_client_disconnected")
        async def gone(transport: Any, client: Any) -> None:
            await worker.cancel()

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await runner.run()

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--realtime", action="store_true")
    parser.add_argument("--turns", choices=get_args(Turns), default="bare")
    given = parser.parse_args()
    server = application(given.turns, given.realtime)
    uvicorn.run(server, host="127.0.0.1", port=given.port, log_level="warning")
