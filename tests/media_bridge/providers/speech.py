"""What the tests of the speech adapters share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from media_bridge.providers.base import SpeechChunk, SttEvent, SttStream, Utterance

FRAME = 160  #: bytes, 20 ms


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other tasks bring about."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the other side is a server, which has no event to wait for
            await asyncio.sleep(0.005)


async def talk(stream: SttStream, audio: bytes) -> None:
    """Send audio in 20 ms frames, as a phone line does, but as fast as it goes."""
    for begin in range(0, len(audio), FRAME):
        await stream.send(audio[begin : begin + FRAME])


async def hear(stream: SttStream, last: type[SttEvent]) -> list[SttEvent]:
    """Events up to and including the first of type `last`."""
    events: list[SttEvent] = []
    async with asyncio.timeout(10):
        async for event in stream:
            events.append(event)
            if isinstance(event, last):
                return events
    raise AssertionError(f"the stream ended without {last.__name__}: {events}")


async def say(utterance: Utterance, *clauses: str) -> list[SpeechChunk]:
    """Speak the clauses and collect everything."""
    for clause in clauses:
        await utterance.send(clause)
    await utterance.finish()
    return await collect(utterance)


async def listen(utterance: Utterance, heard: bytearray) -> None:
    """As `collect`, keeping the audio even if it ends with an error."""
    async with asyncio.timeout(10):
        async for chunk in utterance:
            heard += chunk.audio


async def collect(utterance: Utterance) -> list[SpeechChunk]:
    async with asyncio.timeout(10):
        return [chunk async for chunk in utterance]


def audio_of(chunks: list[SpeechChunk]) -> bytes:
    return b"".join(chunk.audio for chunk in chunks)


def counts(chunks: list[SpeechChunk]) -> list[int]:
    return [chunk.chars for chunk in chunks if chunk.chars is not None]


def own_tasks() -> set[asyncio.Task[object]]:
    """The tasks that adapters start; each must be gone after `aclose`."""
    names = ("deepgram-", "elevenlabs-", "openai-")
    return {task for task in asyncio.all_tasks() if task.get_name().startswith(names)}
