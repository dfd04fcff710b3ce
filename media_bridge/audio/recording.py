"""Stereo recording of a call, written as it goes: caller left, agent right."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import struct
import threading
from io import FileIO
from pathlib import Path
from typing import Final

import numpy as np

from media_bridge.audio import mulaw

log = logging.getLogger(__name__)

BLOCK: Final = mulaw.SAMPLE_RATE  #: bytes of each side that are written at once: 1 s
BACKLOG: Final = 60  #: blocks that may wait for a slow disk
_FRAME: Final = 4  # bytes: two 16-bit samples
_HEADER: Final = 44
_LARGEST: Final = 0xFFFFFFFF - _HEADER  # a WAV file counts its bytes in 32 bits: 37 hours


class StereoRecorder:
    """An 8 kHz stereo WAV file of 16-bit PCM that can be played at any time, even after a kill.

    A thread of its own writes it, a second at a time, data before header: the file on disk is never more than
    about a second behind and always valid. If the file cannot be written, that is logged once, recording stops,
    and the call goes on.

    Args:
        path: a new file; its folder is made. An existing recording is never overwritten.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failed = False  #: the recording stopped before the call did
        self._caller = bytearray()
        self._agent = bytearray()
        self._blocks: queue.Queue[tuple[bytes, bytes] | None] = queue.Queue(BACKLOG)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"recorder {path.name}")
        self._thread.start()

    def write(self, caller_mulaw: bytes, agent_mulaw: bytes) -> None:
        """Add what both sides sent in the same stretch of time: μ-law of equal length. Never blocks.

        Raises:
            ValueError: the lengths differ.
        """
        if len(caller_mulaw) != len(agent_mulaw):
            raise ValueError(f"sides of unequal length: {len(caller_mulaw)} and {len(agent_mulaw)} bytes")
        if self._closed or self.failed:
            return
        self._caller += caller_mulaw
        self._agent += agent_mulaw
        if len(self._caller) >= BLOCK:
            self._hand_over()

    def close(self) -> None:
        """Hand the rest to the thread, which completes the file and ends. Never blocks; safe to call twice."""
        if self._closed:
            return
        self._hand_over()
        self._closed = True
        self._offer(None)

    async def aclose(self) -> None:
        """Close, and wait until the file is complete."""
        self.close()
        await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        if self._caller and not self.failed:
            self._offer((bytes(self._caller), bytes(self._agent)))
        self._caller.clear()
        self._agent.clear()

    def _offer(self, block: tuple[bytes, bytes] | None) -> None:
        try:
            self._blocks.put_nowait(block)
        except queue.Full:
            self._fail(f"the disk has been too slow for {BACKLOG} s")

    def _fail(self, reason: str) -> None:
        if not self.failed:
            self.failed = True
            log.error("recording %s stopped: %s", self.path, reason)

    # --- in the thread ---

    def _run(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "xb", buffering=0, opener=_private) as file:
                self._write_blocks(file)
        except OSError as error:
            self._fail(str(error))

    def _write_blocks(self, file: FileIO) -> None:
        length = 0
        _write_at(file, _header(length), 0)
        while (block := self._next_block()) is not None:
            caller, agent = (mulaw.decode(side) for side in block)
            frames = np.stack((caller, agent), axis=1).astype("<i2").tobytes()
            if length + len(frames) > _LARGEST:
                self._fail("it has reached the largest size of a WAV file")
                return
            _write_at(file, frames, _HEADER + length)
            length += len(frames)
            _write_at(file, _header(length), 0)

    def _next_block(self) -> tuple[bytes, bytes] | None:
        """The next block; None when the recording is over."""
        while True:
            try:
                return self._blocks.get(timeout=1.0)
            except queue.Empty:
                if self.failed or not threading.main_thread().is_alive():
                    return None  # the end could not be queued, or the process ends without having closed us


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_at(file: FileIO, data: bytes, offset: int) -> None:
    file.seek(offset)
    while data:
        data = data[file.write(data) :]


def _header(length: int) -> bytes:
    """RIFF header of `length` bytes of PCM data."""
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", _HEADER - 8 + length, b"WAVE", b"fmt ", 16, 1, 2, mulaw.SAMPLE_RATE),
        *(mulaw.SAMPLE_RATE * _FRAME, _FRAME, 16, b"data", length),
    )
