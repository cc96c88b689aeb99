"""Temporarily: call a function with some attributes changed, and always restore them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def temporarily(owner: Any, function: Callable[[], T], **values: Any) -> T:
    """Call *function* with attributes of *owner* set to *values*, then restore them.

    They are restored even if a signal handler raises at any instruction. ``finally`` is not
    enough: it covers neither the instructions before its ``try`` nor those of its own block.
    """
    attributes = owner.__dict__
    before = {name: getattr(owner, name) for name in values}
    try:
        attributes.update(values)  # one step, as is restoring them
        result = function()
        attributes.update(before)
    except BaseException:
        attributes.update(before)
        raise
    return result
