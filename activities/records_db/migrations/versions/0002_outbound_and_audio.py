"""The carrier's own id of calls that we place; seconds and audio of a call in smaller units."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NUMBERS = ("session_duration_ms", "audio_bytes_received", "audio_bytes_sent")


def upgrade() -> None:
    op.add_column("calls", sa.Column("carrier_call_id", sa.Text(), nullable=False, server_default=""))
    for name in _NUMBERS:
        op.add_column("calls", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE calls SET session_duration_ms = CAST(round(duration * 1000) AS BIGINT)")


def downgrade() -> None:
    for name in (*_NUMBERS, "carrier_call_id"):
        op.drop_column("calls", name)
