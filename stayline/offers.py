"""Who answers to a name: what is built in, what code registered, what installed packages offer by entry points.

The offer with the highest priority gets the name; built-in ones have 0. Two that are equally good are an error,
never a matter of import order.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stayline.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Offer(Generic[T]):
    """Somebody's answer to a name."""

    value: T
    source: str  #: who offers it, for error messages
    priority: int = 0


def best(name: str, offers: Iterable[Offer[T]]) -> T | None:
    """The offer with the highest priority; None when there is none.

    Raises:
        ConfigError: two are equally good.
    """
    ranked = sorted(offers, key=lambda offer: -offer.priority)
    if len(ranked) > 1 and ranked[0].priority == ranked[1].priority:
        sources = " and ".join(sorted({ranked[0].source, ranked[1].source}))
        raise ConfigError(
            f"{name} is offered by {sources} with the same priority ({ranked[0].priority}).",
            fix="Give one of them a higher priority, or remove it.",
        )
    return ranked[0].value if ranked else None


class Plugins(Generic[T]):
    """What installed packages offer by one group of entry points. A package is imported when its name is asked for.

    Args:
        what: for error messages, e.g. "Provider".
        offer: makes an offer of what an entry point leads to; raises ConfigError when it is something else.
    """

    def __init__(self, group: str, what: str, offer: Callable[[str, Any, str], Offer[T]]) -> None:
        self._group = group
        self._what = what
        self._offer = offer
        self._loaded: dict[str, Offer[T]] = {}

    @property
    def names(self) -> set[str]:
        return {point.name for point in _points(self._group)}

    def of(self, name: str) -> list[Offer[T]]:
        """The offers for a name.

        Raises:
            ConfigError: a package that offers it cannot be loaded.
        """
        return [self._load(point) for point in _points(self._group) if point.name == name]

    def _load(self, point: EntryPoint) -> Offer[T]:
        source = f"package {point.dist.name}" if point.dist else f"entry point {point.value}"
        key = f"{source} {point.name}={point.value}"
        if key not in self._loaded:
            try:
                thing = point.load()
            except Exception as error:
                raise ConfigError(
                    f"{self._what} {point.name!r} of {source} cannot be loaded: {type(error).__name__}: {error}.",
                    fix="Mend or remove that package.",
                ) from error
            self._loaded[key] = self._offer(point.name, thing, source)
        return self._loaded[key]


@functools.cache
def _points(group: str) -> tuple[EntryPoint, ...]:
    """Read once: it looks into every installed package."""
    from importlib.metadata import entry_points

    return tuple(entry_points(group=group))


def forget_installed() -> None:
    """Look anew into the installed packages; for programs that install one while they run, and for tests."""
    _points.cache_clear()


def check_name(name: str, what: str, *taken: str) -> None:
    """
    Raises:
        ConfigError: this is no name, or one of those that are taken.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) or name in taken:
        raise ConfigError(f"{name!r} is no name for a {what}.", fix="Use lower-case letters, digits, - and _.")


def caller(depth: int) -> str:
    """The module of the function so many calls above the one that asks."""
    frame = inspect.currentframe()
    for _ in range(depth + 1):
        frame = frame.f_back if frame else None
    return str(frame.f_globals.get("__name__", "?")) if frame else "?"
