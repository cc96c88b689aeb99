"""Queries: the SQL that reads a database's definitions, and the rows that it returns.

Each part of an answer is one text, in which records and fields are set apart by separators: a
driver takes a hundred times as long for a row as Python does to split a text. All names have
their schema, because the session's ``search_path`` can be anything.

https://www.postgresql.org/docs/current/catalogs.html
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from relet.core.sql.functions import KINDS
from relet.core.sql.names import is_temporary_schema
from relet.core.sql.quoting import quote_literal

from . import extensions

#: Objects below this number are PostgreSQL's own. A literal takes the type of what it is compared
#: with. For a number, the server would first read all operators of the name, in each new session.
#: https://www.postgresql.org/docs/current/system-catalog-initial-data.html
_FIRST_OID = "'16384'"
#: The version in which functions in SQL can have a body that is no string.
_WITH_SQL_BODIES = 140000
#: The version in which statistics can have expressions.
_WITH_EXPRESSIONS_IN_STATISTICS = 140000
#: What each session calls the schema of its own temporary objects.
TEMPORARY_SCHEMA = "pg_temp"

#: Catalogues whose rows all have dependencies, which are written anew when the row changes.
_DEPENDENT = ("pg_attrdef", "pg_policy", "pg_operator", "pg_cast", "pg_statistic_ext")


def _catalogues(*names: str) -> str:
    """Return SQL for the numbers of system catalogues, of the type that they are compared with."""
    return ", ".join(f"'pg_catalog.{name}'::pg_catalog.regclass::pg_catalog.oid" for name in names)


#: Which transactions have written the rows: a definition that changes is written anew.
_WRITERS = "pg_catalog.sum(xmin::text::int8)"
#: The system catalogues whose rows say what there is, which rows count, and what changes if one of
#: them does, beside their number. Other definitions come with one of these.
_WATCHED = {
    "pg_proc": (f"oid >= {_FIRST_OID}", _WRITERS),
    "pg_trigger": ("NOT tgisinternal", _WRITERS),
    "pg_rewrite": (f"oid >= {_FIRST_OID}", _WRITERS),
    "pg_constraint": (f"oid >= {_FIRST_OID} AND contype IN ('c', 'f', 'x')", _WRITERS),
    "pg_type": (
        f"oid >= {_FIRST_OID} AND (typtype IN ('d', 'e', 'r') OR typdefaultbin IS NOT NULL)",
        _WRITERS,
    ),
    "pg_event_trigger": ("true", _WRITERS),
    "pg_inherits": ("true", _WRITERS),
    # What uses a function or a domain, such as an index or a column, and what is only told by its
    # dependencies, which takes less than to ask each catalogue.
    "pg_depend": (
        (
            f"deptype <> 'i' AND (refclassid = {_catalogues('pg_proc')}"
            f" AND refobjid >= {_FIRST_OID}"
            f" OR refclassid = {_catalogues('pg_type')}"
            " AND refobjid = ANY (ARRAY(SELECT oid FROM pg_catalog.pg_type"
            f" WHERE oid >= {_FIRST_OID} AND typtype = 'd'))"
            f" OR refclassid = {_catalogues('pg_opclass')} AND refobjid >= {_FIRST_OID}"
            f" OR classid IN ({_catalogues(*_DEPENDENT)}) AND objid >= {_FIRST_OID})"
        ),
        _WRITERS,
    ),
    # TRUNCATE and the like write the row of a table, too, so of most tables only the name counts.
    "pg_class": (
        f"oid >= {_FIRST_OID} AND relpersistence <> 't' AND relkind IN ('r', 'p', 'v', 'm', 'f')",
        (
            f"{_WRITERS} FILTER"
            " (WHERE relhastriggers OR relhasrules OR relrowsecurity OR relkind = 'p'),"
            " pg_catalog.sum((pg_catalog.hashname(relname)"
            " # pg_catalog.hashoid(relnamespace))::int8 * oid::int8)"
        ),
    ),
    "pg_namespace": (
        "NOT pg_catalog.starts_with(nspname, 'pg_')",
        "pg_catalog.sum(pg_catalog.hashname(nspname)::int8 * oid::int8)",
    ),
}
#: Of each, how many rows there are, and whether one was changed. It is one row, and takes the
#: server a few milliseconds.
SIGNATURE = (
    "SELECT pg_catalog.current_setting('server_version_num'),"
    " pg_catalog.current_setting('transaction_isolation'),"
    " pg_catalog.array_to_json(pg_catalog.current_schemas(true))::text,"
    " pg_catalog.array_to_json(pg_catalog.current_schemas(false))::text,"
    " pg_catalog.concat_ws(' ', "
    + ", ".join(
        f"(SELECT pg_catalog.concat_ws(':', pg_catalog.count(*), {changes})"
        f" FROM pg_catalog.{name} WHERE {which})"
        for name, (which, changes) in _WATCHED.items()
    )
    + ")"
)


class SearchPath(NamedTuple):
    """Where names without a schema are looked up, and where objects without one are created.

    :param schemas: the schemas that exist, and ``pg_temp``.
    :param temporary: whether what is created without a schema is temporary.
    """

    schemas: frozenset[str] = frozenset()
    temporary: bool = False


class Signature(NamedTuple):
    """What `SIGNATURE` says.

    :param version: the server's ``server_version_num``.
    :param isolation: the level of the transaction.
    :param path: the search path.
    :param text: equal to that of before if nothing has changed.
    """

    version: int
    isolation: str
    path: SearchPath
    text: str

    @property
    def present(self) -> frozenset[str]:
        """The system catalogues that have a row that counts."""
        parts = zip(_WATCHED, self.text.split(" "), strict=True)
        return frozenset(name for name, part in parts if part != "0")


def read_signature(rows: Iterable[Sequence[Any]]) -> Signature:
    """Return what the row of `SIGNATURE` says."""
    ((version, isolation, schemas, named, text),) = map(_decoded, rows)
    # Those of some sessions have pg_temp, those of others do not have it yet.
    path = frozenset({TEMPORARY_SCHEMA, *map(_schema, json.loads(schemas or "[]"))})
    creates_in = map(_schema, json.loads(named or "[]")[:1])
    return Signature(
        int(version), isolation, SearchPath(path, TEMPORARY_SCHEMA in creates_in), text
    )


def _schema(name: str) -> str:
    """Return *name*, or the one by which every session calls its own temporary objects."""
    return TEMPORARY_SCHEMA if is_temporary_schema(name) else name


class Separators:
    """What ends a field and a record. No definition has them in it, because they are random."""

    def __init__(self) -> None:
        self.fields = f"\x1f{os.urandom(4).hex()}\x1f"
        self.between = f"\x1e{os.urandom(4).hex()}\x1e"

    def records(self, values: Sequence[str], source: str) -> str:
        """Return SQL for the records of *source*, each made of *values*, in one text."""
        shown = f" || {quote_literal(self.fields)} || ".join(
            f"coalesce(({value})::text, '')" for value in values
        )
        return f"SELECT pg_catalog.string_agg({shown}, {quote_literal(self.between)}) {source}"

    def split(self, text: str, count: int = -1) -> list[list[str]]:
        """Return the fields of each record in *text*.

        :param count: how many of them to split off. The last one may be long.
        """
        if not text:
            return []
        return [record.split(self.fields, count) for record in text.split(self.between)]


#: The server locks the tables that rules and functions in standard SQL name, to show their text.
#: Whoever has one of them locked may wait for this thread. This limit runs first and holds for the
#: rest of the query. SET LOCAL would need a transaction, which PgBouncer may refuse.
_LIMIT = "SELECT '', pg_catalog.set_config('lock_timeout', '100ms', true)"


def _query(parts: Iterable[tuple[str, str]]) -> str:
    """Return the SQL whose rows `_parts` takes; nothing if there are no *parts*."""
    selects = [f"SELECT '{name}', part.text FROM ({sql}) AS part (text)" for name, sql in parts]
    return "\nUNION ALL ".join((_LIMIT, *selects)) if selects else ""


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(quote_literal, names))


class Routine(NamedTuple):
    """A function, procedure or aggregate, as the fields of its record.

    :param parameters: the names of its parameters, with spaces between; on another line, the
        numbers of their types.
    :param of_row: ``t`` if it takes one row, so that ``row.name`` calls it.
    :param of_planner: ``t`` if the planner may run it: for constants if it is immutable, and for
        estimates if it is stable.
    :param settings: what its ``SET`` clauses say, such as ``search_path=a, b``, one a line.
    :param source: in C, its library and its symbol; in ``internal``, the function of PostgreSQL's
        that it is.
    """

    oid: str
    schema: str
    name: str
    language: str
    parameters: str
    of_row: str
    of_planner: str
    settings: str
    source: str

    @property
    def takes_row(self) -> bool:
        return self.of_row[:1] == "t"

    @property
    def is_compiled(self) -> bool:
        return self.language in ("c", "internal")

    @property
    def is_planned(self) -> bool:
        return self.of_planner[:1] == "t"

    @property
    def title(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def types(self) -> dict[str, str]:
        """The names of the parameters, ``$1`` and so on, too, and the numbers of their types.

        A number is empty if it is not known.
        """
        names, _, numbers = self.parameters.partition("\n")
        types, named = numbers.split(), names.split(" ")
        if names and len(types) != len(named):  # there is a name with spaces in it
            return dict.fromkeys(self.parameters.split(), "")
        found = {f"${at}": number for at, number in enumerate(types, 1)}
        return {**found, **dict(zip(named, types, strict=False))}

    @property
    def path(self) -> list[str]:
        """The schemas of a search path of its own."""
        for line in self.settings.splitlines():
            name, _, value = line.partition("=")
            if name == "search_path":
                return [schema.strip().strip('"') for schema in value.split(",")]
        return []


class Sources(NamedTuple):
    """What is judged: the routines, and expressions that call functions of PostgreSQL's.

    :param path: the search path with which the pool's connections begin.
    :param expressions: the catalogue and the number of what has the expression, and the name of
        the function that it calls.
    """

    routines: tuple[Routine, ...]
    path: SearchPath
    expressions: tuple[tuple[str, str, str], ...]
    #: The views, rules and event triggers that are there at all.
    relations: int


def _calls(*columns: str) -> str:
    """Return SQL for the functions in *columns*, as in a tree."""
    return (
        "pg_catalog.concat(" + ", ".join(f"':funcid ', {each}::oid, ' '" for each in columns) + ")"
    )


def _trees(first: str, second: str) -> str:
    """Return SQL for the trees in two columns. Most indexes have neither."""
    both = f"pg_catalog.concat({first}::text, {second}::text)"
    return f"CASE WHEN coalesce({first}, {second}) IS NOT NULL THEN {both} END"


#: Where expressions are kept that are no text: catalogue -> the column, or columns; and the
#: catalogue that has a row if there is one. Expressions of indexes call no function of PostgreSQL's
#: that has effects, because those must be immutable.
_EXPRESSIONS = {
    # Not in pg_depend: what uses a function of PostgreSQL's.
    "pg_operator": (_calls("oprcode"), "pg_depend"),
    "pg_cast": (_calls("castfunc"), "pg_depend"),
    "pg_aggregate": (_calls("aggtransfn", "aggfinalfn", "aggmtransfn", "aggmfinalfn"), "pg_proc"),
    "pg_statistic_ext": ("stxexprs::text", "pg_depend"),
    "pg_rewrite": ("ev_action::text", "pg_rewrite"),
    "pg_attrdef": ("adbin::text", "pg_depend"),
    "pg_type": ("typdefaultbin::text", "pg_type"),
    "pg_constraint": ("conbin::text", "pg_constraint"),
    "pg_trigger": ("tgqual::text", "pg_trigger"),
    "pg_policy": (_trees("polqual", "polwithcheck"), "pg_depend"),
    "pg_index": (_trees("indexprs", "indpred"), "pg_proc"),
    "pg_proc": ("proargdefaults::text", "pg_proc"),
}


def sources_query(signature: Signature, separators: Separators) -> str:
    """Return the SQL whose rows `read_sources` takes; nothing if there is nothing to read.

    What is not there is not asked for: to plan the whole of it takes the server longer than to read
    what a database without functions has.
    """
    present, version = signature.present, signature.version
    parts = []
    if "pg_proc" in present:
        parts.append(("routines", _routines(version, separators)))
    kept = {
        catalogue: columns
        for catalogue, (columns, counted) in _EXPRESSIONS.items()
        if counted in present
        and (catalogue != "pg_statistic_ext" or version >= _WITH_EXPRESSIONS_IN_STATISTICS)
    }
    if kept:
        parts.append(("expressions", _expressions(kept, separators)))
    if "pg_rewrite" in present:
        count = (
            "SELECT ((SELECT pg_catalog.count(*) FROM pg_catalog.pg_rewrite"
            f" WHERE oid >= {_FIRST_OID} AND ev_type <> '1'))::text"
        )
        parts.append(("relations", count))
    return _query(parts)


#: About so many functions make one text.
_AT_ONCE = 64
#: Whether ``row.name`` calls a function: it also does if it takes any type, or has defaults for its
#: other arguments.
_OF_ROW = (
    "p.pronargs > 0 AND p.pronargs - p.pronargdefaults <= 1"
    " AND p.proargtypes[0] IN (SELECT oid FROM pg_catalog.pg_type WHERE typtype IN ('c', 'p'))"
)
#: The functions of PostgreSQL's that have effects. Others may have given them another name.
_BUILTIN = (
    "FROM pg_catalog.pg_proc b"
    " WHERE b.pronamespace = 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid"
    f" AND b.proname IN ({_quoted(KINDS)})"
)
_OF_PLANNER = "p.provolatile <> 'v' AND p.prokind = 'f'"


def _routines(version: int, separators: Separators) -> str:
    source = "p.prosrc"
    if version >= _WITH_SQL_BODIES:
        source = (
            "CASE WHEN p.prosqlbody IS NULL THEN p.prosrc"
            " ELSE pg_catalog.pg_get_function_sqlbody(p.oid) END"
        )
    source = (
        "CASE l.lanname WHEN 'c' THEN pg_catalog.concat("
        "pg_catalog.regexp_replace(p.probin, '^.*/|[.][a-z]+$', '', 'g'), ' ', p.prosrc)"
        f" WHEN 'internal' THEN (SELECT pg_catalog.min(b.proname::text) {_BUILTIN}"
        f" AND b.prosrc = p.prosrc) ELSE {source} END"
    )
    listed = f"p.proname IN ({_quoted(extensions.NAMES)})" + "".join(
        f" OR pg_catalog.starts_with(p.proname, {quote_literal(prefix)})"
        for prefix in extensions.PREFIXES
    )
    symbols = _quoted({known.partition(" ")[2]: None for known in extensions.SYMBOLS})
    return separators.records(
        (
            *("p.oid", "n.nspname", "p.proname", "l.lanname"),
            _PARAMETERS,
            *(_OF_ROW, _OF_PLANNER),
            "pg_catalog.array_to_string(p.proconfig, pg_catalog.chr(10))",
            source,
        ),
        "FROM pg_catalog.pg_proc p"
        " JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
        " JOIN pg_catalog.pg_language l ON l.oid = p.prolang"
        f" WHERE p.oid >= {_FIRST_OID} AND n.nspname !~ '^pg_temp_'"
        f" AND (l.lanname NOT IN ('c', 'internal') OR p.prokind = 'a' OR {listed}"
        f" OR (l.lanname = 'c' AND p.prosrc IN ({symbols}))"
        f" OR (l.lanname = 'internal' AND p.prosrc IN (SELECT b.prosrc {_BUILTIN})))"
        # The server moves a text again and again while it grows.
        f" GROUP BY p.oid::pg_catalog.int8 / {_AT_ONCE}",
    )


#: The names of a function's parameters, and the numbers of their types.
_PARAMETERS = (
    "pg_catalog.concat(pg_catalog.array_to_string(p.proargnames, ' '), pg_catalog.chr(10),"
    " pg_catalog.array_to_string(coalesce(p.proallargtypes, p.proargtypes::oid[]), ' '))"
)

#: The column with the number of what a row belongs to, and its catalogue, where these differ.
_NUMBERS = {"pg_index": "indexrelid", "pg_aggregate": "aggfnoid"}
_OWNERS = {"pg_aggregate": "pg_proc"}


def _expressions(columns: Mapping[str, str], separators: Separators) -> str:
    # A regular expression of numbers, because a tree of a query has them, and not the names.
    called = f"(SELECT ':funcid (' || pg_catalog.string_agg(b.oid::text, '|') || ') ' {_BUILTIN})"
    trees = " UNION ALL ".join(
        f"SELECT '{_OWNERS.get(catalogue, catalogue)}' AS catalogue,"
        f" {_NUMBERS.get(catalogue, 'oid')}::oid AS oid, {tree} AS tree"
        f" FROM pg_catalog.{catalogue} WHERE {_NUMBERS.get(catalogue, 'oid')}::oid >= {_FIRST_OID}"
        for catalogue, tree in columns.items()
    )
    return separators.records(
        ("e.catalogue", "e.oid", "p.proname"),
        f"FROM {called} AS c (pattern), ({trees}) e,"
        " pg_catalog.regexp_matches(e.tree, c.pattern, 'g') AS m (found),"
        " pg_catalog.pg_proc p"
        " WHERE e.tree ~ c.pattern AND p.oid = m.found[1]::pg_catalog.oid",
    )


def read_sources(
    rows: Iterable[Sequence[Any]], separators: Separators, path: SearchPath
) -> Sources:
    """Return what the rows of `sources_query` say.

    :param path: the search path.
    """
    found = _parts(rows, separators)
    routines = separators.split(found["routines"], len(Routine._fields) - 1)
    return Sources(
        tuple(map(Routine._make, routines)),
        path,
        tuple((a, b, c) for a, b, c in separators.split(found["expressions"])),
        int(found["relations"] or 0),
    )


class Relations(NamedTuple):
    """The relations, and what belongs to them. Each field has the records of one query.

    :param compiled: the functions without a source that can be judged. What they take and return,
        and their defaults, may have effects.
    """

    relations: list[list[str]]
    triggers: list[list[str]]
    inherits: list[list[str]]
    keys: list[list[str]]
    uses: list[list[str]]
    rules: list[list[str]]
    objects: list[list[str]]
    event_triggers: list[list[str]]
    compiled: list[list[str]]


#: What row types that may have a domain in them belong to: each composite type, and tables with a
#: column of a type that is no builtin one.
_OF_ROWS = (
    "SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'c'"
    " UNION SELECT objid FROM pg_catalog.pg_depend"
    f" WHERE classid = {_catalogues('pg_class')} AND refclassid = {_catalogues('pg_type')}"
    f" AND refobjid >= {_FIRST_OID} AND objsubid > 0"
)
#: What uses a function, an operator or a type, and views what they read.
_USES = (
    "SELECT classid, objid, refclassid, refobjid FROM pg_catalog.pg_depend"
    f" WHERE refobjid >= {_FIRST_OID} AND"
    f" (refclassid IN ({_catalogues('pg_proc', 'pg_operator')})"
    f" OR (refclassid = {_catalogues('pg_class')} AND classid = {_catalogues('pg_rewrite')})"
    f" OR (refclassid = {_catalogues('pg_type')} AND deptype <> 'i'))"
    # An array of a domain checks it, and so does a row type with one.
    f" UNION ALL SELECT {_catalogues('pg_type')}, typarray, {_catalogues('pg_type')}, oid"
    " FROM pg_catalog.pg_type"
    f" WHERE oid >= {_FIRST_OID} AND typtype = 'd'"
    f" UNION ALL SELECT {_catalogues('pg_type')}, number, {_catalogues('pg_class')}, typrelid"
    " FROM pg_catalog.pg_type t,"
    " LATERAL (VALUES (t.oid), (t.typarray)) AS n (number)"
    f" WHERE t.oid >= {_FIRST_OID} AND typtype = 'c' AND typrelid IN ({_OF_ROWS})"
    # NOT a = b may run as a <> b, and a < b as b > a.
    f" UNION ALL SELECT {_catalogues('pg_operator')}, oid, {_catalogues('pg_operator')}, other"
    " FROM pg_catalog.pg_operator,"
    " LATERAL (VALUES (oprnegate), (oprcom)) AS o (other)"
    f" WHERE oid >= {_FIRST_OID} AND other >= {_FIRST_OID}"
    # An index compares by the functions of its operator class. Most of these are in C.
    f" UNION ALL SELECT {_catalogues('pg_class')}, i.indrelid, {_catalogues('pg_proc')}, p.oid"
    " FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_amproc a ON a.amproc = p.oid"
    " JOIN pg_catalog.pg_opclass o ON o.opcfamily = a.amprocfamily"
    f" JOIN pg_catalog.pg_depend d ON d.refclassid = {_catalogues('pg_opclass')}"
    f" AND d.refobjid = o.oid AND d.classid = {_catalogues('pg_class')}"
    " JOIN pg_catalog.pg_index i ON i.indexrelid = d.objid"
    f" WHERE p.oid >= {_FIRST_OID} AND p.prolang NOT IN"
    " (SELECT oid FROM pg_catalog.pg_language WHERE lanname IN ('c', 'internal'))"
    f" UNION ALL SELECT {_catalogues('pg_class')}, conrelid, {_catalogues('pg_operator')}, other"
    " FROM pg_catalog.pg_constraint, pg_catalog.unnest(conexclop) AS o (other)"
    f" WHERE contype = 'x' AND other >= {_FIRST_OID}"
)
_LIVE = "n.nspname !~ '^pg_(temp|toast)' AND n.nspname <> 'information_schema'"


#: A part of the answer -> the catalogue that has a row if the part is not empty.
_COUNTED = {
    "triggers": "pg_trigger",
    "inherits": "pg_inherits",
    "keys": "pg_constraint",
    "rules": "pg_rewrite",
    "event_triggers": "pg_event_trigger",
    "compiled": "pg_proc",
}


def relations_query(signature: Signature, separators: Separators, *, temporary: bool) -> str:
    """Return the SQL whose rows `read_relations` takes.

    :param temporary: whether temporary relations of this session count, too.
    """
    records = separators.records
    live, schema = _LIVE, "n.nspname"
    if temporary:
        own = "n.oid = pg_catalog.pg_my_temp_schema()"
        live = f"({live} OR {own})"
        schema = f"CASE WHEN {own} THEN {quote_literal(TEMPORARY_SCHEMA)} ELSE n.nspname END"
    present = signature.present
    return _query(
        (name, sql)
        for name, sql in (
            (
                "relations",
                records(
                    ("c.oid", schema, "c.relname", "c.relkind", "c.relrowsecurity"),
                    "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
                    f" ON n.oid = c.relnamespace WHERE c.oid >= {_FIRST_OID}"
                    f" AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {live}",
                ),
            ),
            (
                "triggers",
                records(
                    ("tgrelid", "tgname", "tgfoid", "tgtype", "tgdeferrable", "oid"),
                    "FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'",
                ),
            ),
            (
                "inherits",
                records(("inhparent", "inhrelid"), "FROM pg_catalog.pg_inherits"),
            ),
            (
                "keys",
                records(
                    ("confrelid", "conrelid", "confdeltype", "confupdtype"),
                    "FROM pg_catalog.pg_constraint WHERE contype = 'f'",
                ),
            ),
            (
                "uses",
                records(
                    (
                        "classid::pg_catalog.regclass",
                        "objid",
                        "refclassid::pg_catalog.regclass",
                        "refobjid",
                    ),
                    f"FROM ({_USES}) d",
                ),
            ),
            (
                "rules",
                records(
                    (
                        *("oid", "ev_class", "rulename", "ev_type"),
                        "CASE WHEN ev_type <> '1' THEN pg_catalog.pg_get_ruledef(oid) END",
                    ),
                    f"FROM pg_catalog.pg_rewrite WHERE oid >= {_FIRST_OID} AND ev_enabled <> 'D'",
                ),
            ),
            (
                "objects",
                records(
                    ("o.catalogue", "o.oid", "o.owner", "o.name"),
                    "FROM ("
                    "SELECT 'pg_attrdef' AS catalogue, oid, adrelid AS owner, '' AS name"
                    " FROM pg_catalog.pg_attrdef"
                    " UNION ALL SELECT 'pg_constraint', oid,"
                    " CASE conrelid WHEN 0 THEN contypid ELSE conrelid END, conname"
                    " FROM pg_catalog.pg_constraint WHERE contype = 'c'"
                    " UNION ALL SELECT 'pg_policy', oid, polrelid, polname"
                    " FROM pg_catalog.pg_policy"
                    " UNION ALL SELECT 'pg_class', i.indexrelid, i.indrelid, c.relname"
                    " FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c"
                    " ON c.oid = i.indexrelid"
                    " WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL"
                    " UNION ALL SELECT 'pg_statistic_ext', oid, stxrelid, stxname"
                    " FROM pg_catalog.pg_statistic_ext"
                    " UNION ALL SELECT 'pg_operator', oid, 0, oprname"
                    f" FROM pg_catalog.pg_operator WHERE oid >= {_FIRST_OID}"
                    " UNION ALL SELECT 'pg_cast', oid, t.owner, ''"
                    " FROM pg_catalog.pg_cast,"
                    " LATERAL (VALUES (castsource), (casttarget)) AS t (owner)"
                    " UNION ALL SELECT 'pg_type', oid, 0, typname FROM pg_catalog.pg_type"
                    f" WHERE oid >= {_FIRST_OID} AND (typtype IN ('d', 'e', 'r') OR typtype = 'c'"
                    f" AND typrelid IN ({_OF_ROWS}))"
                    " UNION ALL SELECT 'pg_type', oid, 0, typname FROM pg_catalog.pg_type"
                    " WHERE oid IN (SELECT castsource FROM pg_catalog.pg_cast"
                    f" WHERE oid >= {_FIRST_OID} UNION SELECT casttarget"
                    f" FROM pg_catalog.pg_cast WHERE oid >= {_FIRST_OID})"
                    f") o WHERE o.oid >= {_FIRST_OID} OR o.catalogue = 'pg_type'",
                ),
            ),
            (
                "event_triggers",
                records(
                    ("evtname", "evtevent", "evtfoid"),
                    "FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D'",
                ),
            ),
            (
                "compiled",
                records(
                    ("p.oid", "n.nspname", "p.proname", _OF_ROW, _OF_PLANNER),
                    "FROM pg_catalog.pg_proc p"
                    " JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
                    " JOIN pg_catalog.pg_language l ON l.oid = p.prolang"
                    f" WHERE p.oid >= {_FIRST_OID} AND n.nspname !~ '^pg_temp_'"
                    " AND l.lanname IN ('c', 'internal') AND p.prokind <> 'a'",
                ),
            ),
        )
        if name not in _COUNTED or _COUNTED[name] in present
    )


def read_relations(rows: Iterable[Sequence[Any]], separators: Separators) -> Relations:
    """Return what the rows of `relations_query` say."""
    found = _parts(rows, separators)
    return Relations(*(separators.split(found[what]) for what in Relations._fields))


def _parts(rows: Iterable[Sequence[Any]], separators: Separators) -> dict[str, str]:
    """Return the records of each part of an answer, in one text."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, text in map(_decoded, rows):
        if text:
            found[name].append(text)
    return defaultdict(str, {name: separators.between.join(texts) for name, texts in found.items()})


def _decoded(row: Sequence[Any]) -> list[str]:
    """Return *row* as text. With the client encoding SQL_ASCII, drivers return bytes."""
    return [
        value.decode(errors="replace") if isinstance(value, bytes) else value or "" for value in row
    ]
