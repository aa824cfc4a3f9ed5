"""The tables. A change here comes with a migration."""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

SCHEMA_VERSION = "0009"
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

pull_jobs = Table(
    "pull_jobs",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(600), nullable=False),
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("place", Float, nullable=False),
    Column("size", BigInteger),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("not_before", DateTime(timezone=True)),
    Column("at_once", Integer, nullable=False, server_default="0"),
    Column("error", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Index("pull_jobs_by_state", "state", "priority", "place"),
)
"""One row for each wish for a model (``mirror/pulls/job.py`` has the states); at most one of a name is not over."""

pull_requesters = Table(
    "pull_requesters",
    metadata,
    Column("job", String(16), ForeignKey("pull_jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("who", String(200), primary_key=True),
    Column("asked_at", DateTime(timezone=True), nullable=False),
)
"""Who asked for a job: a user, or an address."""

pull_switches = Table(
    "pull_switches",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", String(64), nullable=False),
)
"""What people switched on the queue: ``paused``."""

tag_meanings = Table(
    "tag_meanings",
    metadata,
    Column("name", String(600), primary_key=True),
    Column("digest", String(80), primary_key=True),
    Column("place", Integer, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("replaced_at", DateTime(timezone=True)),
    Column("held_at", DateTime(timezone=True)),
)
"""Per model name: the manifests that its tag has meant, in order, when another took its place, and where it is held."""

nodes = Table(
    "nodes",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("said", Text, nullable=False),
    Column("address", String(64), nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False),
    Column("draining", Integer, nullable=False, server_default="0"),
)
"""Per node of the hub: its last heartbeat but for a minute as JSON, where it is reached, when it was heard of, and
whether it gets no work because people drain it."""

prompt_jobs = Table(
    "prompt_jobs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("user", String(200), nullable=False),
    Column("model", String(600), nullable=False),
    Column("cost", Float, nullable=False),
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("deadline", DateTime(timezone=True)),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("not_before", DateTime(timezone=True)),
    Column("error", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("idempotency_key", String(200)),
    Column("size", BigInteger, nullable=False),
    Column("said", Text, nullable=False),
    Column("result", Text),
    Column("run", String(16), nullable=False, server_default="now"),
    Column("webhook", Text),
    Column("tell_at", DateTime(timezone=True)),
    Column("tellings", Integer, nullable=False, server_default="0"),
    Column("path", String(64)),
    Column("batch", String(64)),
    Column("line", Integer),
    Column("custom_id", Text),
    Column("asker", String(200)),
    Index("prompt_jobs_untold", "tell_at"),
    Index("prompt_jobs_by_line", "batch", "line", unique=True),
    Index("prompt_jobs_by_age", "created_at"),
    Index("prompt_jobs_by_state", "state", "updated_at"),
    Index("prompt_jobs_by_key", "user", "idempotency_key", unique=True),
)
"""One row for each prompt job (``mirror/prompts/prompt.py`` has the states); ``said`` is what an Ollama is sent, of
``size`` bytes, until it is over, and ``result`` what it answered, both as JSON: so any text can be written. From its
end until ``webhook`` was told there is a ``tell_at``, when that is tried next, after ``tellings`` tries in vain.
``line`` of ``batch`` is where it belongs to, and ``path`` what it is sent to; such a row goes with the end of its
batch. ``asker`` is who the policy is asked about."""

batch_files = Table(
    "batch_files",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("user", String(200), nullable=False),
    Column("name", String(255), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Index("batch_files_by_age", "created_at"),
)
"""Files of batches, what goes in and what comes out; their bytes are in the state folder."""

batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("user", String(200), nullable=False),
    Column("asker", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("endpoint", String(64), nullable=False),
    Column("input_file", String(64), nullable=False),
    Column("output_file", String(64)),
    Column("error_file", String(64)),
    Column("run", String(16), nullable=False),
    Column("total", Integer, nullable=False, server_default="0"),
    Column("completed", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("said", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Index("batches_by_age", "created_at"),
    Index("batches_by_state", "state"),
)
"""Batches (``mirror/batches/batch.py`` has the states); ``said`` is the rest as JSON: metadata, errors and times."""

tallies = Table(
    "tallies",
    metadata,
    Column("day", String(10), primary_key=True),
    Column("user", String(200), primary_key=True),
    Column("model", String(600), primary_key=True),
    Column("answers", BigInteger, nullable=False, server_default="0"),
    Column("prompt", BigInteger, nullable=False, server_default="0"),
    Column("made", BigInteger, nullable=False, server_default="0"),
)
"""Per UTC day, user and model: answers, and tokens read and made."""
