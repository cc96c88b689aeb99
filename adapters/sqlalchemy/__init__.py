"""SQLAlchemy's connection pools, without the rest of SQLAlchemy.

https://docs.sqlalchemy.org/en/20/core/pooling.html
"""

from .adapter import QueuePoolAdapter, SQLAlchemyAdapter

__all__ = ["QueuePoolAdapter", "SQLAlchemyAdapter"]
