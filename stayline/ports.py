"""TCP ports for servers of this machine whose address must be known before they listen."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Iterator

from stayline.errors import ConfigError

choice = range(15_000, 31_000)
"""Below the range from which systems take the ports of outgoing connections (32768 and up on Linux, 49152 on
others): a port from there may be gone before its server, or its server's next process, listens."""
_TRIES = 50
_steps = itertools.count(random.randrange(len(choice)))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now, and that no passing connection takes later.

    Raises:
        ConfigError: there is none.
    """
    for port in candidates():
        if is_free("127.0.0.1", port):
            return port
    raise ConfigError(
        f"No port of 127.0.0.1 is free (tried: {_TRIES} of {choice.start} to {choice.stop - 1}).",
        fix="End what holds them: `ss -tlnp` tells.",
    )


def candidates() -> Iterator[int]:
    """Ports to try: one after the other from where this process was, so that none is given twice in a row."""
    for step in itertools.islice(_steps, _TRIES):
        yield choice[step % len(choice)]


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
