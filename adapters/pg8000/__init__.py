"""pg8000, as a driver that sends simple queries, and its adapter."""

from .adapter import Pg8000Adapter

__all__ = ["Pg8000Adapter"]
