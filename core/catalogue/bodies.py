"""Bodies: the effects of a function's source, and the names that it mentions."""

from __future__ import annotations

import re

from relet.core.sql.commands import steps_of_body, steps_of_statements
from relet.core.sql.effects import Change, Kind
from relet.core.sql.functions import KINDS
from relet.core.sql.statements import Statement, readings, split

from .dynamic import Executed, Unreadable
from .names import UNKNOWN_NAME, Catalogue
from .queries import Routine

#: A source without any of these words has no effects of its own, unless it has SET. Most have none,
#: and it takes a hundredth of the time to see that.
_WORDS = frozenset(
    word.encode()
    for word in (
        *(*KINDS, "pg_settings", "temp", "temporary", "pg_temp", "listen", "unlisten", "prepare"),
        *("deallocate", "discard", "reset", "load", "hold", "u"),
    )
)
#: What is no part of a word becomes a space, and letters become small.
_SPACED = bytes(
    code if chr(code).isalnum() or code in b"_$" or code > 127 else 32
    for code in (ord(chr(code).lower()) if code < 128 else code for code in range(256))
)
#: SET, and where it is a part of another command.
_SET = re.compile(r"set(?<![\w$]set)(?![\w$])")
_SET_OF_OTHERS = re.compile(
    r"update\s+(?:only\s+)?[\w$.\"%]+(?:\s+\*)?(?:\s+(?:as\s+)?[\w$]+)?\s+set(?![\w$])"
    r"|update\s+set(?![\w$])"
)
#: What other languages call to run SQL.
_RUNS_SQL = re.compile(r"execute|spi_|plpy|plv8|prepare|query|cursor", re.IGNORECASE)


def words_of(source: str) -> frozenset[bytes]:
    """Return the words of *source* in lower case, those in strings and comments, too."""
    return frozenset(source.encode(errors="replace").translate(_SPACED).split())


def may_have_effects(words: frozenset[bytes], source: str) -> bool:
    """Return whether *source* may have effects of its own.

    :param words: its words.
    """
    return b"execute" in words or _may_set(words, source)


def _may_set(words: frozenset[bytes], source: str) -> bool:
    """Return whether a source without dynamic SQL may have effects of its own."""
    if not words.isdisjoint(_WORDS):
        return True
    if b"set" not in words:
        return False
    lowered = source.lower()
    return len(_SET.findall(lowered)) > len(_SET_OF_OTHERS.findall(lowered))


class Body:
    """The source of a function, as statements.

    :ivar own: its effects, but for those of what it calls and writes.
    :ivar has_unknown_names: whether it uses names that are put in at run time.
    """

    def __init__(self, routine: Routine, words: frozenset[bytes]) -> None:
        source = routine.source
        self.statements = _statements(source)
        found: list[Change] = []
        executed: list[str] = []
        if routine.language not in ("sql", "plpgsql"):
            # Any string in it may be SQL.
            executed = _strings(source)
            if _RUNS_SQL.search(source):
                found.append(Change(Kind.DYNAMIC, None))
                found += steps_of_body(source, True)
        elif routine.language == "plpgsql" and b"execute" in words:
            try:
                parameters = frozenset(routine.parameters.split())
                executed = Executed(self.statements, parameters).texts()
            except Unreadable:
                executed = _strings(source)
                found.append(Change(Kind.DYNAMIC, None))
                found += steps_of_body(source, False)
            else:
                for text in executed:
                    if may_have_effects(words_of(text), text):
                        found += steps_of_body(text, False)
        if Change(Kind.DYNAMIC, None) not in found and _may_set(words, source):
            found += steps_of_statements(self.statements)
        for text in executed:
            self.statements += _statements(text)
        self.has_unknown_names = any(UNKNOWN_NAME in text for text in executed)
        origin = f"called in function {routine.title}"
        self.own = tuple(
            change._replace(origin=change.origin or origin) for change in dict.fromkeys(found)
        )

    def changes(self, catalogue: Catalogue) -> list[Change]:
        """Return the changes of what it mentions."""
        return [change for statement in self.statements for change in catalogue.steps_in(statement)]


def _statements(source: str) -> list[Statement]:
    return [statement for way in readings(source) for statement in split(way)]


def _strings(source: str) -> list[str]:
    return [
        token.text
        for way in readings(source)
        for token in way
        if (token.kind == "string" or token.quoted) and len(token.text) > 3
    ]
