"""The queue of pulls."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pull_jobs",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(600), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        sa.Column("place", sa.Float, nullable=False),
        sa.Column("size", sa.BigInteger),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("not_before", sa.DateTime(timezone=True)),
        sa.Column("at_once", sa.Integer, nullable=False, server_default="0"),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
    )
    op.create_index("pull_jobs_by_state", "pull_jobs", ["state", "priority", "place"])
    op.create_table(
        "pull_requesters",
        sa.Column("job", sa.String(16), sa.ForeignKey("pull_jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("who", sa.String(200), primary_key=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "pull_switches",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.String(64), nullable=False),
    )


def downgrade() -> None:
    for table in ("pull_switches", "pull_requesters", "pull_jobs"):
        op.drop_table(table)
