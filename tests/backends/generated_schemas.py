"""Schemas at random: functions, procedures, triggers, views and rules that leave state, or do not.

Each object uses others that were made before it, so effects travel along calls, writes and reads.
"""

from __future__ import annotations

from random import Random

#: Where everything is made, and another schema, in which names occur again.
SCHEMA, OTHER = "relet_generated", "relet_generated_2"

#: What leaves state, as an expression that has an integer value.
EXPRESSIONS = [
    "length(set_config('relet_generated.a', '1', false))",
    "length(set_config('relet_generated.' || 'b', 'x', false))",
    "length(SET_CONFIG ('lock_timeout', '77s', 1 = 2))",
    "length(pg_catalog.set_config('relet_generated.c', 'x', NULL))",
    "(pg_try_advisory_lock({n})::int)",
    "(pg_try_advisory_lock_shared({n}, 1)::int)",
    "nextval('{schema}.numbers')::int",
    "setval('{schema}.numbers', {n})::int",
    (
        "length(query_to_xml('SELECT set_config(''relet_generated.a'', ''x'', false)',"
        " true, true, '')::text)"
    ),
    "coalesce(length(setseed(0.5)::text), 0)",
]
#: What leaves none, but looks like it.
HARMLESS = [
    "1",
    "length(set_config('relet_generated.a', '1', true))",
    "(pg_try_advisory_xact_lock({n})::int)",
    "length('SET relet_generated.a = 1')",
    "length($q$ set_config('relet_generated.a', 'x', false) $q$)",
    "(SELECT count(*)::int FROM {schema}.plain /* set_config('a.b', 'x', false) */)",
    "length(current_setting('relet_generated.a', true))",
    "length(quote_literal('LISTEN c; pg_advisory_lock(1)'))",
]
#: Statements of PL/pgSQL.
STATEMENTS = [
    "SET relet_generated.a = 'x';",
    "SET SESSION lock_timeout = '{n}s';",
    "PERFORM set_config('relet_generated.b', 'x', false);",
    "PERFORM pg_advisory_lock({n});",
    "LISTEN channel_{n};",
    "CREATE TEMP TABLE IF NOT EXISTS temp_{n} (a int);",
    "CREATE TEMPORARY SEQUENCE IF NOT EXISTS temp_s_{n};",
    "SET ROLE {role};",
    "EXECUTE 'SET relet_generated.c = 1';",
    "EXECUTE 'LISTEN channel_' || {n};",
    "EXECUTE format('SET relet_generated.c = %L', 'x');",
    "EXECUTE format('CREATE TEMP TABLE IF NOT EXISTS %I (a int)', 'temp_d_{n}');",
    "EXECUTE 'SELECT pg_advisory_lock(' || {n} || ')';",
    "command := 'SET relet_generated.c = ' || quote_literal('y'); EXECUTE command;",
    (
        "command := 'CREATE TEMP TABLE IF NOT EXISTS temp_e_{n}';"
        " command := command || ' (a int)'; EXECUTE command;"
    ),
    "EXECUTE 'PREP' || 'ARE p_' || {n} || ' AS SELECT 1';",
    "IF true THEN SET relet_generated.b = 'z'; END IF;",
    "FOR number IN 1..2 LOOP PERFORM pg_try_advisory_lock(number); END LOOP;",
    "BEGIN SET relet_generated.b = 'v'; EXCEPTION WHEN others THEN NULL; END;",
    "EXECUTE $x$ DO 'BEGIN SET relet_generated.c = 8; END' $x$;",
]
HARMLESS_STATEMENTS = [
    "NULL;",
    "SET LOCAL lock_timeout = '5s';",
    "PERFORM pg_advisory_xact_lock({n});",
    "PERFORM set_config('relet_generated.b', 'x', true);",
    "UPDATE {schema}.plain SET a = a + 1 WHERE id = {n};",
    "UPDATE {schema}.plain AS p\n  SET a = 2\n WHERE p.id = {n};",
    "INSERT INTO {schema}.plain (id) VALUES ({n}) ON CONFLICT (id) DO UPDATE SET a = 1;",
    "DELETE FROM {schema}.plain WHERE id = {n};",
    "EXECUTE format('UPDATE {schema}.plain SET a = %L WHERE id = %s', {n}, {n});",
    "EXECUTE format('SELECT %L AS %I', 'SET a.b = 1', 'x');",
    "EXECUTE 'SELECT count(*) FROM ' || quote_ident('{schema}') || '.plain' INTO number;",
    "command := 'SELECT 1'; EXECUTE command;",
    "RAISE DEBUG 'SET relet_generated.a = 1; LISTEN c';",
    "number := (SELECT count(*) FROM {schema}.plain);",
    "PERFORM 1 -- set_config('relet_generated.a', 'x', false)\n;",
    "NOTIFY channel_{n};",
]


class Schema:
    """One schema at random.

    :ivar sql: what makes it, as one text.
    :ivar statements: what uses it, each a statement.
    """

    def __init__(self, random: Random, role: str) -> None:
        self.random, self.role = random, role
        self.functions: list[str] = []
        self.procedures: list[str] = []
        self.tables: list[str] = []
        self.views: list[str] = []
        #: Tables and views to which no foreign key can refer.
        self._without_key = {"plain"}
        self._count = 0
        parts = [
            f"CREATE SCHEMA {SCHEMA}",
            f"CREATE SCHEMA {OTHER}",
            f"GRANT ALL ON SCHEMA {SCHEMA}, {OTHER} TO {role}",
            f"SET search_path = {SCHEMA}, public",
            "SET check_function_bodies = off",
            f"CREATE SEQUENCE {SCHEMA}.numbers",
            f"CREATE TABLE {SCHEMA}.plain (id int PRIMARY KEY, a int DEFAULT 0)",
        ]
        parts += [self._function() for _ in range(random.randint(2, 5))]
        for _ in range(random.randint(1, 3)):
            parts += self._table()
        parts += [self._function() for _ in range(random.randint(1, 4))]
        parts += [self._view() for _ in range(random.randint(1, 2))]
        parts += [self._procedure() for _ in range(random.randint(1, 2))]
        parts += self._extras()
        parts += [
            f"GRANT ALL ON ALL TABLES IN SCHEMA {SCHEMA} TO {role}",
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {SCHEMA} TO {role}",
        ]
        self.sql = ";\n".join(parts)
        self.statements = [self._statement() for _ in range(16)]

    # Bodies.

    def _name(self, what: str) -> str:
        self._count += 1
        names = (f"{what}_{self._count}", f"{what}_{self._count}", f'"{what} {self._count}"')
        return self.random.choice(names)

    def _fill(self, text: str) -> str:
        return (
            text.replace("{n}", str(self.random.randint(1, 9)))
            .replace("{schema}", SCHEMA)
            .replace("{role}", self.role)
        )

    def _call(self) -> str:
        """An expression that calls a function."""
        if not self.functions:
            return "1"
        name = self.random.choice(self.functions)
        return f"{self._qualified(name)}({self.random.randint(0, 3)})"

    def _qualified(self, name: str) -> str:
        return self.random.choice((name, f"{SCHEMA}.{name}", f'"{SCHEMA}" . {name}'))

    def _expression(self) -> str:
        draw = self.random.random()
        if draw < 0.45 and self.functions:
            return self._call()
        if draw < 0.6:
            return self._fill(self.random.choice(EXPRESSIONS))
        if draw < 0.68 and self.views:
            return f"(SELECT count(*)::int FROM {self._qualified(self.random.choice(self.views))})"
        return self._fill(self.random.choice(HARMLESS))

    def _statement_in_body(self) -> str:
        draw = self.random.random()
        if draw < 0.25 and self.functions:
            return self.random.choice(
                (
                    f"PERFORM {self._call()};",
                    f"number := {self._call()};",
                    f"EXECUTE 'SELECT {self._call()}';",
                    f"IF {self._call()} > 0 THEN NULL; END IF;",
                )
            )
        if draw < 0.4 and self.tables:
            return self._write() + ";"
        if draw < 0.45 and self.tables:
            table = self.random.choice(self.tables)
            return (
                f"EXECUTE format('INSERT INTO %I.%I (id) VALUES (%s)', '{SCHEMA}',"
                f" {self._unquoted(table)}, {self.random.randint(100, 10**6)});"
            )
        if draw < 0.6:
            return self._fill(self.random.choice(STATEMENTS))
        return self._fill(self.random.choice(HARMLESS_STATEMENTS))

    def _unquoted(self, name: str) -> str:
        return "'" + name.strip('"') + "'"

    def _block(self, end: str) -> str:
        body = "\n  ".join(self._statement_in_body() for _ in range(self.random.randint(1, 3)))
        return f"DECLARE\n  number int := 0;\n  command text;\nBEGIN\n  {body}\n  {end}\nEND"

    def _write(self) -> str:
        table = self._qualified(self.random.choice(self.tables))
        key = self.random.randint(100, 10**6)
        return self.random.choice(
            (
                f"INSERT INTO {table} (id) VALUES ({key})",
                f"INSERT INTO {table} (id) SELECT {key}",
                f"UPDATE {table} SET a = a WHERE id >= 0",
                f"UPDATE ONLY {table} SET a = 1",
                f"DELETE FROM {table} WHERE id < {key}",
                (
                    f"WITH gone AS (DELETE FROM {table} RETURNING id)"
                    f" INSERT INTO {SCHEMA}.plain (id) SELECT id FROM gone WHERE false"
                ),
                (
                    f"MERGE INTO {table} AS t USING (VALUES ({key})) AS v (id) ON t.id = v.id"
                    " WHEN MATCHED THEN UPDATE SET a = 1"
                    " WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id)"
                ),
            )
        )

    # Objects.

    def _function(self) -> str:
        name = self._name("f")
        draw = self.random.random()
        options = self.random.choice(("", "", " SECURITY DEFINER", f" SET search_path = {SCHEMA}"))
        head = f"CREATE FUNCTION {SCHEMA}.{name}(n int DEFAULT 0) RETURNS int"
        if "SECURITY" in options:
            options = " SECURITY DEFINER"
        if draw < 0.2:
            sql = f"{head} LANGUAGE sql{options} AS $f$ SELECT {self._expression()} $f$"
        elif draw < 0.3:
            sql = f"{head} LANGUAGE sql BEGIN ATOMIC SELECT {self._expression()}; END"
        elif draw < 0.4 and not options:
            statement = self._fill(
                self.random.choice(
                    (
                        "SET relet_generated.a = 's'",
                        "SET LOCAL relet_generated.a = 's'",
                        "LISTEN channel_{n}",
                        "UPDATE {schema}.plain SET a = 1",
                        "SELECT pg_advisory_lock({n})",
                    )
                )
            )
            sql = f"{head} LANGUAGE sql AS $f$ {statement}; SELECT {self._expression()} $f$"
        else:
            end = f"RETURN {self._expression()};"
            sql = f"{head} LANGUAGE plpgsql{options} AS $f$ {self._block(end)} $f$"
        self.functions.append(name)
        return sql

    def _procedure(self) -> str:
        name = self._name("p")
        end = self.random.choice(
            ("COMMIT;", "NULL;", "ROLLBACK;", f"PERFORM {self._expression()};")
        )
        self.procedures.append(name)
        return f"CREATE PROCEDURE {SCHEMA}.{name}() LANGUAGE plpgsql AS $p$ {self._block(end)} $p$"

    def _table(self) -> list[str]:
        name = self._name("t")
        full = f"{SCHEMA}.{name}"
        default = f" DEFAULT {self._call()}" if self.random.random() < 0.2 else ""
        check = f" CHECK ({self._call()} >= -1)" if self.random.random() < 0.1 else ""
        draw = self.random.random()
        parts = []
        if draw < 0.2:
            parts += [
                f"CREATE TABLE {full} (id int, a int{default}) PARTITION BY RANGE (id)",
                (
                    f"CREATE TABLE {SCHEMA}.part_{self._count} PARTITION OF {full}"
                    f" FOR VALUES FROM (-1) TO (10000000)"
                ),
            ]
            triggered = f"{SCHEMA}.part_{self._count}"
        else:
            key = ""
            if self.tables and self.random.random() < 0.5:
                other = self.random.choice(self.tables)
                action = self.random.choice(("CASCADE", "SET NULL", "NO ACTION"))
                if other not in self._without_key:
                    key = f", parent int REFERENCES {SCHEMA}.{other} ON DELETE {action}"
            parts.append(f"CREATE TABLE {full} (id int PRIMARY KEY, a int{default}{check}{key})")
            triggered = full
        if draw < 0.2:
            self._without_key.add(name)
        if self.random.random() < 0.7:
            function = self._name("g")
            body = self._block("RETURN NEW;")
            when = self.random.choice(("BEFORE", "AFTER"))
            event = self.random.choice(
                ("INSERT", "UPDATE", "DELETE", "INSERT OR UPDATE", "TRUNCATE")
            )
            each = "STATEMENT" if event == "TRUNCATE" or self.random.random() < 0.4 else "ROW"
            kind = "TRIGGER"
            if event == "DELETE" and each == "ROW":
                body = body.replace("RETURN NEW", "RETURN OLD")
            if each == "ROW" and when == "AFTER" and self.random.random() < 0.3:
                kind, each = "CONSTRAINT TRIGGER", "ROW"
                when = "AFTER"
            deferred = " DEFERRABLE INITIALLY DEFERRED" if kind != "TRIGGER" else ""
            condition = ""
            if each == "ROW" and not deferred and self.random.random() < 0.2:
                condition = f" WHEN ({self._call()} > -5)"
            parts += [
                (
                    f"CREATE FUNCTION {SCHEMA}.{function}() RETURNS trigger LANGUAGE plpgsql"
                    f" AS $g$ {body} $g$"
                ),
                (
                    f"CREATE {kind} {self._name('trigger')} {when} {event} ON {triggered}"
                    f"{deferred} FOR EACH {each}{condition} EXECUTE FUNCTION {SCHEMA}.{function}()"
                ),
            ]
        parts.append(f"INSERT INTO {SCHEMA}.{name} (id) VALUES (1), (2)")
        self.tables.append(name)
        return parts

    def _view(self) -> str:
        name = self._name("v")
        draw = self.random.random()
        if draw < 0.4 or not self.tables:
            sql = f"CREATE VIEW {SCHEMA}.{name} AS SELECT {self._expression()} AS a, 1 AS id"
            self.views.append(name)
        elif draw < 0.6 and self.views:
            sql = f"CREATE VIEW {SCHEMA}.{name} AS SELECT * FROM {self.random.choice(self.views)}"
            self.views.append(name)
        else:
            table = self.random.choice(self.tables)
            sql = f"CREATE VIEW {SCHEMA}.{name} AS SELECT id, a FROM {SCHEMA}.{table}"
            self.views.append(name)
            self.tables.append(name)
            self._without_key.add(name)
        return sql

    def _extras(self) -> list[str]:
        """Rules, operators, domains, ranges, aggregates, and a name that occurs in both schemas."""
        parts = []
        if self.random.random() < 0.3:
            parts.append(
                f"CREATE RULE rule_1 AS ON INSERT TO {SCHEMA}.plain DO ALSO SELECT {self._call()}"
            )
            self.tables.append("plain")
        if self.random.random() < 0.3:
            function = self._name("o")
            parts += [
                (
                    f"CREATE FUNCTION {SCHEMA}.{function}(int, int) RETURNS bool LANGUAGE sql"
                    f" AS $o$ SELECT {self._call()} > $1 $o$"
                ),
                (
                    f"CREATE OPERATOR {SCHEMA}.#=# (FUNCTION = {SCHEMA}.{function},"
                    " LEFTARG = int, RIGHTARG = int)"
                ),
            ]
        if self.random.random() < 0.3:
            parts.append(
                f"CREATE DOMAIN {SCHEMA}.checked AS int CHECK ({self._call()} > VALUE - 99)"
            )
            if self.random.random() < 0.5:
                parts += [
                    f"CREATE TYPE {SCHEMA}.span AS RANGE (subtype = {SCHEMA}.checked)",
                    (
                        f"CREATE FUNCTION {SCHEMA}.up({SCHEMA}.checked) RETURNS int"
                        " LANGUAGE internal AS 'int4up'"
                    ),
                ]
        if self.random.random() < 0.3:
            function = self._name("s")
            parts += [
                (
                    f"CREATE FUNCTION {SCHEMA}.{function}(int, int) RETURNS int LANGUAGE sql"
                    f" AS $o$ SELECT {self._call()} + $1 $o$"
                ),
                (
                    f"CREATE AGGREGATE {SCHEMA}.summed (int)"
                    f" (SFUNC = {SCHEMA}.{function}, STYPE = int, INITCOND = '0')"
                ),
            ]
        if self.random.random() < 0.3 and self.functions:
            name = self.random.choice(self.functions)
            parts.append(
                f"CREATE FUNCTION {OTHER}.{name}(n int DEFAULT 0) RETURNS int LANGUAGE sql"
                " AS 'SELECT 1'"
            )
        return parts

    # Statements that use it.

    def _statement(self) -> str:
        draw = self.random.random()
        if draw < 0.3:
            return self.random.choice(
                (
                    f"SELECT {self._call()}",
                    f"SELECT 1 WHERE {self._call()} > -9",
                    f"SELECT * FROM {self._call()} AS x",
                    f"SELECT {self._call()}, {self._call()}",
                    f"WITH x AS MATERIALIZED (SELECT {self._call()} AS a) SELECT * FROM x",
                    f"DO $$ BEGIN PERFORM {self._call()}; END $$",
                    f"EXPLAIN ANALYZE SELECT {self._call()}",
                    f"EXPLAIN SELECT {self._call()}",
                    f"INSERT INTO {SCHEMA}.plain (id, a) SELECT 77, {self._call()} WHERE false",
                )
            )
        if draw < 0.6 and self.tables:
            return self._write()
        if draw < 0.68 and self.tables:
            tables = [name for name in self.tables if not name.strip('"').startswith("v")]
            name = self.random.choice(tables)
            return f"TRUNCATE {self._qualified(name)}" + self.random.choice((" CASCADE", ""))
        if draw < 0.8 and self.views:
            view = self._qualified(self.random.choice(self.views))
            return self.random.choice(
                (
                    f"SELECT * FROM {view}",
                    f"TABLE {view}",
                    f"SELECT 1 FROM {SCHEMA}.plain p, {view} WHERE false",
                    f"SELECT * FROM (SELECT * FROM {view}) x",
                )
            )
        if draw < 0.9 and self.procedures:
            return f"CALL {self._qualified(self.random.choice(self.procedures))}()"
        return self.random.choice(
            (
                f"SELECT 1 OPERATOR({SCHEMA}.#=#) 2",
                "SELECT 1 #=# 2",
                f"SELECT 5::{SCHEMA}.checked",
                "SELECT CAST(5 AS checked)",
                f"SELECT {SCHEMA}.span(1, 2)",
                f"SELECT {SCHEMA}.up(1)",
                f"SELECT {SCHEMA}.summed(id) FROM (VALUES (1), (2)) x (id)",
                f"SELECT {OTHER}.{self.random.choice(self.functions)}(1)",
                f"CREATE TEMP TABLE copied AS SELECT {self._call()} AS a",
            )
        )
