"""Speech engines in this process: one copy of a model and a few threads, shared by all calls.

Models and threads belong to the process as the modules do: they are made on first use and end with it. Every
agent's provider, however many there are, shares them.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Concatenate, Generic, ParamSpec, TypeVar

from media_bridge.providers.base import ProviderConfig
from stayline.errors import ConfigError

Model = TypeVar("Model")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


def check_engine(config: ProviderConfig, name: str) -> None:
    """Refuse what the engine `name` is not.

    Raises:
        ConfigError: another model, or a language other than English.
    """
    who = f"{config.provider}/{config.model}"
    if config.model != name:
        raise ConfigError(f"There is no engine {who!r}.", fix=f'Use "offline/{name}".')
    if not config.language.lower().startswith("en"):
        raise ConfigError(
            f"{who} speaks English only, not {config.language!r}.",
            fix='Use language="en", or a provider of that language.',
        )


class Engine(Generic[Model]):
    """A model that is loaded once, and the threads that run it. Nothing of it runs on the event loop.

    Args:
        name: what its threads are called.
        load: makes the model; called once, in a thread.
    """

    def __init__(self, name: str, load: Callable[[], Model]) -> None:
        self.threads = max(1, min(os.cpu_count() or 1, 8))
        self._load = load
        self._model: Model | None = None
        self._loading = threading.Lock()
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix=name)
        self._jobs = 0  # waiting or running
        self._counting = threading.Lock()  # jobs begin on the loop and end in threads

    @property
    def busy(self) -> bool:
        """A further job would have to wait."""
        return self._jobs >= self.threads

    async def run(
        self,
        job: Callable[Concatenate[Model, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Do `job(model, ...)` in a thread, loading the model first if need be.

        A cancelled job that has not begun never will; one that has begun runs to its end, unheard.
        """
        with self._counting:
            self._jobs += 1
        future = self._pool.submit(lambda: job(self._loaded(), *args, **kwargs))
        future.add_done_callback(self._done)
        return await asyncio.wrap_future(future)

    def _done(self, _: Future[Result]) -> None:
        with self._counting:
            self._jobs -= 1

    def _loaded(self) -> Model:
        with self._loading:
            if self._model is None:
                self._model = self._load()
            return self._model
