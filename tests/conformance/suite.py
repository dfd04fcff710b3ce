"""Subjects, checks, and how they meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

import pytest

from media_bridge.providers.base import ProviderConfig
from stayline.catalog import Role

B = TypeVar("B")
P = TypeVar("P")


@dataclasses.dataclass(frozen=True, slots=True)
class Subject(Generic[B]):
    """A provider that is put to the suite.

    Attributes:
        name: "provider/model", with options as in "openai/whisper-1 (language=en, prompt=Hi)".
        bench: opens what the checks work with.
        exempt: names of checks that do not apply, and why; shown in the table.
    """

    name: str
    bench: Callable[[], AbstractAsyncContextManager[B]]
    exempt: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def provider(self) -> str:
        return self.name.partition("/")[0]

    @property
    def model(self) -> str:
        return self.name.partition("/")[2].partition(" ")[0]

    @property
    def options(self) -> dict[str, str]:
        _, _, options = self.name.rstrip(")").partition(" (")
        return dict(option.split("=", 1) for option in options.split(", ") if option)


class Suite(Generic[B]):
    """The checks of a role, in the order of the table.

    Attributes:
        title: of the table, and what its subjects are.
        live: names of the checks that the vendor itself can be put to; the others need a fake's script or its
            misbehaviour.
    """

    def __init__(self, role: Role, title: str, subjects: Sequence[Subject[B]]) -> None:
        self.role = role
        self.title = title
        self.subjects = subjects
        self.checks: dict[str, Callable[[B], Awaitable[None]]] = {}
        self.live: set[str] = set()

    def check(
        self, *, live: bool = False
    ) -> Callable[[Callable[[B], Awaitable[None]]], Callable[[B], Awaitable[None]]]:
        """Decorator: one more check; its docstring is its line in the table."""

        def add(function: Callable[[B], Awaitable[None]]) -> Callable[[B], Awaitable[None]]:
            assert function.__doc__
            self.checks[function.__name__] = function
            if live:
                self.live.add(function.__name__)
            return function

        return add

    def parametrize(self) -> pytest.MarkDecorator:
        """Every subject with every check that applies to it."""
        return pytest.mark.parametrize(
            ("subject", "check"),
            [
                pytest.param(subject, check, id=f"{subject.name}-{name}")
                for subject in self.subjects
                for name, check in self.checks.items()
                if name not in subject.exempt
            ],
        )

    def table(self) -> str:
        """Check × provider in Markdown, with a note for whatever does not apply."""
        notes: list[str] = []

        def cell(subject: Subject[Any], name: str) -> str:
            why = subject.exempt.get(name)
            if why is None:
                return "✓"
            if why not in notes:
                notes.append(why)
            return f"– {notes.index(why) + 1}"

        lines = [
            f"| {self.title} | " + " | ".join(f"`{subject.name}`" for subject in self.subjects) + " |",
            "|---" * (len(self.subjects) + 1) + "|",
        ]
        for name, function in self.checks.items():
            said = (function.__doc__ or "").strip().rstrip(".")
            lines.append(f"| {said} | " + " | ".join(cell(s, name) for s in self.subjects) + " |")
        if notes:
            lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
        return "\n".join(lines)


async def run(subject: Subject[Any], check: Callable[[Any], Awaitable[None]]) -> None:
    """Put one subject to one check."""
    async with subject.bench() as bench:
        await check(bench)


def maker(
    adapter: Callable[[ProviderConfig], P],
    provider: str,
    model: str,
    *,
    key: str = "",
    base_url: str = "",
    voice: str = "",
    **options: Any,
) -> Callable[..., P]:
    """Makes the adapter of a bench: with these options and a check's own, and perhaps with another key."""

    def make(key: str = key, **more: Any) -> P:
        config = ProviderConfig(
            provider, model, api_key=key, base_url=base_url, voice=voice, options={**options, **more}
        )
        return adapter(config)

    return make
