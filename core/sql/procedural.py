"""Procedural code: the effects that a DO block or the body of a function may have.

Which of its statements run, in which order and how often, is unknown. So its state has no names,
and nothing is certain to be undone.

https://www.postgresql.org/docs/current/sql-do.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from .effects import ALL, AnyStep, Change, Kind, nameless
from .functions import steps_anywhere, texts_run
from .names import is_temporary_schema
from .statements import STRING, WORD, Statement, key_words, readings, split

#: First word of a statement -> yields its effects, except those of the functions that it calls.
Heads = Mapping[str, Callable[[Statement, list[str]], Iterator[AnyStep]]]

#: PL/pgSQL words after which a statement may begin, as after a semicolon.
_BEFORE = ("begin", "then", "else", "loop")
#: The maximum nesting depth of EXECUTE strings that are read.
_DEEPEST = 3
#: A block and its strings are read up to `_MOST` times the block's length in total, which counts as
#: `_SHORTEST` characters at least. Each string counts as `_LEAST` characters at least.
_MOST, _LEAST = 4, 40
_SHORTEST = 400
#: A text without any of these has no effects.
_EFFECTIVE = re.compile(
    r"set|create|alter|drop|prepare|deallocate|declare|close|listen|load|discard|do|lock|nextval"
    r"|into|temp|execute|u&|_to_xml|ts_|backup|replication_",
    re.IGNORECASE,
)
_UNKNOWN = Change(Kind.UNKNOWN, None)


def _missing(*kinds: Kind) -> tuple[Change, ...]:
    return tuple(Change(kind, None, undoes=True, sure=False) for kind in kinds)


#: First word -> its effects if EXECUTE adds the rest, as in ``'CREATE ' || what``.
_UNFINISHED: dict[str, tuple[Change, ...]] = {
    "alter": (Change(Kind.TEMPORARY, ALL, undoes=True, renames=True),),
    "close": _missing(Kind.CURSOR),
    "create": (Change(Kind.TEMPORARY, None),),
    "deallocate": _missing(Kind.PREPARED),
    "declare": (Change(Kind.CURSOR, None),),
    "discard": _missing(*Kind),
    "drop": _missing(Kind.TEMPORARY),
    "reset": _missing(Kind.SETTING, Kind.ROLE),
    "unlisten": _missing(Kind.CHANNEL),
}


def steps_of_code(statement: Statement, heads: Heads) -> Iterator[AnyStep]:
    """Yield the effects of the DO block *statement*."""
    yield from dict.fromkeys(_Code(heads).read(statement))


def steps_of_body(text: str, heads: Heads, strings_run: bool) -> Iterator[Change]:
    """Yield the effects of *text*, the body of a function.

    :param strings_run: whether any string in it may be run as SQL. If not, those in a text with an
        EXECUTE may be.
    """
    yield from dict.fromkeys(_Code(heads).read_text(text, strings_run))


def steps_of_statements(statements: Iterable[Statement], heads: Heads) -> Iterator[Change]:
    """Yield the effects of *statements* of a function, of whose strings none is run as SQL."""
    yield from dict.fromkeys(_Code(heads).read_statements(statements))


class _Code:
    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        #: The texts to read, each with its depth, and whether all strings in it may run.
        self._pending: list[tuple[str, int, bool]] = []
        self._seen: set[str] = set()

    def read(self, block: Statement) -> Iterator[Change]:
        self._add_block(block, 0)
        yield from self._read()

    def read_text(self, text: str, strings_run: bool) -> Iterator[Change]:
        self._pending.append((text, 0, strings_run))
        yield from self._read()

    def read_statements(self, statements: Iterable[Statement]) -> Iterator[Change]:
        for statement in statements:
            yield from self._effects(statement, 0)
        yield from self._read()  # the blocks in it

    def _read(self) -> Iterator[Change]:
        left = _MOST * max(sum(len(text) for text, _, _ in self._pending), _SHORTEST)
        while self._pending:
            text, depth, strings_run = self._pending.pop()
            if depth > _DEEPEST or left < 0:
                yield _UNKNOWN
                return
            ways = readings(text)
            left -= max(len(text), _LEAST) * len(ways)
            for way in ways:
                statements = split(way)
                for statement in statements:
                    yield from self._effects(statement, depth)
                if strings_run or any(token.text == "execute" for token in way):
                    strings = (t.text for t in way if t.kind is STRING or t.quoted)
                    self._add(strings, depth + 1, strings_run)

    def _add(self, texts: Iterable[str], depth: int, strings_run: bool) -> None:
        for text in texts:
            if text not in self._seen and _EFFECTIVE.search(text):
                self._seen.add(text)
                self._pending.append((text, depth, strings_run))

    def _add_block(self, block: Statement, depth: int) -> None:
        # In other languages, any string may be run.
        strings_run = _language(block) != "plpgsql"
        self._add((token.text for token in block if token.kind is STRING), depth, strings_run)

    def _effects(self, statement: Statement, depth: int) -> Iterator[Change]:
        """Yield the effects of every part that could be a statement."""
        starts = [0]
        starts += [at + 1 for at, token in enumerate(statement) if token.text in _BEFORE]
        for start, stop in zip(starts, [*starts[1:], len(statement)], strict=True):
            part = statement[start:stop]
            words = key_words(part)
            head = words[0] if words else ""
            if head == "do":
                self._add_block(part, depth + 1)
            elif head in self._heads:
                yield from nameless(self._heads[head](part, words))
            if len(part) == 1:
                yield from _UNFINISHED.get(head, ())
            later = head == "prepare" or (head == "declare" and "cursor" in words)
            if later and stop < len(statement):
                yield _UNKNOWN  # the rest of its query is in another part
        yield from nameless(steps_anywhere(statement))
        for text in texts_run(statement):
            if text is None:
                yield Change(Kind.DYNAMIC, None)
            else:
                self._add((text,), depth + 1, False)
        if any(is_temporary_schema(token.text) for token in statement):
            yield Change(Kind.TEMPORARY, None)


def _language(block: Statement) -> str:
    for position, token in enumerate(block[:-1]):
        if token.kind is WORD and token.text == "language":
            return block[position + 1].text.lower()
    return "plpgsql"
