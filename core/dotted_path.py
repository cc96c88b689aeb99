"""Dotted paths: objects that settings name by their import path."""

from __future__ import annotations

import pkgutil
from typing import Any

from .errors import ConfigurationError
from .outside import attempt


def import_dotted_path(path: str) -> Any:
    """Import and return the object at *path*, such as ``"shop.db.connect"``.

    :raises ConfigurationError: *path* is malformed, or cannot be imported.
    """
    found, error = attempt(lambda: pkgutil.resolve_name(path))
    if error is None:
        return found
    # The module may raise anything. Of a KeyError, the message is only the key.
    plain = isinstance(error, (ImportError, AttributeError, ValueError))
    reason = str(error) if plain else repr(error)
    raise ConfigurationError(f"{path!r} cannot be imported: {reason}.") from error
