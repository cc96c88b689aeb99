"""Temporarily: call something while attributes are others, and have them back whatever strikes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def temporarily(owner: Any, function: Callable[[], T], **values: Any) -> T:
    """Call *function* while the attributes of *owner* are *values*.

    A ``finally`` would not do: it guards neither the instructions before its ``try``, nor its own.
    """
    attributes = owner.__dict__
    before = {name: getattr(owner, name) for name in values}
    try:
        attributes.update(values)  # in one step, like the way back
        result = function()
        attributes.update(before)
    except BaseException:
        attributes.update(before)
        raise
    return result
