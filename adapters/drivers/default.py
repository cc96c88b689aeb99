"""The driver that Django picks: psycopg 3, or psycopg2 where psycopg is not installed.

https://docs.djangoproject.com/en/stable/ref/databases/#postgresql-notes
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .psycopg import Psycopg as Driver
else:
    try:
        from .psycopg import Psycopg as Driver
    except ImportError:
        from .psycopg2 import Psycopg2 as Driver

__all__ = ["Driver"]
