"""Commands: parse, call, print. Exit codes: 0 done, 1 it could not be done, 2 wrong use, setting or store."""

from mirror.cli.main import main

__all__ = ["main"]
