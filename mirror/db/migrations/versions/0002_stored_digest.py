"""Which manifest the mirror completed itself."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("model_uses", sa.Column("stored_digest", sa.String(80)))


def downgrade() -> None:
    op.drop_column("model_uses", "stored_digest")
