"""Real Temporal servers for the tests: one tuned dev server and one time-skipping server, started on first use."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from stayline import ports
from stayline.names import SEARCH_ATTRIBUTES

SCRIPTS = Path(sysconfig.get_path("scripts"))

# As `stayline dev` tunes it: without these a timer takes a second and a task up to 50 ms to be handed out.
DEV_SERVER_FLAGS = (
    "--sqlite-pragma",
    "journal_mode=WAL",
    "--sqlite-pragma",
    "synchronous=NORMAL",
    "--dynamic-config-value",
    "history.transferProcessorMaxPollRPS=2000",
    "--dynamic-config-value",
    "history.timerProcessorMaxPollRPS=2000",
    "--dynamic-config-value",
    'history.timerProcessorMaxTimeShift="1ms"',
)


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
async def temporal_env(tmp_path_factory: object) -> AsyncIterator[WorkflowEnvironment]:
    """Temporal's dev server, file-backed and tuned, with Stayline's search attributes."""
    directory = tmp_path_factory.mktemp("temporal")  # type: ignore[attr-defined]
    async with await WorkflowEnvironment.start_local(
        data_converter=pydantic_data_converter,
        dev_server_existing_path=str(SCRIPTS / "temporal"),
        dev_server_database_filename=str(directory / "temporal.db"),
        dev_server_log_level="error",
        dev_server_extra_args=DEV_SERVER_FLAGS,
        dev_server_startup_timeout=timedelta(seconds=60),
        search_attributes=[SearchAttributeKey.for_keyword(name) for name in SEARCH_ATTRIBUTES],
    ) as environment:
        yield environment


@pytest_asyncio.fixture
async def client(temporal_env: WorkflowEnvironment) -> Client:
    """A client of the dev server, made in the test's own event loop."""
    return await Client.connect(
        temporal_env.client.service_client.config.target_host,
        namespace=temporal_env.client.namespace,
        data_converter=pydantic_data_converter,
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def time_skipping_env() -> AsyncIterator[WorkflowEnvironment]:
    """A server whose clock jumps to the next timer while a test awaits a workflow's result: one at a time."""
    async with await WorkflowEnvironment.start_time_skipping(
        data_converter=pydantic_data_converter,
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
