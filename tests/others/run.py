"""Run the tests of another package on a relet engine, and compare with what is expected.

    python tests/others/run.py djangorestframework
    python tests/others/run.py djangorestframework --engine django.db.backends.postgresql

They are taken from its sdist of the version that packages.toml says. Exits with 1 when fewer
pass than are said there, when one fails that is not listed, when a listed one passes, and so when
none ran.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from package import Package, filled

from relet.backends.embedded import embedded_postgres

UNSAFE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package")
    parser.add_argument("--engine", default="relet.backends.postgresql")
    arguments, options = parser.parse_known_args()
    package = Package.named(arguments.package)
    with (
        tempfile.TemporaryDirectory(prefix="relet-") as directory,
        embedded_postgres(UNSAFE) as server,
    ):
        placeholders = {
            "engine": arguments.engine,
            "name": "postgres",
            "user": server.user,
            "host": server.host,
            "port": str(server.port),
        }
        root = package.unpack(Path(directory), placeholders)
        report = Path(directory) / "report.xml"
        told = {name: filled(text, placeholders) for name, text in package.environment.items()}
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", package.tests]
        subprocess.run([*command, *options], cwd=root, env={**os.environ, **told}, check=False)
        outcomes = _outcomes(report) if report.exists() else {}
    return _compare(package, outcomes)


def _outcomes(report: Path) -> dict[str, str]:
    """Return for each test whether it passed, failed or was skipped."""
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        failed = kinds & {"failure", "error"}
        outcome = "failed" if failed else "skipped" if "skipped" in kinds else "passed"
        outcomes[f"{case.get('classname')}.{case.get('name')}"] = outcome
    return outcomes


def _compare(package: Package, outcomes: Mapping[str, str]) -> int:
    of = {
        kind: sorted(test for test, outcome in outcomes.items() if outcome == kind)
        for kind in ("passed", "failed", "skipped")
    }
    unexpected = [test for test in of["failed"] if test not in package.fails]
    mended = [test for test in of["passed"] if test in package.fails]
    print(
        f"\n{package.name} {package.version}: {len(of['passed'])} passed, of {package.passes} "
        f"that must; {len(of['failed'])} failed, {len(package.fails)} of them as expected; "
        f"{len(of['skipped'])} skipped."
    )
    for test in unexpected:
        print(f"  NOT EXPECTED: {test}")
    for test in mended:
        print(f"  PASSED, but listed as one that fails: {test}")
    return 1 if unexpected or mended or len(of["passed"]) < package.passes else 0


if __name__ == "__main__":
    sys.exit(main())
