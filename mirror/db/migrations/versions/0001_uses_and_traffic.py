"""Model uses and traffic by day."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_uses",
        sa.Column("name", sa.String(600), primary_key=True),
        sa.Column("checked_at", sa.DateTime(timezone=True)),
        sa.Column("used_at", sa.DateTime(timezone=True)),
        sa.Column("uses", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_table(
        "traffic",
        sa.Column("day", sa.String(10), primary_key=True),
        *(
            sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
            for name in ("hits", "misses", "served_bytes", "fetched_bytes")
        ),
    )


def downgrade() -> None:
    op.drop_table("traffic")
    op.drop_table("model_uses")
