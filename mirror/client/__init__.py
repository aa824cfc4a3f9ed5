"""A typed client of a running mirror: its admin API, and the ways to it. What commands use. Network out only."""

from mirror.client.admin import AdminClient

__all__ = ["AdminClient"]
