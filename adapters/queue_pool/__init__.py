"""SQLAlchemy's connection pools, without the rest of SQLAlchemy, for any driver.

https://docs.sqlalchemy.org/en/20/core/pooling.html
"""

from .adapter import QueuePoolAdapter

__all__ = ["QueuePoolAdapter"]
