"""Ordering: checks of the arguments that reports have in common."""

from __future__ import annotations

from collections.abc import Sequence

from relet.core.errors import did_you_mean


def checked_order(report: str, by: object, known: Sequence[str]) -> None:
    """Raise `ValueError` unless *by* is one of *known*."""
    if by not in known:
        raise ValueError(
            f"relet.{report}(by={by!r}): it can be {', '.join(map(repr, known))}"
            f"{did_you_mean(by, known)}."
        )


def checked_limit(report: str, limit: object) -> None:
    """Raise `ValueError` unless *limit* is a number of rows, or None."""
    whole = isinstance(limit, int) and not isinstance(limit, bool)
    if limit is not None and not (whole and limit >= 0):  # type: ignore[operator]
        raise ValueError(
            f"relet.{report}(limit={limit!r}): it must be a number of rows, or None for all."
        )
