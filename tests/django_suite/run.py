"""Run Django's own test suite on a relet engine and compare with what is expected.

    python -m tests.django_suite.run                    # what concerns databases
    python -m tests.django_suite.run --all              # everything
    python -m tests.django_suite.run transactions backends.postgresql
    python -m tests.django_suite.run --prepare '{"mode": "auto", "after": 1}'

The suite is taken from the source distribution of the installed Django version.
Exits with 1 when a test fails that `expected` does not list, when a listed
one passes, or when nothing ran.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import django

from .expected import EXPECTED, OTHER_POOLS, PG8000
from .labels import database_labels
from .server import postgres

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build" / "django_suite"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", nargs="*", help="test labels; default: what concerns databases")
    parser.add_argument("--all", action="store_true", help="run everything")
    parser.add_argument("--engine", default="relet.backends.psycopg")
    parser.add_argument("--policy", type=json.loads, default={}, help="OPTIONS['policy'], as JSON")
    parser.add_argument(
        "--prepare", type=json.loads, help="OPTIONS['prepare'], as JSON; by default, none"
    )
    parser.add_argument("--parallel", default="1", help="passed on to Django's runtests.py")
    arguments = parser.parse_args()
    tests = _source() / "tests"
    labels = arguments.labels
    if not labels and not arguments.all:
        labels = database_labels(tests)
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result.json"
        with postgres() as database:
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
                "RELET_SUITE_DATABASE": json.dumps(database),
                "RELET_SUITE_ENGINE": arguments.engine,
                "RELET_SUITE_POLICY": json.dumps(arguments.policy),
                "RELET_SUITE_PREPARE": json.dumps(arguments.prepare),
                "RELET_SUITE_RESULT": str(result),
            }
            options = ["--settings=suite_settings", f"--parallel={arguments.parallel}", "--noinput"]
            subprocess.run(
                [sys.executable, "-W", "ignore", "runtests.py", *options, *labels],
                cwd=tests,
                env=environment,
                check=False,
            )
        if not result.exists():
            print("Django's test runner did not get to its end.")
            return 1
        expected = dict(EXPECTED)
        if arguments.engine != "relet.backends.psycopg":
            expected.update(OTHER_POOLS)
        if arguments.engine == "relet.backends.pg8000":
            expected.update(PG8000)
        return _compare(json.loads(result.read_text()), expected, whole=not arguments.labels)


def _source() -> Path:
    """Return the unpacked source distribution of the installed Django."""
    name = f"django-{django.__version__}"
    if not (CACHE / name).exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(CACHE)]
        source_only = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
        subprocess.run([*pip, *source_only, f"django=={django.__version__}"], check=True)
        with tarfile.open(CACHE / f"{name}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return CACHE / name


def _compare(result: dict[str, object], expected: dict[str, str], *, whole: bool) -> int:
    failed = set(result["failed"])  # type: ignore[call-overload]
    ran = set(result["ran"])  # type: ignore[call-overload]
    unexpected = sorted(failed - expected.keys())
    passed = sorted((expected.keys() & ran) - failed)
    print(
        f"\n{len(ran)} tests ran on Django {django.__version__}, {result['skipped']} of them "
        f"skipped; {len(failed)} failed, {len(failed & expected.keys())} of them as expected."
    )
    for test in sorted(failed & expected.keys()):
        print(f"  as expected: {test}\n    {expected[test]}")
    for test in unexpected:
        print(f"  NOT EXPECTED: {test}")
    for test in passed:
        print(f"  PASSED, but listed as a difference: {test}")
    if whole and not ran:
        print("No test ran.")
        return 1
    return 1 if unexpected or passed or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
