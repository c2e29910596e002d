"""The seed and the fidelity that a result stands under."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Runs of before had one seed and no fidelity but the paper's idea."""
    op.add_column("jobs", sa.Column("seed", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("fidelity", sa.String(), nullable=True))
