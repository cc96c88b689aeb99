"""Compatibility: support for other database backends, and for Django's own on pg8000."""
