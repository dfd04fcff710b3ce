"""The demo's agent: an order line that runs without a key, an account or a network.

It looks an order up in a warehouse that fails twice before it answers, and changes the day of a delivery. Both are
activities of the call's workflow: see their attempts in Temporal's UI.

    stayline serve --agent examples/demo/agent.py:agent
    stayline worker --agent examples/demo/agent.py:agent
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from stayline import Agent, ToolContext, ToolError, tool

HERE = Path(__file__).resolve().parent

ORDERS = {
    "74291": {"item": "coffee grinder", "shipped": "Tuesday", "arrives": "Friday"},
    "30518": {"item": "reading lamp", "shipped": "Monday", "arrives": "Wednesday"},
}

WAREHOUSE_SECONDS = 0.3  #: how long the simulated systems take to answer
CARRIER_SECONDS = 1.0


def deliveries_file() -> Path:
    """The carrier's book: one JSON line per changed delivery, so that effects can be counted."""
    return Path(os.environ.get("DEMO_DELIVERIES", Path(tempfile.gettempdir()) / "stayline-demo-deliveries.jsonl"))


@tool(retries=4, attempt_timeout=10, total_timeout=60, backoff=0.5, filler="Let me ask the warehouse.")
async def lookup_order(number: str, context: ToolContext) -> dict[str, Any]:
    """Look up an order by its five-digit number."""
    await asyncio.sleep(WAREHOUSE_SECONDS)
    if context.attempt <= 2:
        raise ToolError("The warehouse answered 503 Service Unavailable.", retryable=True)
    order = ORDERS.get(number)
    return {"found": order is not None, **(order or {})}


@tool(retries=3, attempt_timeout=10, total_timeout=60, filler="I'm changing that for you.")
async def reschedule_delivery(number: str, day: str, context: ToolContext) -> dict[str, Any]:
    """Move the delivery of an order to another day."""
    await asyncio.sleep(CARRIER_SECONDS)
    book = deliveries_file()
    known = book.read_text(encoding="utf-8").splitlines() if book.exists() else []
    # A second request with the same key is the same change: an attempt may be lost after it took effect.
    if not any(json.loads(line)["key"] == context.idempotency_key for line in known):
        change = {"key": context.idempotency_key, "number": number, "day": day, "attempt": context.attempt}
        with book.open("a", encoding="utf-8") as file:
            file.write(json.dumps(change) + "\n")
    return {"number": number, "day": day}


agent = Agent(
    name="orders",
    greeting="Hello, this is the order line of Northwind Parcels. How can I help you?",
    stt="offline/moonshine",
    llm="offline/scripted",
    tts="offline/hibari",
    voice="heart",
    options={"llm": {"scenario": str(HERE / "scenario.yaml")}},
    tools=[lookup_order, reschedule_delivery],
    transfers={"support": "+15550100"},
    interruption="immediate",
)
