"""The tables. A change here comes with a migration."""

from sqlalchemy import BigInteger, Column, DateTime, Integer, MetaData, String, Table

metadata = MetaData()

SCHEMA_VERSION = "0002"
"""The newest migration: what these tables are."""

model_uses = Table(
    "model_uses",
    metadata,
    Column("name", String(600), primary_key=True),
    Column("checked_at", DateTime(timezone=True)),
    Column("used_at", DateTime(timezone=True)),
    Column("uses", Integer, nullable=False, server_default="0"),
    Column("stored_digest", String(80)),
)
"""Per model name: when the upstream last confirmed its tag, when a client last asked for it, how often, and the
manifest that this mirror last completed under it (an Ollama that shares the folder may have put another there)."""

traffic = Table(
    "traffic",
    metadata,
    Column("day", String(10), primary_key=True),
    Column("hits", BigInteger, nullable=False, server_default="0"),
    Column("misses", BigInteger, nullable=False, server_default="0"),
    Column("served_bytes", BigInteger, nullable=False, server_default="0"),
    Column("fetched_bytes", BigInteger, nullable=False, server_default="0"),
)
"""Per UTC day: blob requests answered from the store and not, bytes to clients, bytes from upstream."""
