"""Child processes that end with their parent, however the parent ends.

`tethered(command)` puts this file, run as a script, before the command. It asks Linux for a signal at the
parent's death (prctl(2), PR_SET_PDEATHSIG; kept across execve) and then becomes the command. Setting that
between fork and exec instead (`preexec_fn`) is not safe in a process with threads. Elsewhere it stays as the
command's parent and watches its own.

The signal comes when the parent *thread* that started the child ends: start children from the main thread.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def tethered(command: list[str]) -> list[str]:
    """The command line that runs `command` (its program as a path) until it ends or this process does."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), *command]


def _become(parent: int, command: list[str]) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:  # else it died before the line above, and nobody would tell
        os.execv(command[0], command)


def _watch(parent: int, command: list[str]) -> int:
    child = subprocess.Popen(command, close_fds=False)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while child.poll() is None:
        if os.getppid() != parent:
            child.terminate()
        time.sleep(0.2)
    return child.returncode


if __name__ == "__main__":
    parent_pid, argv = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        _become(parent_pid, argv)
    else:
        sys.exit(_watch(parent_pid, argv))
