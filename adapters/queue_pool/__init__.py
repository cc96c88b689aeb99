"""SQLAlchemy's connection pools, without the rest of SQLAlchemy, and without a driver.

https://docs.sqlalchemy.org/en/20/core/pooling.html
"""

from .adapter import QueuePoolAdapter

__all__ = ["QueuePoolAdapter"]
