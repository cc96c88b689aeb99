"""Closure: the effects of everything that calls, writes or reads what has effects.

A function has those of the functions that it calls and the tables that it writes; a table those of
its triggers, defaults and constraints, of its partitions, and of tables that a foreign key makes
follow it; a view those of what it reads. Cycles are allowed: effects are only ever added.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property

from relet.core.sql.effects import Change, Kind
from relet.core.sql.functions import KINDS
from relet.core.sql.names import is_temporary_schema
from relet.core.sql.redefinitions import (
    REDEFINES,
    body_creates,
    body_defines,
    body_may_define,
    changes_path,
)

from . import extensions
from .bodies import Body, may_have_effects, words_of
from .names import (
    CASCADE,
    DELETE,
    INSERT,
    REWRITE,
    SELECT,
    TRUNCATE,
    UPDATE,
    VERBS,
    BySchema,
    Catalogue,
    is_word,
    spellings,
)
from .queries import TEMPORARY_SCHEMA, Relations, Routine, Sources

#: An object, by its catalogue and number, or what is done with a relation, by its number.
Node = tuple[str, str]

_PROC, _TYPE, _OPERATOR, _CLASS = "pg_proc", "pg_type", "pg_operator", "pg_class"
#: The node of a trigger that runs at COMMIT, and of the key of a partitioned table.
_DEFERRED, _KEY = "deferred", "key"
#: When a table's own expressions run.
_OWN = (INSERT, UPDATE, REWRITE)
_WRITES = (INSERT, UPDATE, DELETE, TRUNCATE, CASCADE)
#: What writing a row leaves that is not told of, as with a serial column: nobody reads the value of
#: the sequence but whoever wrote the row.
NOT_OF_WRITES = {Kind.SEQUENCE}
#: pg_trigger.tgtype: the bits of the events.
#: https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_trigger.h
_EVENTS = {4: INSERT, 8: DELETE, 16: UPDATE, 32: TRUNCATE}
#: pg_rewrite.ev_type, and pg_policy does the same for all commands.
_RULES = {"1": SELECT, "2": UPDATE, "3": INSERT, "4": DELETE}
#: pg_constraint.confdeltype and confupdtype: what happens to the rows that refer to the row.
_ACTIONS = {"c": None, "n": UPDATE, "d": UPDATE}
#: A kind, whether it is undone, and whether it renames: of each, one change is enough.
Key = tuple[Kind, bool, bool]


class Closure:
    """Judges the definitions of one database.

    Call `judge`. If its result is true, `relate` needs the relations, too.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._effects: dict[Node, dict[Key, Change]] = defaultdict(dict)
        #: Node -> what has its effects, too, and what to call the reason.
        self._users: dict[Node, list[tuple[Node, str]]] = defaultdict(list)
        #: What is judged: its node, its source, and that in lower case.
        self._judged = [
            ((_PROC, routine.oid), routine, routine.source.lower()) for routine in sources.routines
        ]
        #: The words in each of them, once a name is looked for; None if they may be any.
        self._words: list[frozenset[bytes] | None] = []
        #: By position in these, the bodies that were read.
        self._bodies: dict[int, Body] = {}
        self._routines = {routine.oid: routine for routine in sources.routines}
        self._runners = {
            routine.name: extensions.RUNNERS[routine.name]
            for routine in sources.routines
            if routine.language == "c" and routine.name in extensions.RUNNERS
        }
        #: Number of a relation -> its schema and name.
        self._names: dict[str, tuple[str, str]] = {}
        self._types: dict[str, str] = {}
        self._operators: dict[str, str] = {}
        self._definitions: list[tuple[str, str]] = []

    def judge(self) -> bool:
        """Judge each source alone; return whether anything at all has effects."""
        for position, (node, routine, lowered) in enumerate(self._judged):
            if routine.language == "c":
                kind = extensions.kind_of(routine.name)
                if kind is not None:
                    origin = f"called in function {routine.title}"
                    self._add(node, [Change(kind, None, origin=origin)])
            elif may_have_effects(lowered) or body_may_define(routine.source, lowered):
                body = self._bodies[position] = Body(routine, lowered)
                self._add(node, body.own)
                self._add(node, self._made(routine, body))
        for catalogue, oid, function in self._sources.expressions:
            kind = KINDS[function]
            if kind not in NOT_OF_WRITES or catalogue in ("pg_rewrite", _PROC):
                self._add((catalogue, oid), [Change(kind, None)])
        return (
            bool(self._effects)
            or self._sources.relations > 0
            or any(routine.language == "c" for routine in self._sources.routines)
        )

    def _made(self, routine: Routine, body: Body) -> Iterator[Change]:
        """Yield what the definitions in *body* leave."""
        origin = f"called in function {routine.title}"
        if body_defines(body.statements):
            yield REDEFINES._replace(origin=origin)
        if (self._any_creates_temporary or self._creates_temporary(routine)) and body_creates(
            body.statements
        ):
            yield Change(Kind.TEMPORARY, None, origin=origin)

    @cached_property
    def _any_creates_temporary(self) -> bool:
        """Whether a function may be called by another one that makes temporary objects."""
        return self._sources.path.temporary or any(
            routine.path[:1] == [TEMPORARY_SCHEMA] for routine in self._sources.routines
        )

    def _creates_temporary(self, routine: Routine) -> bool:
        """Return whether what *routine* creates without a schema may be temporary.

        It is made in the first schema of the search path that exists.
        """
        for schema in routine.path:
            if is_temporary_schema(schema):
                return True
            if schema in self._schemas:
                return False
        return False

    @cached_property
    def _schemas(self) -> frozenset[str]:
        """The schemas that are known to exist."""
        return self._sources.path.schemas | {routine.schema for routine in self._sources.routines}

    @property
    def changes_path(self) -> bool:
        """Whether a function may change the search path for what follows its call."""
        return any(changes_path(routine.source, lowered) for _, routine, lowered in self._judged)

    def relate(self, relations: Relations | None) -> Catalogue:
        """Follow calls, writes and reads to their end; return what has effects."""
        if relations is not None:
            self._link(relations)
        searched: dict[str, int] = {}
        while True:
            self._spread()
            catalogue = self._catalogue()
            weights = catalogue.weights
            new = [name for name, weight in weights.items() if searched.get(name) != weight]
            if not new or not self._search(catalogue, new):
                return catalogue
            searched = weights

    def _add(self, node: Node, changes: Iterable[Change], origin: str = "") -> bool:
        """Add *changes* to those of *node*; return whether one of them is new."""
        known = self._effects.get(node)
        grown = False
        for change in changes:
            key = (change.kind, change.undoes, change.renames)
            if known is None:
                known = self._effects[node]
            if key not in known:
                known[key] = change._replace(origin=origin or change.origin)
                grown = True
        return grown

    def _spread(self) -> None:
        """Give every node the effects of what it uses."""
        pending = list(self._effects)
        while pending:
            node = pending.pop()
            changes = list(self._effects[node].values())
            for user, origin in self._users.get(node, ()):
                kept = changes
                if user[0] in _WRITES:
                    kept = [change for change in changes if change.kind not in NOT_OF_WRITES]
                elif user[0] == _DEFERRED and any(not change.undoes for change in changes):
                    # After anything that undoes its effects now.
                    kept = [*changes, Change(Kind.UNKNOWN, None, origin=changes[0].origin)]
                if self._add(user, kept, origin):
                    pending.append(user)

    def _search(self, catalogue: Catalogue, new: list[str]) -> bool:
        """Judge again each body that mentions one of *new*; return whether any has new effects.

        Whoever calls a function can have changed the search path, as its own SET clause does.
        """
        catalogue = catalogue.anywhere
        single = frozenset(name.encode(errors="replace") for name in new if is_word(name))
        parts = [part for name in new if not is_word(name) for part in spellings(name)]
        if len(self._words) < len(self._judged):
            self._words = [self._words_of(position) for position in range(len(self._judged))]
        mentioning = {
            position
            for position, words in enumerate(self._words)
            if words is None or not single.isdisjoint(words)
        }
        if parts:
            mentioning.update(
                position
                for position, (_, _, lowered) in enumerate(self._judged)
                if any(part in text for text in self._texts(position, lowered) for part in parts)
            )
        grown = False
        for position in mentioning.union(self._with_unknown_names()):
            node, routine, lowered = self._judged[position]
            if routine.language == "c":
                continue
            body = self._bodies.get(position)
            if body is None:
                body = self._bodies[position] = Body(routine, lowered)
            origin = f"called in function {routine.title}"
            changes = [
                change if change.origin else change._replace(origin=origin)
                for change in body.changes(catalogue, every=position in mentioning)
            ]
            grown |= self._add(node, changes)
        return grown

    def _words_of(self, position: int) -> frozenset[bytes] | None:
        """Return the words of a source and its texts; None if it may hide some with escapes."""
        _, _, lowered = self._judged[position]
        if "\\" in lowered or 'u&"' in lowered:
            return None
        return frozenset().union(*map(words_of, self._texts(position, lowered)))

    def _texts(self, position: int, lowered: str) -> list[str]:
        """Return a source in lower case, and the texts that it may run."""
        body = self._bodies.get(position)
        return [lowered] if body is None else [lowered, *map(str.lower, body.texts)]

    def _with_unknown_names(self) -> list[int]:
        return [position for position, body in self._bodies.items() if body.with_unknown_names]

    # Relations.

    def _link(self, found: Relations) -> None:
        self._names = {oid: (schema, name) for oid, schema, name, *_ in found.relations}
        secured = {oid for oid, _, _, _, row_security in found.relations if row_security[:1] == "t"}
        # Their query runs when they are refreshed.
        materialized = {oid for oid, _, _, kind, _ in found.relations if kind == "m"}
        objects = self._link_objects(found.objects, secured)
        views: dict[str, str] = {}
        for oid, relation, name, event, _ in found.rules:
            verb = _RULES[event]
            title = self._title(relation)
            origin = f"by view {title}" if verb == SELECT else f"by rule {name} on table {title}"
            rule = ("pg_rewrite", oid)
            if relation not in materialized:
                self._use(rule, (verb, relation), origin)
            objects[rule] = []
            if verb == SELECT:
                self._use(rule, (REWRITE, relation), origin)
                views[oid] = relation
        self._judge_rules(found.rules)
        for catalogue, oid, used_catalogue, used_oid in found.uses:
            user, used = (_bare(catalogue), oid), (_bare(used_catalogue), used_oid)
            if used[0] == _CLASS:
                if oid in views:
                    self._link_view(views[oid], used_oid, user)
                elif user[0] == _TYPE:
                    self._use((INSERT, used_oid), user, "")
            elif user in objects or user[0] in (_PROC, _OPERATOR, _TYPE, "pg_trigger"):
                self._use(used, user, "")
            elif user[0] == _CLASS:  # by a column, or the key of its partitions
                self._use(used, (_KEY, oid), "")
                for verb in _OWN:
                    self._use((_KEY, oid), (verb, oid), "")
        for relation, name, function, kind, deferrable, oid in found.triggers:
            self._link_trigger(relation, name, function, int(kind), deferrable[:1] == "t", oid)
        for parent, child in found.inherits:
            for verb in (*_WRITES, REWRITE):
                self._use((verb, child), (verb, parent), "")
            # Each partition checks that its rows have the right key.
            self._use((_KEY, parent), (_KEY, child), "")
            for verb in _OWN:
                self._use((_KEY, child), (verb, child), "")
            # A row can move to another partition.
            self._use((INSERT, child), (UPDATE, parent), "")
            self._use((DELETE, child), (UPDATE, parent), "")
        for referred, referring, on_delete, on_update in found.keys:
            self._use((TRUNCATE, referring), (CASCADE, referred), "")
            self._use((CASCADE, referring), (CASCADE, referred), "")
            if on_delete in _ACTIONS:
                self._use((_ACTIONS[on_delete] or DELETE, referring), (DELETE, referred), "")
            if on_update in _ACTIONS:
                self._use((UPDATE, referring), (UPDATE, referred), "")
        for name, event, function in found.event_triggers:
            if event != "login":  # it has run before relet gets the connection
                self._definitions.append((function, f"by event trigger {name}"))

    def _use(self, used: Node, user: Node, origin: str) -> None:
        self._users[used].append((user, origin))

    def _title(self, relation: str) -> str:
        return ".".join(self._names.get(relation, ("?",)))

    def _link_objects(self, objects: list[list[str]], secured: set[str]) -> dict[Node, list[str]]:
        """Link defaults, constraints, indexes and policies to their tables."""
        known: dict[Node, list[str]] = {}
        for catalogue, oid, owner, name in objects:
            node = (catalogue, oid)
            known[node] = []
            title = self._title(owner)
            if catalogue == _OPERATOR:
                self._operators[oid] = name
            elif catalogue == _TYPE:
                self._types[oid] = name
            elif catalogue == "pg_cast":
                self._use(node, (_TYPE, owner), "by a cast")
            elif catalogue == "pg_policy":
                if owner in secured:
                    for verb in (SELECT, INSERT, UPDATE, DELETE):
                        self._use(node, (verb, owner), f"by policy {name} on table {title}")
            elif owner not in self._names:
                self._use(node, (_TYPE, owner), f"by constraint {name}")
            else:
                what = {
                    "pg_attrdef": f"by a default of table {title}",
                    "pg_constraint": f"by constraint {name} on table {title}",
                    "pg_statistic_ext": f"by statistics {name} on table {title}",
                    _CLASS: f"by index {name} on table {title}",
                }[catalogue]
                for verb in (REWRITE,) if catalogue == "pg_statistic_ext" else _OWN:
                    self._use(node, (verb, owner), what)
                if catalogue == _CLASS:
                    self._use(("pg_index", oid), node, "")
                    self._names[oid] = (self._names[owner][0], name)
                    self._use(node, (REWRITE, oid), what)  # REINDEX INDEX
        return known

    def _link_view(self, view: str, used: str, rule: Node) -> None:
        """Link *view* to a relation that its query reads.

        A view that can be updated writes it, too.
        """
        if view == used:
            return
        self._use((SELECT, used), rule, "")
        for verb in _WRITES:
            self._use((verb, used), (verb, view), "")
        self._use((SELECT, used), (REWRITE, view), "")

    def _link_trigger(
        self, relation: str, name: str, function: str, kind: int, deferrable: bool, oid: str
    ) -> None:
        origin = f"by trigger {name} on table {self._title(relation)}"
        if deferrable:
            self._use((_PROC, function), (_DEFERRED, oid), "")
        for bit, verb in _EVENTS.items():
            if kind & bit:
                self._use((_PROC, function), (verb, relation), origin)
                self._use(("pg_trigger", oid), (verb, relation), origin)
                self._use((_DEFERRED, oid), (verb, relation), origin)

    def _judge_rules(self, rules: list[list[str]]) -> None:
        """Judge the actions of rules as if they were functions."""
        for oid, _, name, _, source in rules:
            if source:
                routine = Routine(oid, "rule", name, "sql", "r", "", "", False, source)
                node, lowered = ("pg_rewrite", oid), source.lower()
                self._judged.append((node, routine, lowered))
                body = self._bodies[len(self._judged) - 1] = Body(routine, lowered)
                self._add(node, body.own)

    # The result.

    def _catalogue(self) -> Catalogue:
        functions: dict[str, BySchema] = {}
        attributes: set[str] = set()
        relations: dict[str, dict[str, BySchema]] = {}
        for (what, oid), found in self._effects.items():
            changes = tuple(found.values())
            if what == _PROC:
                routine = self._routines[oid]
                by_schema = functions.setdefault(routine.name, {})
                known = by_schema.get(routine.schema)
                by_schema[routine.schema] = changes if not known else _together(known, changes)
                if routine.of_row:
                    attributes.add(routine.name)
            elif what in VERBS and oid in self._names:
                schema, name = self._names[oid]
                relations.setdefault(what, {}).setdefault(name, {})[schema] = changes
        return Catalogue(
            functions,
            frozenset(attributes),
            self._runners,
            relations,
            dict(self._named(_TYPE, self._types)),
            dict(self._named(_OPERATOR, self._operators)),
            tuple(
                change._replace(origin=origin)
                for function, origin in self._definitions
                for change in self._effects.get((_PROC, function), {}).values()
            ),
            self._sources.path.schemas,
        )

    def _named(
        self, catalogue: str, names: dict[str, str]
    ) -> Iterator[tuple[str, tuple[Change, ...]]]:
        found: dict[str, tuple[Change, ...]] = {}
        for oid, name in names.items():
            if changes := self._effects.get((catalogue, oid)):
                found[name] = _together(found.get(name, ()), changes.values())
        yield from found.items()


def _together(first: Iterable[Change], second: Iterable[Change]) -> tuple[Change, ...]:
    found: dict[Key, Change] = {}
    for change in (*first, *second):
        found.setdefault((change.kind, change.undoes, change.renames), change)
    return tuple(found.values())


def _bare(catalogue: str) -> str:
    return catalogue.rpartition(".")[2]
