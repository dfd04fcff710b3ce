"""A call that we place: how far the carrier has come with it, and when it has rung for long enough. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, Field

from stayline.messages import Dial
from stayline.timeline import MachineOrPerson

RING_MARGIN: Final = timedelta(seconds=15)
"""The carrier ends a call that rings for too long by itself, and says so; later than this its word was lost."""
QUEUED_AT_MOST: Final = timedelta(minutes=10)
"""Twilio dials one call a second and number unless it was asked for more; the others wait in its queue."""


class Outbound(BaseModel):
    """What only a call that we place has."""

    dial: Dial
    asked_at: datetime | None = None  #: the carrier is asked to dial; in the record before it is
    placed_at: datetime | None = None  #: it has taken the request
    ringing_at: datetime | None = None  #: it dials; moved once, when the other side rings
    rings: bool = False
    answered_at: datetime | None = None
    answered_by: MachineOrPerson | None = None
    strays: list[str] = Field(default_factory=list)  #: further legs that the carrier dialled; to be hung up
    extended: bool = False  #: the carrier's time limit makes room for a transfer

    @property
    def rings_until(self) -> datetime | None:
        """When nobody will answer any more; None: it was answered, or is not dialled yet."""
        if self.asked_at is None or self.answered_at is not None:
            return None
        if self.ringing_at is not None:
            since = self.ringing_at
        else:
            since = (self.placed_at or self.asked_at) + QUEUED_AT_MOST
        return since + timedelta(seconds=self.dial.ring_timeout) + RING_MARGIN

    def dialled(self, now: datetime, *, rings: bool) -> None:
        """The carrier has taken the call from its queue, or the other side rings; the order is not certain."""
        if self.ringing_at is None or (rings and not self.rings):
            self.ringing_at = now
        self.rings = self.rings or rings

    def answered(self, now: datetime) -> None:
        self.answered_at = self.answered_at or now
