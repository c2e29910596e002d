"""New views: what the classifier costs in time, and what each fidelity changes."""

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Views are made again after every migration."""
