"""The classifier: SQL text in, its effects on the session out.

It may be wrong in one direction only. An effect that is not there costs a connection
that is kept until the end of the request; one that is overlooked reaches a stranger. So
where a text leaves it open (is this branch taken, does this call succeed?) it says that
state is made, and that none is given back. What it says is tested against the server's
own views, see tests/backends/test_classifier_oracle.py.

State that is made inside of functions cannot be seen in the text that calls them.

https://www.postgresql.org/docs/current/sql-commands.html
"""

from __future__ import annotations

import re

from .commands import steps_of
from .effects import Effects
from .functions import READERS, calls_of
from .statements import PARAMETER, Statement, Token, readings, split

#: Most SQL begins with one of these, and has an effect only if it has one of `_TRIGGERS`.
_QUERY = re.compile(
    r"[\s(]*(?:select|insert|update|delete|with|values|merge|table)\b", re.IGNORECASE
)
_TRIGGERS = (
    # Of functions (nextval, setval, lastval, currval); of SELECT INTO; of a view that can be
    # written to; of a second statement; of names that can hide any of these.
    *("set_config", "_advisory_", "tval", "currval", "setseed", "temp", "pg_settings", ";", 'u&"'),
)


def classify(sql: str) -> Effects | None:
    """Return what running *sql* does to its session; None if it does nothing."""
    lowered = sql.lower()
    triggers = [trigger for trigger in _TRIGGERS if trigger in lowered]
    if not triggers and _QUERY.match(sql):
        return None
    ways = readings(sql)
    reads = bool(triggers) and any(reader in lowered for reader in (*READERS, 'u&"'))
    if len(ways) == 1:
        return _effects(sql, split(ways[0]), reads)
    return _of_all([_effects(sql, split(way), reads) for way in ways])


def _effects(sql: str, found: list[Statement], may_read: bool) -> Effects | None:
    if "%" in sql:
        _number_placeholders(sql, found)
    steps = [step for statement in found for step in steps_of(statement)]
    reads = may_read and any(calls_of(statement, READERS) for statement in found)
    if not (steps or reads):
        return None
    heads = [statement[0].text for statement in found]
    may_commit = "do" in heads or "call" in heads
    return Effects(tuple(steps), len(found) == 1, reads, may_commit)


def _of_all(ways: list[Effects | None]) -> Effects | None:
    """The effects of a text that may be read in several ways: what it makes in any of them."""
    effects = [way for way in ways if way is not None]
    if len(set(ways)) == 1:
        return ways[0]
    steps = dict.fromkeys(step for each in effects for step in each.repeated.resolve(None, None))
    reads = any(each.reads_sequence for each in effects)
    return Effects(tuple(steps), single=False, reads_sequence=reads, may_commit=True)


class Memo(dict[str, "Effects | None"]):
    """Answers of `classify` by text: for a text seen before, one dictionary look-up.

    :param texts: how many are kept at most.
    :param characters: the longest text that is kept. Longer ones are bulk statements,
        which take the server a thousand times as long as `classify`.
    """

    def __init__(self, texts: int = 10_000, characters: int = 4_000) -> None:
        super().__init__()
        self.texts, self.characters = texts, characters

    def __missing__(self, sql: str) -> Effects | None:
        effects = classify(sql)
        if len(sql) <= self.characters:
            if len(self) >= self.texts:
                # SQL with values in its text: no order of eviction would be of help.
                self.clear()
            self[sql] = effects
        return effects


EFFECTS = Memo()
#: As psycopg finds them: in strings and comments, too.
_PLACEHOLDER = re.compile(r"%%|%([sbt])")


def _number_placeholders(sql: str, found: list[Statement]) -> None:
    """Write each ``%s`` as ``$1``, ``$2``, ...; or as ``$?``, where drivers count differently."""
    places = [
        (statement, position)
        for statement in found
        for position, token in enumerate(statement)
        if token[0] is PARAMETER and token.text in ("%s", "%b", "%t")
    ]
    # With a name among them, the driver refuses the text.
    agreed = len(places) == sum(map(bool, _PLACEHOLDER.findall(sql)))
    for number, (statement, position) in enumerate(places, 1):
        statement[position] = Token(PARAMETER, f"${number}" if agreed else "$?")
