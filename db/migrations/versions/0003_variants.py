"""The seed and the fidelity that a result stands under."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

WRITE_ROWS = (
    *("train-classifier", "classify", "train-backbone", "train-expert"),
    *("predict", "sweep", "measure", "latency"),
)
"""Stages of then whose results stand under a seed and a fidelity."""


def upgrade() -> None:
    """Runs of before had one seed and no fidelity but the paper's idea."""
    op.add_column("jobs", sa.Column("seed", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("fidelity", sa.String(), nullable=True))
    runs = sa.table("runs", sa.column("id"), sa.column("spec", sa.JSON))
    jobs = sa.table("jobs", *map(sa.column, ("run_id", "stage", "seed", "fidelity")))
    of_spec = sa.cast(runs.c.spec["seed"].as_string(), sa.BigInteger)  # as_integer() has 32 bits on Postgres
    seed = sa.select(of_spec).where(runs.c.id == jobs.c.run_id).scalar_subquery()
    op.execute(sa.update(jobs).values(seed=seed, fidelity="corrected").where(jobs.c.stage.in_(WRITE_ROWS)))
