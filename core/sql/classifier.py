"""The classifier: it takes SQL text and returns the effects of that SQL on the session.

It may err in one direction only. An effect that does not happen costs a connection, which is
kept until the end of the request. An effect that is overlooked leaks to the connection's next
user. So where the text does not decide (is this branch taken, does this call succeed?), the
classifier says that state is made and that none is undone. The answers are tested against the
server's own views, see tests/backends/test_classifier_oracle.py.

State that is made inside functions and triggers is invisible in the SQL that calls them. A
`Definitions`, such as `relet.core.catalogue`, knows it.

https://www.postgresql.org/docs/current/sql-commands.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from .commands import steps_of
from .effects import AnyStep, Change, Effects, Kind
from .functions import READERS, calls_of
from .statements import PARAMETER, Statement, Token, readings, split

#: Most SQL begins with one of these, and then has effects only if it contains a trigger.
_QUERY = re.compile(
    r"[\s(]*(?:select|insert|update|delete|with|values|merge|table)\b", re.IGNORECASE
)
_TRIGGERS = (
    # Functions (tval is part of nextval, setval and lastval), SELECT INTO a temporary table, a view
    # that can be updated, a second statement, and U&"", which can hide any name.
    *("set_config", "_advisory_", "tval", "currval", "setseed", "temp", "pg_settings", ";", 'u&"'),
    *("_to_xml", "ts_stat", "ts_rewrite", "_backup", "replication_"),
)


#: Stands for the text of a query that cannot be read, and may have any effect.
UNREADABLE = "/* a query that cannot be read */"


class Definitions(Protocol):
    """What is known of a database's functions, triggers and so on."""

    def may_concern(self, lowered: str) -> bool:
        """Return whether a text, in lower case, may mention something that has effects."""

    def steps_of(self, statement: Statement) -> Iterable[Change]:
        """Return the changes of what *statement* mentions."""


def classify(sql: str, definitions: Definitions | None = None) -> Effects | None:
    """Return the effects of *sql* on the session that runs it, or None if it has none.

    :param definitions: what is known of the database that runs it.
    """
    if sql == UNREADABLE:
        return Effects((Change(Kind.UNKNOWN, None),), single=False, may_commit=True)
    lowered = sql.lower()
    triggers = [trigger for trigger in _TRIGGERS if trigger in lowered]
    if definitions is not None and not definitions.may_concern(lowered):
        definitions = None
    if not triggers and definitions is None and _QUERY.match(sql):
        return None
    ways = readings(sql)
    reads = bool(triggers) and any(reader in lowered for reader in (*READERS, 'u&"'))
    if len(ways) == 1:
        return _effects(sql, split(ways[0]), reads, definitions)
    return _combined([_effects(sql, split(way), reads, definitions) for way in ways])


def _effects(
    sql: str, found: list[Statement], may_read: bool, definitions: Definitions | None
) -> Effects | None:
    if "%" in sql:
        _number_placeholders(sql, found)
    steps: list[AnyStep] = []
    for statement in found:
        steps += steps_of(statement)
        if definitions is not None:
            steps += definitions.steps_of(statement)
    reads = may_read and any(calls_of(statement, READERS) for statement in found)
    if not (steps or reads):
        return None
    heads = [statement[0].text for statement in found]
    may_commit = "do" in heads or "call" in heads
    return Effects(tuple(steps), len(found) == 1, reads, may_commit)


def _combined(ways: list[Effects | None]) -> Effects | None:
    """Return the effects of a text with several readings: whatever it may do in any of them."""
    effects = [way for way in ways if way is not None]
    if len(set(ways)) == 1:
        return ways[0]
    steps = dict.fromkeys(step for each in effects for step in each.repeated.resolve(None, None))
    reads = any(each.reads_sequence for each in effects)
    return Effects(tuple(steps), single=False, reads_sequence=reads, may_commit=True)


class Memo(dict[str, "Effects | None"]):
    """A cache of `classify`: one dictionary look-up for a text seen before.

    :param texts: the maximum number of texts.
    :param characters: the maximum length of a text. Longer texts are bulk statements, which take
        the server a thousand times as long as `classify`.
    """

    def __init__(self, texts: int = 10_000, characters: int = 4_000) -> None:
        super().__init__()
        self.texts, self.characters = texts, characters

    def __missing__(self, sql: str) -> Effects | None:
        effects = classify(sql)
        self.keep(sql, effects)
        return effects

    def keep(self, sql: str, effects: Effects | None) -> None:
        """Add the *effects* of a text that is not too long."""
        if len(sql) <= self.characters:
            if len(self) >= self.texts:
                # The SQL has values in its text, so no eviction order would help.
                self.clear()
            self[sql] = effects


EFFECTS = Memo()
#: Placeholders as psycopg finds them, even in strings and comments.
_PLACEHOLDER = re.compile(r"%%|%([sbt])")


def _number_placeholders(sql: str, found: list[Statement]) -> None:
    """Replace each ``%s`` with ``$1``, ``$2``, ..., or with ``$?`` if drivers count differently."""
    places = [
        (statement, position)
        for statement in found
        for position, token in enumerate(statement)
        if token[0] is PARAMETER and token.text in ("%s", "%b", "%t")
    ]
    # The driver refuses a text that also has placeholders with names.
    agreed = len(places) == sum(map(bool, _PLACEHOLDER.findall(sql)))
    for number, (statement, position) in enumerate(places, 1):
        statement[position] = Token(PARAMETER, f"${number}" if agreed else "$?")
