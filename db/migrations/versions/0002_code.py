"""What code may run a job."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Jobs of older runs name no code: nobody runs them, and submitting again finds what they made."""
    op.add_column("jobs", sa.Column("code", sa.String(), nullable=False, server_default=""))
