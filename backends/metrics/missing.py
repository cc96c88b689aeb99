"""Missing: the error if the package for a kind of metrics is not installed."""

from __future__ import annotations


def not_installed(extra: str, package: str, error: ImportError) -> ImportError:
    """Return the error to raise for *error*.

    :param extra: the name of relet's extra that brings *package*.
    """
    return ImportError(
        f"relet.metrics.{extra}() needs {package}, which cannot be imported ({error}). "
        f"Install it with: pip install 'relet[{extra}]'"
    )
