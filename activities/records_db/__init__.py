"""The call records database: SQLite by default, PostgreSQL by setting. Read past Temporal's retention."""

from __future__ import annotations

from activities.records_db.engine import RecordsUnavailable
from activities.records_db.migrate import upgrade
from activities.records_db.queries import CallStore, CallSummary

__all__ = ["CallStore", "CallSummary", "RecordsUnavailable", "upgrade"]
