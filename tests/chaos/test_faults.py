"""The faults' own tests: the same seed gives the same schedule, and a link does to bytes what it says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.chaos import faults
from tests.chaos.link import Link


def test_the_seed_decides() -> None:
    assert faults.plan(7, faults.ALL) == faults.plan(7, faults.ALL)
    assert faults.plan(7, faults.ALL) != faults.plan(8, faults.ALL)
    assert sorted(step.kind for step in faults.plan(7, faults.ALL)) == sorted(faults.ALL)


def test_every_kind_can_be_done() -> None:
    for kind in faults.ALL:
        assert faults.fault_of(kind)
    with pytest.raises(ValueError, match="no fault 'comet'"):
        faults.fault_of("comet")


@contextlib.asynccontextmanager
async def wire() -> AsyncIterator[tuple[Link, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A link to a server that says back what it is told, and a connection through it."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1000):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Link(lambda: [server.sockets[0].getsockname()]) as link:
        host, port = link.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        yield link, reader, writer
        writer.close()


async def said_back(reader: asyncio.StreamReader, patience: float = 5.0) -> bytes:
    async with asyncio.timeout(patience):
        return await reader.read(1000)


async def test_a_link_carries() -> None:
    async with wire() as (_, reader, writer):
        writer.write(b"hello")
        assert await said_back(reader) == b"hello"


async def test_what_a_cut_link_holds_back_arrives_when_it_heals() -> None:
    async with wire() as (link, reader, writer):
        link.cut()
        writer.write(b"one ")
        with pytest.raises(TimeoutError):
            await said_back(reader, 0.2)
        writer.write(b"two")
        link.heal()
        async with asyncio.timeout(5):
            assert await reader.readexactly(7) == b"one two"


async def test_whoever_connects_through_a_cut_link_waits() -> None:
    async with wire() as (link, _, _):
        link.cut()
        host, port = link.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"late")
        with pytest.raises(TimeoutError):
            await said_back(reader, 0.2)
        link.heal()
        assert await said_back(reader) == b"late"
        writer.close()


async def test_a_slow_link_keeps_the_order() -> None:
    async with wire() as (link, reader, writer):
        link.delay = 0.1
        for word in (b"a", b"b", b"c"):
            writer.write(word)
            await asyncio.sleep(0.02)
        link.delay = 0.0
        writer.write(b"d")
        async with asyncio.timeout(5):
            assert await reader.readexactly(4) == b"abcd"


async def test_a_broken_link_breaks_both_ends() -> None:
    async with wire() as (link, reader, _):
        link.reset()
        with contextlib.suppress(ConnectionResetError):
            assert await said_back(reader) == b""


async def test_a_link_to_nobody_refuses() -> None:
    async with Link(lambda: [("127.0.0.1", 1)]) as link:
        host, port = link.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(ConnectionResetError):
            assert await said_back(reader) == b""
        writer.close()
