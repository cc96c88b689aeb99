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
from relet.core.sql.functions import KINDS, RUNNERS
from relet.core.sql.lexer import CONTINUED
from relet.core.sql.lines import Lines, words_of
from relet.core.sql.names import is_temporary_schema
from relet.core.sql.redefinitions import (
    REDEFINES,
    any_changes_path,
    any_text_changes_path,
    bodies_that_may_define,
    body_creates,
    body_defines,
)

from . import extensions
from .bodies import Body, may_set
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
AllEffects = dict[Node, dict[Key, Change]]


class Closure:
    """Judges the definitions of one database.

    Call `judge`. If its result is true, `relate` needs the relations, too.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._effects: AllEffects = defaultdict(dict)
        #: Node -> what has its effects, too, and what to call the reason.
        self._users: dict[Node, list[tuple[Node, str]]] = defaultdict(list)
        #: What is judged: the routines, and later the actions of rules.
        self._judged = list(sources.routines)
        self._lines = Lines(routine.source for routine in self._judged)
        #: By position in these, those that may have effects without dynamic SQL, and the bodies
        #: that were read.
        self._may_set = may_set(self._lines)
        self._bodies: dict[int, Body] = {}
        #: The words that were looked for; one of them -> the positions of what mentions it; and
        #: those of what may mention any word.
        self._looked_for: set[bytes] = set()
        self._mentions: dict[bytes, set[int]] = {}
        self._mentions_any: set[int] = set()
        self._routines = {routine.oid: routine for routine in sources.routines}
        self._runners: dict[str, tuple[int, ...]] = {}
        #: Number of a relation -> its schema and name.
        self._names: dict[str, tuple[str, str]] = {}
        self._types: dict[str, str] = {}
        self._operators: dict[str, str] = {}
        self._definitions: list[tuple[str, str]] = []

    def judge(self) -> bool:
        """Judge each source alone; return whether anything at all has effects."""
        to_read = self._may_set | self._lines.having("execute")
        to_read |= bodies_that_may_define(self._lines)
        for position in sorted(to_read):
            routine = self._judged[position]
            if not routine.is_compiled:
                body = self._body(position)
                self._add((_PROC, routine.oid), (*body.own, *self._made(routine, body)))
        for routine in self._judged:
            if routine.is_compiled:
                self._judge_compiled(routine)
        for catalogue, oid, function in self._sources.expressions:
            kind = KINDS[function]
            if kind not in NOT_OF_WRITES or catalogue in ("pg_rewrite", _PROC):
                self._add((catalogue, oid), [Change(kind, None)])
        return bool(self._effects or self._sources.relations or self._runners)

    def _judge_compiled(self, routine: Routine) -> None:
        """Judge a function in C by what is known of it."""
        kind, places = extensions.kind_of(routine.name), extensions.RUNNERS.get(routine.name)
        if kind is None and places is None:
            name = extensions.SYMBOLS.get(routine.source, "")
            kind, places = extensions.kind_of(name), extensions.RUNNERS.get(name)
        if routine.language == "internal" and routine.source:
            kind, places = KINDS[routine.source], RUNNERS.get(routine.source)
        if places is not None:
            known = self._runners.get(routine.name, ())
            self._runners[routine.name] = tuple(dict.fromkeys((*known, *places)))
        elif kind is not None:
            origin = f"called in function {routine.title}"
            self._add((_PROC, routine.oid), [Change(kind, None, origin=origin)])

    def _body(self, position: int) -> Body:
        """Return the body at *position*, which is read once."""
        body = self._bodies.get(position)
        if body is None:
            body = Body(self._judged[position], may_set=position in self._may_set)
            self._bodies[position] = body
        return body

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
            routine.settings and routine.path[:1] == [TEMPORARY_SCHEMA]
            for routine in self._sources.routines
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
        texts = (text for body in self._bodies.values() for text in body.texts)
        return any_changes_path(self._lines) or any_text_changes_path(texts)

    def relate(self, relations: Relations | None) -> Catalogue:
        """Follow calls, writes and reads to their end; return what has effects."""
        if relations is not None:
            self._link(relations)
        searched: dict[str, int] = {}
        while True:
            self._spread(self._effects)
            catalogue = self._catalogue(self._effects)
            weights = catalogue.weights
            new = [name for name, weight in weights.items() if searched.get(name) != weight]
            if not new or not self._search(catalogue, new):
                break
            searched = weights
        if planned := self._planned():
            self._spread(planned)
            return self._catalogue(self._effects, self._catalogue(planned))
        return catalogue

    def _planned(self) -> AllEffects:
        """Return the effects of what the planner may run."""
        return defaultdict(
            dict,
            {
                (_PROC, oid): dict(found)
                for oid, routine in self._routines.items()
                if routine.is_planned and (found := self._effects.get((_PROC, oid)))
            },
        )

    def _add(self, node: Node, changes: Iterable[Change], origin: str = "") -> bool:
        """Add *changes* to those of *node*; return whether one of them is new."""
        return _add_to(self._effects, node, changes, origin)

    def _spread(self, effects: AllEffects) -> None:
        """Give every node the *effects* of what it uses."""
        pending = list(effects)
        while pending:
            node = pending.pop()
            changes = list(effects[node].values())
            for user, origin in self._users.get(node, ()):
                kept = changes
                if user[0] in _WRITES:
                    kept = [change for change in changes if change.kind not in NOT_OF_WRITES]
                elif user[0] == _DEFERRED and any(not change.undoes for change in changes):
                    # After anything that undoes its effects now.
                    kept = [*changes, Change(Kind.UNKNOWN, None, origin=changes[0].origin)]
                if _add_to(effects, user, kept, origin):
                    pending.append(user)

    def _search(self, catalogue: Catalogue, new: list[str]) -> bool:
        """Judge again each body that mentions one of *new*; return whether any has new effects.

        Whoever calls a function can have changed the search path, as its own SET clause does.
        """
        catalogue = catalogue.anywhere
        mentioning = self._mentioning(new)
        grown = False
        for position in mentioning.union(self._with_unknown_names()):
            routine = self._judged[position]
            if routine.is_compiled:
                continue
            origin = f"called in function {routine.title}"
            changes = [
                change if change.origin else change._replace(origin=origin)
                for change in self._body(position).changes(catalogue, every=position in mentioning)
            ]
            grown |= self._add(self._node(position), changes)
        return grown

    def _node(self, position: int) -> Node:
        of_rule = position >= len(self._sources.routines)
        return ("pg_rewrite" if of_rule else _PROC, self._judged[position].oid)

    def _mentioning(self, names: list[str]) -> set[int]:
        """Return the positions of the sources that mention one of *names*, in lower case."""
        words = {name.encode(errors="replace") for name in names if is_word(name)}
        if not words <= self._looked_for:
            self._index(words)
        found = self._mentions_any.union(*(self._mentions.get(word, ()) for word in words))
        for part in [part for name in names if not is_word(name) for part in spellings(name)]:
            found |= self._lines.having(part)
            found.update(
                position
                for position, body in self._bodies.items()
                if any(part in text.lower() for text in body.texts)
            )
        return found

    def _index(self, words: set[bytes]) -> None:
        """Look for *words*, and whatever else may come to have effects, in all sources."""
        names = {routine.name for routine in self._judged}
        names.update(name for _, name in self._names.values())
        self._looked_for |= words
        self._looked_for.update(name.lower().encode(errors="replace") for name in names)
        self._mentions = self._lines.mentions(self._looked_for)
        for position, body in self._bodies.items():
            for text in body.texts:
                for word in self._looked_for.intersection(words_of(text.lower())):
                    self._mentions.setdefault(word, set()).add(position)
        # These may hide a word with escapes, or in the pieces of a string that is run.
        having = self._lines.having
        self._mentions_any = having("\\") | having('u&"') | having("u&'")
        for position in having("do").union(*map(having, (*RUNNERS, *self._runners))):
            if CONTINUED.search(self._lines.texts[position]):
                self._mentions_any.add(position)

    def _with_unknown_names(self) -> list[int]:
        return [position for position, body in self._bodies.items() if body.with_unknown_names]

    # Relations.

    def _link(self, found: Relations) -> None:
        for oid, schema, name, of_row, of_planner in found.compiled:
            routine = Routine(oid, schema, name, "c", "", of_row, of_planner, "", "")
            self._routines.setdefault(oid, routine)
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
            objects.add(rule)
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

    def _link_objects(self, objects: list[list[str]], secured: set[str]) -> set[Node]:
        """Link defaults, constraints, indexes and policies to their tables."""
        known: set[Node] = set()
        for catalogue, oid, owner, name in objects:
            node = (catalogue, oid)
            known.add(node)
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
        nodes = [("pg_trigger", oid), (_DEFERRED, oid)] if deferrable else [("pg_trigger", oid)]
        for node in nodes:
            self._use((_PROC, function), node, "")
            for bit, verb in _EVENTS.items():
                if kind & bit:
                    self._use(node, (verb, relation), origin)

    def _judge_rules(self, rules: list[list[str]]) -> None:
        """Judge the actions of rules as if they were functions."""
        actions = [
            Routine(oid, "rule", name, "sql", "", "f", "f", "", source)
            for oid, _, name, _, source in rules
            if source
        ]
        if not actions:
            return
        first = len(self._judged)
        self._judged += actions
        self._lines = Lines(routine.source for routine in self._judged)
        self._may_set = may_set(self._lines)
        for position in range(first, len(self._judged)):
            self._add(self._node(position), self._body(position).own)

    # The result.

    def _catalogue(self, effects: AllEffects, planned: Catalogue | None = None) -> Catalogue:
        functions: dict[str, BySchema] = {}
        attributes: set[str] = set()
        relations: dict[str, dict[str, BySchema]] = {}
        for (what, oid), found in effects.items():
            changes = tuple(found.values())
            if what == _PROC:
                # Temporary functions are not read, and others may have been made in the meantime.
                routine = self._routines.get(oid)
                if routine is None:
                    continue
                by_schema = functions.setdefault(routine.name, {})
                known = by_schema.get(routine.schema)
                by_schema[routine.schema] = changes if not known else _together(known, changes)
                if routine.takes_row:
                    attributes.add(routine.name)
            elif what in VERBS and oid in self._names:
                schema, name = self._names[oid]
                relations.setdefault(what, {}).setdefault(name, {})[schema] = changes
        return Catalogue(
            functions,
            frozenset(attributes),
            self._runners,
            relations,
            dict(_named(effects, _TYPE, self._types)),
            dict(_named(effects, _OPERATOR, self._operators)),
            tuple(
                change._replace(origin=origin)
                for function, origin in self._definitions
                for change in effects.get((_PROC, function), {}).values()
            ),
            self._sources.path.schemas,
            planned,
        )


def _add_to(effects: AllEffects, node: Node, changes: Iterable[Change], origin: str) -> bool:
    """Add *changes* to those of *node* in *effects*; return whether one of them is new."""
    known = effects.get(node)
    grown = False
    for change in changes:
        key = (change.kind, change.undoes, change.renames)
        if known is None:
            known = effects[node]
        if key not in known:
            known[key] = change._replace(origin=origin or change.origin)
            grown = True
    return grown


def _named(
    effects: AllEffects, catalogue: str, names: dict[str, str]
) -> Iterator[tuple[str, tuple[Change, ...]]]:
    found: dict[str, tuple[Change, ...]] = {}
    for oid, name in names.items():
        if changes := effects.get((catalogue, oid)):
            found[name] = _together(found.get(name, ()), changes.values())
    yield from found.items()


def _together(first: Iterable[Change], second: Iterable[Change]) -> tuple[Change, ...]:
    found: dict[Key, Change] = {}
    for change in (*first, *second):
        found.setdefault((change.kind, change.undoes, change.renames), change)
    return tuple(found.values())


def _bare(catalogue: str) -> str:
    return catalogue.rpartition(".")[2]
