"""The paper's own figures, beside ours."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create their table; ``db.schema`` fills it."""
    op.create_table(
        "published",
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("p_tar", sa.Double(), nullable=False),
        sa.Column("overall_accuracy", sa.Double(), nullable=False),
        sa.Column("edge_exit_probability", sa.Double(), nullable=False),
        sa.Column("edge_accuracy", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("policy", "kind", "level", "p_tar"),
    )
