"""What code may run a job."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Jobs of older runs name no code, so nobody may run them: cancelled, they make room for a new submit."""
    op.add_column("jobs", sa.Column("code", sa.String(), nullable=False, server_default=""))
    op.execute(
        "UPDATE jobs SET state = 'cancelled', lease_until = NULL"
        " WHERE state IN ('waiting', 'ready', 'queued', 'running')"
    )
    op.execute("UPDATE runs SET state = 'cancelled', finished_at = created_at WHERE state = 'active'")
