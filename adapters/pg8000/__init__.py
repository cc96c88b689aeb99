"""The adapter for pg8000, and a driver on top of pg8000 that sends simple queries."""

from .adapter import Pg8000Adapter

__all__ = ["Pg8000Adapter"]
