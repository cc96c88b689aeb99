"""The adapter for psycopg_pool."""

from .adapter import PsycopgAdapter

__all__ = ["PsycopgAdapter"]
