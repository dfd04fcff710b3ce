"""How the command's process ends: after all that wants to end in order, with the code that it has earned."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys, threading, time
from stayline import startup

def late():
    time.sleep(0.2)
    print("a thread's words")

with startup.last_of_all():
    atexit.register(print, "goodbye")
    threading.Thread(target=late).start()
    {end}
"""


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('why')", 1, "why"),
        ("raise ValueError('odd')", 1, "ValueError: odd"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
    ],
)
def test_the_end_of_a_command(end: str, code: int, said: str) -> None:
    program = [sys.executable, "-c", PROGRAM.format(end=end)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert done.stdout == "a thread's words\ngoodbye\n"
    assert said in done.stderr
