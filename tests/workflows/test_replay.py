"""Today's workflow code over recorded histories: a call in progress must survive the deploy of this code."""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from stayline.telemetry import setup, temporal_tracing
from workflows.bridge import BridgeWorkflow
from workflows.call import CallWorkflow

HISTORIES = sorted((Path(__file__).parents[1] / "histories").glob("*.json"))


def test_there_are_histories() -> None:
    assert len(HISTORIES) >= 6


@pytest.mark.parametrize("exported", [True, False], ids=["traced", "untraced"])
@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_replay(path: Path, exported: bool) -> None:
    """Also by a worker that exports spans where the one before did not, and the other way round."""
    setup.ensure_provider()
    replayer = Replayer(
        workflows=[CallWorkflow, BridgeWorkflow],
        data_converter=pydantic_data_converter,
        plugins=[temporal_tracing.plugin(exported=exported)],
    )
    await replayer.replay_workflow(WorkflowHistory.from_json(path.stem, path.read_text()))
