"""Prompt jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "prompt_jobs",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("model", sa.String(600), nullable=False),
        sa.Column("cost", sa.Float, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        sa.Column("deadline", sa.DateTime(timezone=True)),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("not_before", sa.DateTime(timezone=True)),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("idempotency_key", sa.String(200)),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("said", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
    )
    op.create_index("prompt_jobs_by_age", "prompt_jobs", ["created_at"])
    op.create_index("prompt_jobs_by_state", "prompt_jobs", ["state", "updated_at"])
    op.create_index("prompt_jobs_by_key", "prompt_jobs", ["user", "idempotency_key"], unique=True)


def downgrade() -> None:
    op.drop_table("prompt_jobs")
