"""A token per claim, fair shares and limits of runs, and indices that do not grow with the table."""

import sqlalchemy as sa
from alembic import op

# 0002 to 0006 were those of databases before the schema began anew, which are refused
revision = "0007"
down_revision = "0001"

READY, QUEUED, RUNNING = (sa.text(f"state = '{state}'") for state in ("ready", "queued", "running"))


def upgrade() -> None:
    """Add the columns and replace the indices."""
    op.add_column("runs", sa.Column("priority", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("runs", sa.Column("limits", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("jobs", sa.Column("token", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("rings", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("alone", sa.Boolean(), nullable=False, server_default=sa.false()))
    for name in ("jobs_by_queue", "jobs_by_run", "jobs_by_artifact"):
        op.drop_index(name, "jobs")
    op.create_index("jobs_by_run", "jobs", ["run_id", "state", "stage", "id"])
    for name, columns, rows in (
        ("ready_jobs", ["queue", "run_id", "id"], READY),
        ("ready_jobs_by_stage", ["queue", "stage", "run_id", "id"], READY),
        ("queued_jobs", ["run_id", "queue", "dispatched_at"], QUEUED),
        ("running_jobs", ["lease_until"], RUNNING),
    ):
        op.create_index(name, "jobs", columns, sqlite_where=rows, postgresql_where=rows)
    op.create_index(
        "running_alone",
        "jobs",
        ["id"],
        sqlite_where=sa.text("state = 'running' AND alone = 1"),
        postgresql_where=sa.text("state = 'running' AND alone"),
    )
