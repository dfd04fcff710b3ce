"""Commands as children: what they answer, and in which environment."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from pathlib import Path

from stayline.tether import tethered


def surroundings(**values: str) -> dict[str, str]:
    """This process's environment without what it says to Stayline, its carrier and Temporal, and with `values`."""
    outside = ("STAYLINE_", "TEMPORAL_", "TWILIO_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
    return {**kept, "COLUMNS": "200", **values}


@dataclasses.dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


async def stayline(*arguments: str, folder: Path, **environment: str) -> Finished:
    """Run one command to its end."""
    process = await asyncio.create_subprocess_exec(
        *tethered([sys.executable, "-m", "stayline", *arguments]),
        cwd=folder,
        env=surroundings(**environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())
