"""When prompt jobs may be begun, and who is told how they ended."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("prompt_jobs", sa.Column("run", sa.String(16), nullable=False, server_default="now"))
    op.add_column("prompt_jobs", sa.Column("webhook", sa.Text))
    op.add_column("prompt_jobs", sa.Column("tell_at", sa.DateTime(timezone=True)))
    op.add_column("prompt_jobs", sa.Column("tellings", sa.Integer, nullable=False, server_default="0"))
    op.create_index("prompt_jobs_untold", "prompt_jobs", ["tell_at"])


def downgrade() -> None:
    op.drop_index("prompt_jobs_untold", "prompt_jobs")
    for column in ("run", "webhook", "tell_at", "tellings"):
        op.drop_column("prompt_jobs", column)
