"""A typed client of a running mirror's admin API; what commands use. Network out only."""

from mirror.client.admin import AdminClient

__all__ = ["AdminClient"]
