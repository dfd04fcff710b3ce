"""Stereo recording of a call, written as it goes: caller left, agent right."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import struct
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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


_writer: Final = ThreadPoolExecutor(1, thread_name_prefix="recordings")
"""Writes all recordings of the process: threads of their own would take turns with the audio loop more often."""


class StereoRecorder:
    """An 8 kHz stereo WAV file of 16-bit PCM that can be played at any time, even after a kill.

    It is written in another thread, a second at a time, data before header: the file on disk is never more than
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
        self._given = self._written = 0  #: blocks; one counter for each thread
        self._closed = False
        self._file: FileIO | None = None
        self._length = 0  #: bytes of sound in the file
        self._last: Future[None] = _writer.submit(self._guarded, self._open)

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
        """Hand the rest to the thread, which completes the file. Never blocks; safe to call twice."""
        if self._closed:
            return
        self._hand_over()
        self._closed = True
        self._last = _writer.submit(self._close)

    async def aclose(self) -> None:
        """Close, and wait until the file is complete."""
        self.close()
        await asyncio.wrap_future(self._last)

    def _hand_over(self) -> None:
        if self._caller and not self.failed:
            if self._given - self._written >= BACKLOG:
                self._fail(f"the disk has been too slow for {BACKLOG} s")
            else:
                self._given += 1
                self._last = _writer.submit(self._guarded, self._add, bytes(self._caller), bytes(self._agent))
        self._caller.clear()
        self._agent.clear()

    def _fail(self, reason: str) -> None:
        if not self.failed:
            self.failed = True
            log.error("recording %s stopped: %s", self.path, reason)

    # --- in the thread ---

    def _guarded(self, work: Callable[..., None], *args: bytes) -> None:
        if self.failed:
            return
        try:
            work(*args)
        except OSError as error:
            self._fail(str(error))

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "xb", buffering=0, opener=_private)  # noqa: SIM115
        _write_at(self._file, _header(0), 0)

    def _add(self, *block: bytes) -> None:
        caller, agent = (mulaw.decode(side) for side in block)
        frames = np.stack((caller, agent), axis=1).astype("<i2").tobytes()
        if self._length + len(frames) > _LARGEST:
            self._fail("it has reached the largest size of a WAV file")
            return
        assert self._file is not None
        _write_at(self._file, frames, _HEADER + self._length)
        self._length += len(frames)
        _write_at(self._file, _header(self._length), 0)
        self._written += 1

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # of a file that could be written until now
                self._file.close()


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
