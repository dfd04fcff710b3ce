"""Who takes a call that is placed through the carrier's REST interface, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from stayline.lab.line import Caller, Listener
from stayline.timeline import MachineOrPerson


@dataclasses.dataclass(frozen=True, slots=True)
class Callee:
    """How a number takes a call.

    Attributes:
        status: `no-answer` lets it ring for as long as the carrier was told to.
        queue_seconds: before the carrier dials.
        ring_seconds: before it is answered, or found busy or unreachable.
        caller: makes who speaks and hears once it is answered.
        answered_by: what machine detection finds, where it was asked for.
        detection_seconds: from the answer to that.
    """

    status: Literal["answered", "busy", "no-answer", "failed"] = "answered"
    queue_seconds: float = 0.0
    ring_seconds: float = 0.3
    caller: Callable[[], Caller] = Listener
    answered_by: MachineOrPerson = "human"
    detection_seconds: float = 0.5
