"""Alembic's entry: runs in the connection and the transaction that `activities.records_db.migrate` opened."""

from __future__ import annotations

from alembic import context

from activities.records_db.models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
context.run_migrations()
