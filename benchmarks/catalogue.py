"""The cost of reading what a database's functions and triggers leave in a session.

A database has thousands of functions and hundreds of tables with triggers. Once a pool, relet reads
them; each new connection compares them; each new text is looked up among the names that have
effects. The CPU time of the client and of the server's process are counted apart.

    python benchmarks/catalogue.py --json FILE
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import common

#: Milliseconds of CPU, of client and server together, to read 2,000 functions and 500 triggers.
BOUND_MS = 50.0
FUNCTIONS, TRIGGERS = 2000, 500
#: One function of so many leaves something in its session.
ONE_OF = 100

#: What functions of a project do, by turns. Three of ten call another one, and one of twenty has
#: dynamic SQL.
BODIES = (
    """
DECLARE
  found record;
  total numeric := 0;
BEGIN
  -- The orders of one customer, those that were paid first.
  FOR found IN SELECT o.id, o.amount, o.state FROM orders_{table} o WHERE o.customer = $1 LOOP
    IF found.state = 'paid' THEN
      total := total + found.amount;
    ELSE
      UPDATE orders_{table} AS o
         SET state = 'seen', seen_at = now()
       WHERE o.id = found.id AND o.state <> 'seen';
    END IF;
  END LOOP;
  IF total > 1000 THEN
    RAISE NOTICE 'customer % has %', $1, total;
  END IF;
  RETURN (total + {call})::int;
EXCEPTION WHEN numeric_value_out_of_range THEN
  RETURN 0;
END
""",
    """
BEGIN
  INSERT INTO log_{table} (what, who, made_at)
  VALUES ('viewed', current_user, now())
  ON CONFLICT (what, who) DO UPDATE SET made_at = excluded.made_at;
  RETURN coalesce((SELECT count(*) FROM orders_{table} WHERE customer = $1), 0)
       + {call};
END
""",
)
DYNAMIC = """
DECLARE
  changed int;
BEGIN
  EXECUTE format('UPDATE %I SET state = %L WHERE customer = $1', 'orders_{table}', 'done')
    USING $1;
  GET DIAGNOSTICS changed = ROW_COUNT;
  RETURN changed;
END
"""
EFFECT = """
BEGIN
  PERFORM set_config('app.customer', $1::text, false);
  RETURN {call};
END
"""
TRIGGER = """
BEGIN
  IF TG_OP = 'UPDATE' AND NEW.state IS NOT DISTINCT FROM OLD.state THEN
    RETURN NEW;
  END IF;
  INSERT INTO log_{table} (what, who, made_at) VALUES (TG_OP, current_user, now())
  ON CONFLICT DO NOTHING;
  NEW.seen_at := now();
  RETURN NEW;
END
"""
LOCKING = TRIGGER.replace("  NEW.seen_at", "  PERFORM pg_advisory_lock({table});\n  NEW.seen_at")


def fill(raw: Any, functions: int, triggers: int, with_effects: bool) -> None:
    """Create tables, *functions* and *triggers*."""
    random = Random(0)
    parts = ["SET check_function_bodies = off"]
    for table in range(triggers):
        parts += [
            (
                f"CREATE TABLE orders_{table} (id int PRIMARY KEY, customer int, amount numeric,"
                " state text, seen_at timestamptz)"
            ),
            (
                f"CREATE TABLE log_{table} (what text, who text, made_at timestamptz,"
                " UNIQUE (what, who))"
            ),
        ]
    for number in range(functions - triggers):
        body = DYNAMIC if number % 20 == 1 else BODIES[number % len(BODIES)]
        if with_effects and number % ONE_OF == 0:
            body = EFFECT
        call = f"f_{random.randrange(functions)}($1)" if random.random() < 0.3 else "0"
        body = body.format(table=random.randrange(triggers), call=call)
        parts.append(
            f"CREATE FUNCTION f_{number}(int) RETURNS int LANGUAGE plpgsql AS $f$ {body} $f$"
        )
    for table in range(triggers):
        body = LOCKING if with_effects and table % ONE_OF == 0 else TRIGGER
        parts += [
            (
                f"CREATE FUNCTION t_{table}() RETURNS trigger LANGUAGE plpgsql AS"
                f" $f$ {body.format(table=table)} $f$"
            ),
            (
                f"CREATE TRIGGER t_{table} BEFORE INSERT OR UPDATE ON orders_{table}"
                f" FOR EACH ROW EXECUTE FUNCTION t_{table}()"
            ),
        ]
    raw.execute("; ".join(parts))
    raw.execute("VACUUM ANALYZE")


def server_cpu(pid: int) -> float:
    """Return the seconds of CPU that the process *pid* has used."""
    ran = Path(f"/proc/{pid}/schedstat").read_text().split()[0]
    return int(ran) / 1e9


class Session:
    """A connection, and the CPU time that a call takes of client and server, in milliseconds."""

    def __init__(self, database: dict[str, Any]) -> None:
        import psycopg

        names = {"NAME": "dbname", "USER": "user", "HOST": "host", "PORT": "port"}
        self.raw = psycopg.connect(
            **{names[key]: value for key, value in database.items() if key in names and value},
            password=database.get("PASSWORD") or None,
            autocommit=True,
        )
        self.raw.execute("SELECT 1")

    def cost(self, call: Callable[[], object]) -> tuple[float, float]:
        pid = self.raw.info.backend_pid
        server, client = server_cpu(pid), time.thread_time()
        call()
        client = time.thread_time() - client
        self.raw.execute("SELECT 1")  # the server's time is written when it has slept
        return client * 1e3, (server_cpu(pid) - server) * 1e3


def measure(database: dict[str, Any], rounds: int) -> dict[str, tuple[float, float]]:
    """Return the CPU time of client and server to read, and to compare."""
    from relet.adapters.drivers.psycopg import Psycopg
    from relet.backends.leases.definitions import PoolDefinitions
    from relet.core import ReleasePolicy

    pool: Any = Psycopg()  # as much of an adapter as it takes
    samples: dict[str, list[tuple[float, float]]] = {"read": [], "compared": []}
    for _ in range(rounds):
        session = Session(database)
        definitions = PoolDefinitions(ReleasePolicy(), pooled=True)
        samples["read"].append(
            session.cost(lambda: definitions.compare(pool, session.raw))  # noqa: B023
        )
        session.raw.close()
        session = Session(database)
        samples["compared"].append(
            session.cost(lambda: definitions.compare(pool, session.raw))  # noqa: B023
        )
        session.raw.close()
    catalogue = definitions._committed
    assert catalogue is not None
    print(
        f"names with effects: {len(catalogue.weights)}, "
        f"for example {', '.join(sorted(catalogue.weights)[:5])}"
    )
    return {
        name: tuple(statistics.median(part) for part in zip(*taken, strict=True))  # type: ignore[misc]
        for name, taken in samples.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    environment = common.environment()
    results: dict[str, dict[str, tuple[float, float]]] = {}
    for name, with_effects in ("without effects", False), ("with effects", True):
        with common.server() as database:
            session = Session(database)
            fill(session.raw, FUNCTIONS, TRIGGERS, with_effects)
            session.raw.close()
            common.wait_until_quiet()
            results[name] = measure(database, options.rounds)
    common.print_table(
        f"milliseconds of CPU for {FUNCTIONS} functions and {TRIGGERS} triggers, medians",
        ["database", "what", "client", "server"],
        [
            [name, what, f"{client:.1f}", f"{server:.1f}"]
            for name, taken in results.items()
            for what, (client, server) in taken.items()
        ],
    )
    worst = max(sum(taken["read"]) for taken in results.values())
    verdict = "within" if worst < BOUND_MS else "ABOVE"
    print(f"\nread: {worst:.1f} at most, {verdict} the bound of {BOUND_MS}")
    common.write_json(
        options.json,
        {"benchmark": "catalogue", "environment": environment, "milliseconds": results},
    )


if __name__ == "__main__":
    main()
