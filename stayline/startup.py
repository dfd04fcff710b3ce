"""A process that starts, and one that ends.

Modules make some hundred thousand objects that live for ever. The collector would look through them again and again
while they come (a fifth of the time of an import), and through all of them at once in mid-call, for 0.1 s and more.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from threading import Thread


def begin() -> None:
    """Collect nothing for now. The `stayline` command calls it first of all."""
    gc.disable()


def over() -> None:
    """What was made until now stays, and is never looked at again; from now on collect as usual."""
    gc.freeze()
    gc.enable()


def beside(module: str) -> None:
    """Import a module that will be needed soon in a thread, while this one imports something else.

    Of use where an import does more than run Python: aiohttp reads the system's certificates, which takes 60 ms and
    leaves the interpreter to others. It must share no packages with what is imported meanwhile; whoever imports it
    later waits for it, and sees its error if it has one.
    """

    def load() -> None:
        with contextlib.suppress(Exception):
            importlib.import_module(module)

    Thread(target=load, name=f"import {module}", daemon=True).start()


@contextlib.contextmanager
def last_of_all() -> Iterator[None]:
    """When the process ends with what is done inside, it leaves as soon as everybody has said goodbye.

    The threads of Temporal's client live on while Python takes itself apart, and one that reaches for it then takes
    the process down: with code -6, after all was done.
    """
    code = 1

    def leave() -> None:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)

    atexit.register(leave)  # first, so that it is called last
    try:
        yield
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except KeyboardInterrupt:
        code = 130
        raise
