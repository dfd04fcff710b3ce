"""The clock that jumps: nothing else about a process may change."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.chaos.clock import clock

TURNS = """
import resource, threading
def work():
    for _ in range(2_000_000): pass
threads = [threading.Thread(target=work) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw)
"""


def test_threads_take_turns_as_ever(tmp_path: Path) -> None:
    jumping = clock(tmp_path)
    if jumping is None:
        warnings.warn("libfaketime is not installed: its clock was not looked at", stacklevel=1)
        pytest.skip("libfaketime is not installed")
    told = subprocess.run(
        [sys.executable, "-c", TURNS],
        env={**os.environ, **jumping.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(told.stdout) < 5000, "each of them waits for the interpreter without waiting"
