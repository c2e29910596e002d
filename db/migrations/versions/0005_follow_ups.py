"""Results of the follow-up papers, and latencies for every network and payload."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create their tables; a latency's artifact has a row for each network and payload now."""
    _key_latencies_by_network_and_payload()
    op.create_table(
        "missed_deadlines",
        sa.Column("profile", sa.String(), nullable=False),
        sa.Column("t_tar_seconds", sa.Double(), nullable=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("p_tar", sa.Double(), nullable=False),
        sa.Column("payload", sa.String(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("shuffles", sa.Integer(), nullable=False),
        sa.Column("missed", sa.Double(), nullable=False),
        sa.Column("margin", sa.Double(), nullable=False),
        sa.Column("artifact_id", sa.Integer(), nullable=False),
        sa.CheckConstraint("batch_size BETWEEN 1 AND n"),
        sa.CheckConstraint("margin >= 0"),
        sa.CheckConstraint("missed >= 0 AND missed <= 1"),
        sa.CheckConstraint("p_tar >= 0 AND p_tar <= 1"),
        sa.CheckConstraint("shuffles > 1"),
        sa.CheckConstraint("t_tar_seconds >= 0"),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("profile", "t_tar_seconds", "artifact_id"),
    )
    op.create_table(
        "outages",
        sa.Column("p_tar", sa.Double(), nullable=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("shuffles", sa.Integer(), nullable=False),
        sa.Column("edge_outage", sa.Double(), nullable=False),
        sa.Column("edge_margin", sa.Double(), nullable=False),
        sa.Column("overall_outage", sa.Double(), nullable=False),
        sa.Column("overall_margin", sa.Double(), nullable=False),
        sa.Column("batches_without_edge", sa.Double(), nullable=False),
        sa.Column("artifact_id", sa.Integer(), nullable=False),
        sa.CheckConstraint("batch_size BETWEEN 1 AND n"),
        sa.CheckConstraint("batches_without_edge >= 0 AND batches_without_edge <= 1"),
        sa.CheckConstraint("edge_margin >= 0 AND overall_margin >= 0", name="outages_have_margins"),
        sa.CheckConstraint("edge_outage >= 0 AND edge_outage <= 1"),
        sa.CheckConstraint("overall_outage >= 0 AND overall_outage <= 1"),
        sa.CheckConstraint("p_tar >= 0 AND p_tar <= 1"),
        sa.CheckConstraint("shuffles > 1"),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("p_tar", "artifact_id"),
    )
    op.create_table(
        "payload_answers",
        sa.Column("payload", sa.String(), nullable=False),
        sa.Column("expert", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("agreeing", sa.Integer(), nullable=False),
        sa.Column("correct", sa.Integer(), nullable=False),
        sa.Column("artifact_id", sa.Integer(), nullable=False),
        sa.CheckConstraint("payload <> 'float32' OR agreeing = n", name="float32_agrees_with_itself"),
        sa.CheckConstraint("agreeing BETWEEN 0 AND n"),
        sa.CheckConstraint("correct BETWEEN 0 AND n"),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("payload", "artifact_id"),
    )
    op.create_table(
        "reliability_bins",
        sa.Column("exit", sa.Integer(), nullable=False),
        sa.Column("calibrated", sa.Boolean(), nullable=False),
        sa.Column("bin", sa.Integer(), nullable=False),
        sa.Column("expert", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("mean_confidence", sa.Double(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=False),
        sa.Column("artifact_id", sa.Integer(), nullable=False),
        sa.CheckConstraint("accuracy >= 0 AND accuracy <= 1"),
        sa.CheckConstraint("bin BETWEEN 1 AND 15"),
        sa.CheckConstraint("exit BETWEEN 1 AND 4"),
        sa.CheckConstraint("mean_confidence >= 0 AND mean_confidence <= 1"),
        sa.CheckConstraint("n > 0"),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("exit", "calibrated", "bin", "artifact_id"),
    )


COLUMNS = (
    "payload, policy, profile, kind, level, p_tar, n, offloaded, mean_seconds, p50_seconds, p95_seconds,"
    " classifier_seconds, edge_seconds, link_seconds, cloud_seconds, artifact_id"
)


def _key_latencies_by_network_and_payload() -> None:
    """By copying: SQLite cannot change a table's key."""
    seconds = ("mean", "p50", "p95", "classifier", "edge", "link", "cloud")
    op.create_table(
        "latencies_by_both",
        sa.Column("payload", sa.String(), nullable=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("profile", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("p_tar", sa.Double(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("offloaded", sa.Integer(), nullable=False),
        *(sa.Column(f"{of}_seconds", sa.Double(), nullable=False) for of in seconds),
        sa.Column("artifact_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("profile", "payload", "artifact_id"),
    )
    op.execute(f"INSERT INTO latencies_by_both ({COLUMNS}) SELECT {COLUMNS} FROM latencies")  # noqa: S608
    op.execute("DROP VIEW IF EXISTS latency")  # it reads the table, and is made again after every migration
    op.drop_table("latencies")
    op.rename_table("latencies_by_both", "latencies")
