"""Dotted paths: objects that settings name by their import path."""

from __future__ import annotations

import pkgutil
from typing import Any

from .errors import ConfigurationError


def import_dotted_path(path: str) -> Any:
    """Import and return the object at *path*, such as ``"shop.db.connect"``.

    :raises ConfigurationError: *path* is malformed, or cannot be imported.
    """
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{path!r} cannot be imported: {error}.") from error
