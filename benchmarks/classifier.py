"""The cost of finding out whether SQL leaves session state.

A text seen before costs one dictionary look-up. It is measured with equal but distinct strings, as
Django's ORM makes them, so each is hashed and compared. New texts are classified; most of them are
done after a search for a few words. Hostile texts, measured in two lengths, must not take longer
per character than others.

    python benchmarks/classifier.py --json FILE
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import common

#: Microseconds for SQL seen before, and for new SQL of 500 characters.
SEEN_BOUND, NEW_BOUND = 0.3, 200.0
LENGTH = 500
#: Microseconds per character of a hostile text, and the lengths of these texts.
HOSTILE_BOUND = 3.0
HOSTILE_LENGTHS = 5_000, 20_000


def padded(sql: str) -> str:
    """Return *sql* padded with conditions to `LENGTH` characters."""
    condition = ' AND "shop_order"."paid_at" IS NOT NULL'
    missing = LENGTH - len(sql)
    return (sql + condition * (missing // len(condition) + 1))[:LENGTH]


COLUMNS = ", ".join(f'"shop_order"."{name}"' for name in ("id", "number", "made", "state"))
#: Description -> text.
TEXTS = {
    "an ORM query": padded(f'SELECT {COLUMNS} FROM "shop_order" WHERE "shop_order"."id" = %s'),
    "one with a suspicious name": padded(
        f'SELECT {COLUMNS}, "temperature" FROM "shop_order" WHERE "shop_order"."id" = %s'
    ),
    "one with an effect": padded(
        "SELECT set_config('app.tenant', %s, false), pg_advisory_lock(%s) FROM shop_order"
        " WHERE state = 'new'"
    ),
    "several statements": "".join(
        f"SET LOCAL lock_timeout = {n}; UPDATE shop_order SET state = 'a' /* x */ WHERE id = {n}; "
        for n in range(10)
    )[:LENGTH],
    "SET": "SET statement_timeout = '5s'",
    "SAVEPOINT": 'SAVEPOINT "s140123456789_x1"',
}
#: Description -> the beginning, the repeated part and the end of the text.
HOSTILE = {
    "a comment after a string": ("CREATE TABLE t (a text DEFAULT 'a' ", "-", "\n, b int)"),
    "comments after a string": ("SET a.b = 'a' ", "-- ", ""),
    "strings that are not closed": ("SET a.b = E'", "\\'", ""),
    "tags that are not closed": ("SELECT nextval(", "$t$ $u", ""),
    "comments that are not closed": ("SELECT nextval(", "/*", ""),
    "placeholders that are not closed": ("SELECT nextval(", "%(", ""),
    "placeholders before a letter": ("SELECT nextval(", "%sa", ""),
    "parentheses": ("SELECT nextval(", "(", ""),
    "operators": ("SELECT nextval(", "\\%", ""),
    "nested calls": ("SELECT ", "set_config(", ""),
    "nested locks": ("SELECT ", "pg_advisory_lock(", ""),
    "INTO": ("SELECT 1 ", "INTO ", "temp"),
    "THEN": ("DO $$", "THEN CREATE TABLE a ", "$$"),
    "strings of code": ("DO $$ EXECUTE ", "'SET a.b = 1' || 'x' || ", "''$$"),
    "a block in a block": ("", "DO $b$ EXECUTE ", ""),
    "many statements": ("", "SET a.b = 1;", ""),
}


def hostile(name: str, length: int) -> str:
    before, block, after = HOSTILE[name]
    return before + block * ((length - len(before + after)) // len(block) + 1) + after


def microseconds(function: Callable[[Any], object], arguments: Iterable[Any]) -> float:
    """Return the mean time of *function* over *arguments*, in microseconds."""
    arguments = list(arguments)
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter_ns()
        for argument in arguments:
            function(argument)
        return (time.perf_counter_ns() - began) / 1000 / len(arguments)
    finally:
        gc.enable()


def copies(text: str, count: int) -> list[str]:
    """Return new strings equal to *text*, which are not hashed yet."""
    return [(text + " ")[:-1] for _ in range(count)]


def measure(rounds: int) -> dict[str, dict[str, float]]:
    from relet.core.sql.classifier import Memo, classify

    memo = Memo()
    samples: dict[str, dict[str, list[float]]] = {
        name: {"seen": [], "new": [], "loop": []} for name in TEXTS
    }
    for _ in range(rounds):
        for name, text in TEXTS.items():
            memo[text]
            seen = samples[name]["seen"]
            seen.append(microseconds(memo.__getitem__, copies(text, 2000)))
            samples[name]["loop"].append(microseconds(id, copies(text, 2000)))
            samples[name]["new"].append(microseconds(classify, copies(text, 50)))
    return {
        name: {
            "characters": len(TEXTS[name]),
            # Without the time of the loop.
            "seen_us": statistics.median(taken["seen"]) - statistics.median(taken["loop"]),
            "new_us": statistics.median(taken["new"]),
        }
        for name, taken in samples.items()
    }


def measure_hostile(rounds: int) -> dict[str, dict[str, float]]:
    """Return the microseconds per character, by text and length."""
    from relet.core.sql.classifier import classify

    results: dict[str, dict[str, float]] = {}
    for name in HOSTILE:
        for length in HOSTILE_LENGTHS:
            text = hostile(name, length)
            taken = [microseconds(classify, copies(text, 1)) for _ in range(rounds)]
            results.setdefault(name, {})[str(length)] = statistics.median(taken) / len(text)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    environment = common.environment()
    common.stay_on_one_cpu()
    common.wait_until_quiet()
    measure(2)
    results = measure(options.rounds)
    hostile_results = measure_hostile(max(options.rounds // 10, 3))
    common.print_table(
        "microseconds to classify a text, medians",
        ["text", "characters", "seen before", "new"],
        [
            [name, str(taken["characters"]), f"{taken['seen_us']:.2f}", f"{taken['new_us']:.1f}"]
            for name, taken in results.items()
        ],
    )
    print()
    common.print_table(
        "microseconds per character of a hostile text, medians",
        ["text", *(f"{length} characters" for length in HOSTILE_LENGTHS)],
        [
            [name, *(f"{taken[str(length)]:.2f}" for length in HOSTILE_LENGTHS)]
            for name, taken in hostile_results.items()
        ],
    )
    seen = max(taken["seen_us"] for taken in results.values())
    new = max(taken["new_us"] for taken in results.values())
    worst_hostile = max(max(taken.values()) for taken in hostile_results.values())
    for what, worst, bound in (
        ("seen before", seen, SEEN_BOUND),
        ("new", new, NEW_BOUND),
        ("hostile, per character", worst_hostile, HOSTILE_BOUND),
    ):
        verdict = "within" if worst < bound else "ABOVE"
        print(f"\n{what}: {worst:.2f} at most, {verdict} the bound of {bound}")
    common.write_json(
        options.json,
        {
            "benchmark": "classifier",
            "environment": environment,
            "texts": results,
            "hostile": hostile_results,
        },
    )


if __name__ == "__main__":
    main()
