"""When prompt jobs may be begun."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("prompt_jobs", sa.Column("run", sa.String(16), nullable=False, server_default="now"))


def downgrade() -> None:
    op.drop_column("prompt_jobs", "run")
