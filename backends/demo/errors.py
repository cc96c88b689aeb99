"""Errors of the demo."""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on. The text says why and includes the end of the log, if any."""
