"""Batches: their files, and their lines as prompt jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def _added() -> list[sa.Column[object]]:
    return [
        sa.Column("path", sa.String(64)),
        sa.Column("batch", sa.String(64)),
        sa.Column("line", sa.Integer),
        sa.Column("custom_id", sa.Text),
        sa.Column("asker", sa.String(200)),
    ]


def upgrade() -> None:
    for column in _added():
        op.add_column("prompt_jobs", column)
    op.create_index("prompt_jobs_by_line", "prompt_jobs", ["batch", "line"], unique=True)
    op.create_table(
        "batch_files",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("batch_files_by_age", "batch_files", ["created_at"])
    op.create_table(
        "batches",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("asker", sa.String(200), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("endpoint", sa.String(64), nullable=False),
        sa.Column("input_file", sa.String(64), nullable=False),
        sa.Column("output_file", sa.String(64)),
        sa.Column("error_file", sa.String(64)),
        sa.Column("run", sa.String(16), nullable=False),
        sa.Column("total", sa.Integer, nullable=False, server_default="0"),
        sa.Column("completed", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failed", sa.Integer, nullable=False, server_default="0"),
        sa.Column("said", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("batches_by_age", "batches", ["created_at"])
    op.create_index("batches_by_state", "batches", ["state"])


def downgrade() -> None:
    op.drop_table("batches")
    op.drop_table("batch_files")
    op.drop_index("prompt_jobs_by_line", "prompt_jobs")
    for column in _added():
        op.drop_column("prompt_jobs", column.name)
