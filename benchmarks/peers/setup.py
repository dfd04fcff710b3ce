"""Sets up the environments of the peers: each has packages that do not go together with ours.

python -m benchmarks.peers.setup pipecat livekit
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv

from benchmarks.servers import HERE, PEERS

NAMES = ("pipecat", "livekit")


def set_up(name: str) -> None:
    """Make `.peers/<name>` and install what `peers/<name>.txt` pins.

    Raises:
        subprocess.CalledProcessError: pip failed.
    """
    place = PEERS / name
    venv.create(place, with_pip=True)
    requirements = HERE / "peers" / f"{name}.txt"
    subprocess.run([str(place / "bin/python"), "-m", "pip", "install", "-q", "-r", str(requirements)], check=True)
    print(f"{name}: {place}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+", choices=NAMES)
    for name in parser.parse_args().names:
        set_up(name)
    sys.exit(0)
