"""Text and Shape: what is known of a statement's text, and of its parameters' types."""

from __future__ import annotations

from collections.abc import Hashable
from hashlib import blake2b
from typing import Any

from .placeholders import Native
from .targets import Target

#: Combinations of types of one text that are prepared. NULL is a type of its own.
_MOST_SHAPES = 8
_TOO_MANY = (
    f"its parameters have more than {_MOST_SHAPES} combinations of types (NULL counts as a type); "
    "the others are run unprepared"
)


class Shape:
    """A text with certain types of parameters, which is what the server prepares.

    :ivar types: the types, as the driver names them.
    :ivar proven: whether a session has prepared it. Until then, the server may refuse to.
    :ivar refused: whether it is run unprepared, because the server has refused.
    """

    __slots__ = ("digest", "proven", "refused", "target", "text", "types")

    def __init__(self, text: Text, target: Target, types: tuple[Hashable, ...]) -> None:
        self.text = text
        self.target = target
        self.types = types
        self.proven = self.refused = False
        # Part of the name, so that one session can never have another statement by that name,
        # even if several programs share it by way of a pooler.
        key = f"{text.native.sql}\0{types}".encode()
        self.digest = blake2b(key, digest_size=8).hexdigest()


class Text:
    """A statement's text that is prepared, or may be.

    :ivar target: None if it is none yet.
    :ivar seen: how often it was run before it became one.
    :ivar native: the text as the server has it.
    :ivar formats: the driver's own, for as many parameters.
    """

    __slots__ = ("formats", "native", "seen", "shapes", "sql", "target")

    def __init__(self, sql: str, target: Target | None) -> None:
        self.sql = sql
        self.target = target
        self.seen = 0
        self.native = Native(sql)
        self.shapes: dict[tuple[Hashable, ...], Shape] = {}
        self.formats: Any = None

    def shape(self, types: tuple[Hashable, ...]) -> Shape | None:
        """Return its shape for *types*; None if it is not to be prepared."""
        shape = self.shapes.get(types)
        if shape is None:
            if self.target is None:
                return None
            if len(self.shapes) >= _MOST_SHAPES:
                self.target.problem = self.target.problem or _TOO_MANY
                return None
            shape = self.shapes.setdefault(types, Shape(self, self.target, types))
        return None if shape.refused else shape
