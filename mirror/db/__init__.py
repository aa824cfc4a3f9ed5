"""The database: an engine, its tables, their migrations. Touches the database alone.

It holds what may be lost: no model depends on it, and it may be deleted at any time while the mirror is stopped.
"""

from mirror.db.batch import write_or_put_back
from mirror.db.engine import in_transaction, look_at_database, open_database
from mirror.db.history import Meaning, TagHistory
from mirror.db.ledger import Ledger, ModelUse, Traffic
from mirror.db.tallies import Tallies, Tally

__all__ = [
    "Ledger",
    "Meaning",
    "ModelUse",
    "TagHistory",
    "Tallies",
    "Tally",
    "Traffic",
    "in_transaction",
    "look_at_database",
    "open_database",
    "write_or_put_back",
]
