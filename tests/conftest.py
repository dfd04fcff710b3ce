"""Real Temporal servers for the tests: one tuned dev server and one time-skipping server, started on first use."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from stayline import ports
from stayline.dev_server import DevServer
from stayline.names import SEARCH_ATTRIBUTES
from stayline.settings import Settings

SCRIPTS = Path(sysconfig.get_path("scripts"))

REASON = 40
"""Lines of the report on a first try that failed."""
WHOLE_SYSTEMS = ("chaos", "deploys", "soak", "benchmarks")
"""Tests with a Temporal server, workers and bridges of their own, and a dozen calls at once."""
REAL_TIME = ("whole_call", "gateway", "commands", "docs", *WHOLE_SYSTEMS)
os.environ.setdefault("STAYLINE_MAX_LOOP_LAG_MS", "0")  # where tests share a machine, every event loop is late


def pytest_configure(config: pytest.Config) -> None:
    """Give each process of the tests its own part of the ports: a chosen one is bound only seconds later."""
    if worker := getattr(config, "workerinput", None):
        number, count = int(worker["workerid"].removeprefix("gw")), int(worker["workercount"])
        ports.choice = ports.choice[number * len(ports.choice) // count : (number + 1) * len(ports.choice) // count]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole calls go on in real time, with audio, on machines that others use too: one is tried a second time.

    The summary tells why, and whoever sees it looks into it. Whole systems come first: they take longest.
    """
    items.sort(key=lambda item: not set(WHOLE_SYSTEMS) & set(item.path.parts))
    for item in items:
        if set(REAL_TIME) & set(item.path.parts):
            item.add_marker(pytest.mark.flaky(reruns=1))


class FewSystemsAtOnce(LoadFileScheduling):
    """Each file goes to one process; those with whole systems to two of them, so that no more run at once."""

    def _split_scope(self, nodeid: str) -> str:
        folders = set(nodeid.split("/"))
        if "chaos" in folders:
            return "chaos"
        return "whole systems" if set(WHOLE_SYSTEMS) & folders else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FewSystemsAtOnce:
    config.option.loadscopereorder = False
    return FewSystemsAtOnce(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why a test was tried twice: the end of what its first try said."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"first try of {report.nodeid}", sep="-")
        terminalreporter.line("\n".join(report.longreprtext.splitlines()[-REASON:]))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevServer]:
    """Temporal's dev server, as `stayline dev` runs it."""
    folder = tmp_path_factory.mktemp("temporal")
    async with DevServer(Settings(data_dir=folder), port=0, ui=False) as server:
        yield server


@pytest_asyncio.fixture
async def client(temporal_server: DevServer) -> Client:
    """A client of the dev server, made in the test's own event loop."""
    return await Client.connect(temporal_server.address, data_converter=pydantic_data_converter)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def time_skipping_env() -> AsyncIterator[WorkflowEnvironment]:
    """A server whose clock jumps to the next timer while a test awaits a workflow's result: one at a time."""
    async with await WorkflowEnvironment.start_time_skipping(
        data_converter=pydantic_data_converter,
        port=ports.free_port(),
        test_server_existing_path=str(SCRIPTS / "temporal-test-server"),
    ) as environment:
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace=environment.client.namespace,
                search_attributes=dict.fromkeys(SEARCH_ATTRIBUTES, keyword),
            )
        )
        yield environment
