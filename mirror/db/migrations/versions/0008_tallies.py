"""What models have answered, by day, user and model."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tallies",
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("user", sa.String(200), primary_key=True),
        sa.Column("model", sa.String(600), primary_key=True),
        sa.Column("answers", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("prompt", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("made", sa.BigInteger, nullable=False, server_default="0"),
    )


def downgrade() -> None:
    op.drop_table("tallies")
