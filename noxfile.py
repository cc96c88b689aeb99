"""What is checked, and how.

``nox --list`` names the sessions, ``nox -s lint docs`` runs some of them. What comes
after ``--`` is passed on: ``nox -s "tests(python='3.13', django='6.1')" -- tests/unit -x``.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import nox

nox.needs_version = ">=2025.5.1"
# With uv, which `pip install 'nox[uv]'` brings, an environment takes seconds, else half a minute.
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "typing", "imports", "docs", "package", "tests"]
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
DJANGOS = [
    classifier.rpartition(" ")[2]
    for classifier in PYPROJECT["project"]["classifiers"]
    if classifier.startswith("Framework :: Django :: ")
]
#: The last one with long-term support.
LONG_TERM = "5.2"
#: The oldest Python of a Django version, where it is not the oldest of all.
SINCE = {"6.0": "3.12", "6.1": "3.12"}


def djangos(python: str) -> list[str]:
    """Return the Django versions that run on *python*, oldest first."""
    age = PYTHONS.index
    return [django for django in DJANGOS if age(python) >= age(SINCE.get(django, PYTHONS[0]))]


NEWEST = PYTHONS[-1]
PAIRS = [(python, django) for python in PYTHONS for django in djangos(python)]
ON_THE_NEWEST = (".[dev]", f"django~={djangos(NEWEST)[-1]}.0")


#: Of pytest: also the tests that README's command leaves out; see `slow` in pyproject.toml.
WITH_SLOW = ("-m", "")
#: In place of what README's command generates, where that has run as well.
FEWER_EXAMPLES = {
    "RELET_EXAMPLES": os.environ.get("RELET_EXAMPLES", "10"),
    "RELET_INTERRUPTS": os.environ.get("RELET_INTERRUPTS", "50"),
    "RELET_ROUND_TRIPS": os.environ.get("RELET_ROUND_TRIPS", "20"),
}


#: What pip's configuration says, and the variable by which uv is told the same; what is between
#: several values of it.
PIP_TO_UV = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "build-constraint": ("UV_BUILD_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
}


@functools.cache
def pip_for_uv() -> dict[str, str]:
    """Return pip's configuration as environment variables of uv, which does not read it."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    # pip takes the best of all indexes, uv that of the first one that has the package.
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    # pip lists its files first, then the environment, which wins.
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if option in PIP_TO_UV and section in ("global", "install", ":env:"):
            variable, between = PIP_TO_UV[option]
            found[variable] = between.join(ast.literal_eval(value).split())
    return {variable: value for variable, value in found.items() if variable not in os.environ}


def install(session: nox.Session, *requirements: str, group: str | None = None) -> None:
    """Install *requirements*, and what pyproject.toml lists under *group*."""
    listed = nox.project.dependency_groups(PYPROJECT, group) if group else ()
    session.install(*requirements, *listed, env=pip_for_uv())


def run_tests(
    session: nox.Session,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    may_skip_all: bool = False,
) -> None:
    """Run pytest with *arguments*; some test has to pass.

    :param may_skip_all: whether none has to: what they test cannot be had on each machine.
    """
    report = Path(session.virtualenv.location, "tests.xml")
    session.run("python", "-m", "pytest", f"--junitxml={report}", *arguments, env=env)
    if not may_skip_all and not passed(report):
        session.error("no test has passed")


def passed(report: Path) -> int:
    """Return how many tests have passed, by the *report* of pytest."""
    names = ("errors", "failures", "skipped")
    return sum(
        int(suite.get("tests", 0)) - sum(int(suite.get(name, 0)) for name in names)
        for suite in ElementTree.parse(report).iter("testsuite")
    )


@nox.session
@nox.parametrize("python,django", PAIRS)
def tests(session: nox.Session, django: str) -> None:
    """The tests, on the wheel as a user would install it."""
    install(session, ".[dev]", f"django~={django}.0")
    run_tests(
        *(session, *(session.posargs or WITH_SLOW)),
        # README's command generates more.
        env={**FEWER_EXAMPLES, **FEW_STRIKES},
    )


#: They have little to do with versions, and README's command runs them. None of them is slow.
OF_README = (
    *("repo/test_changelog.py", "repo/test_docs.py", "repo/test_layout.py"),
    *("repo/test_packaging.py", "repo/test_code_blocks.py", "repo/test_figures.py"),
    *("repo/test_truth.py", "backends/test_catalogue_oracle.py"),
)
#: README's command runs those that are not slow, and `newest` all of them at its end.
FAULTS = "faults"
#: Long ones that README's command runs, and the sessions of the engines on the newest pair.
OF_ENGINES = tuple(
    f"backends/test_{name}.py"
    for name in (
        *("audit", "catalogue", "catalogue_bodies", "catalogue_links", "counting", "memory"),
        *("metrics", "plan_disturbances", "secrets", "tags"),
    )
)
#: What `newest` runs beside `chaos`: only what is slow in these.
SLOW_AT_THE_END = ("adapters/pg8000", "conformance", "unit", *OF_ENGINES)
#: What they try is the same on each version, and README's command tries it, or `newest`.
OF_NO_VERSION = ("adapters/pg8000/values", "backends/test_classifier_oracle.py", "conformance")
#: Set by `gate` for the sessions that it runs.
IN_GATE = "RELET_GATE"
#: What `engines` leaves out with pg8000 in the gate: its own tests, which README's command and
#: `newest` run, where psycopg is beside it; and what starts relet's commands, as `newest` does.
OF_PG8000 = (
    ("adapters/pg8000", "backends/test_prepare_check.py", "dashboard/test_terminal.py")
    if IN_GATE in os.environ
    else ()
)
#: In the gate, what differs from README's command in its Python and Django, or in the pool below
#: the driver, runs a part of the tests; those on SQLAlchemy's pools run all of them, together.
#: Without it, and each night, each runs all.
SHARES = {
    "oldest": "1/3",
    "newest": "2/3",
    "sqlalchemy": "1/3",
    "dj_db_conn_pool": "2/3",
    "sqlalchemy-psycopg2": "3/3",
}


def share(name: str) -> list[str]:
    """Return the arguments of pytest for the part of the tests that the session *name* runs."""
    return ["--share", SHARES[name]] if IN_GATE in os.environ and name in SHARES else []


#: One instruction of so many is struck; of README's command, one of 193, so that they are others.
FEW_STRIKES = {"RELET_STRIKES_STEP": "197"}


def but_for(*paths: str) -> list[str]:
    """Return the arguments of pytest that leave *paths* out, which are below tests/."""
    return [f"--ignore=tests/{path}" for path in paths]


@nox.session(python=False)
def oldest(session: nox.Session) -> None:
    """The tests on the oldest pair of those whose Python is here, but for those of any version."""
    found = [python for python in PYTHONS if runs(python)]
    if not found:
        session.error(f"none of python{', python'.join(PYTHONS)} is here")
    if found[0] != PYTHONS[0]:
        session.warn(f"not here, so not tested: Python {PYTHONS[0]}")
    session.notify(
        f"tests(python='{found[0]}', django='{djangos(found[0])[0]}')",
        session.posargs
        or but_for(*OF_README, FAULTS, *OF_ENGINES, *OF_NO_VERSION, "servers") + share("oldest"),
    )


@nox.session(python=NEWEST)
def newest(session: nox.Session) -> None:
    """The tests on the newest pair, the slow ones, too, with what they need; and `chaos`."""
    install(session, *ON_THE_NEWEST, *SERVERS, *TENANTS)
    install_pgbouncer(session)
    # The sessions of the engines are on the newest pair, too, and run these.
    elsewhere = (*OF_README, FAULTS, *OF_ENGINES, "adapters/pg8000", "conformance")
    # README's command and `oldest` run these, but for those that are slow.
    elsewhere = (*elsewhere, "unit")
    # These have sessions of their own.
    elsewhere = (*elsewhere, "backends/test_postgis.py", "repo/test_tutorial.py")
    run_tests(
        *(session, *(session.posargs or (*WITH_SLOW, *but_for(*elsewhere), *share("newest")))),
        env={**FEWER_EXAMPLES, **FEW_STRIKES},
    )
    if not session.posargs:
        slow = ["-m", "slow", *(f"tests/{path}" for path in SLOW_AT_THE_END), "-n2"]
        runs = {"slow": (slow, FEWER_EXAMPLES)}
        runs |= chaos_runs(seconds=10, with_faults=("psycopg", "pg8000"))
        at_the_same_time(session, runs)


def runs(python: str) -> bool:
    # A pyenv shim is on the PATH, and fails.
    command = shutil.which(f"python{python}")
    return (
        bool(command) and subprocess.run([command, "-c", ""], capture_output=True).returncode == 0
    )


@nox.session(python=NEWEST)
def coverage(session: nox.Session) -> None:
    """The tests, and which lines and branches of the four packages they run."""
    install(session, *ON_THE_NEWEST)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or WITH_SLOW))
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    install(session, group="lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def typing(session: nox.Session) -> None:
    install(session, "-e", ".[dev]", group="typing")
    session.run("mypy")


@nox.session
def imports(session: nox.Session) -> None:
    """What each layer may import."""
    listed = PYPROJECT["project"]["optional-dependencies"]["dev"]
    install(session, "-e", ".", *(name for name in listed if name.startswith("import-linter")))
    session.run("lint-imports", "--no-cache", "--no-logo")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site, with warnings as errors; run what its pages show; look at three of them."""
    install(session, "-e", ".[dev]", group="docs")
    session.run("python", "docs/lease_states.py", "--check")
    output = Path("docs/_build")
    session.run(
        *("sphinx-build", "-q", "-W", "-n", "--keep-going", "-E", "-b", "html"),
        *("-d", str(output / "doctrees"), "docs", str(output / "html")),
    )
    session.run("python", "docs/check_links.py", str(output / "html"))
    shown = ("tests/repo/test_code_blocks.py", "tests/repo/test_tutorial.py")
    run_tests(session, "-n2", *WITH_SLOW, *shown)
    session.run("python", "docs/pictures.py", str(output / "html"), str(output / "pictures"))


def build(session: nox.Session, dist: Path) -> None:
    """Build an sdist, and from it a wheel, into *dist*; look into both."""
    install(session, group="package")
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist))
    # It also renders README as an index does.
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
    (wheel,) = dist.glob("*.whl")
    install(session, f"{wheel}[dev]")
    run_tests(session, "-n0", "tests/repo/test_packaging.py", env={"RELET_TEST_DIST": str(dist)})


@nox.session
def package(session: nox.Session) -> None:
    """Build an sdist, from it a wheel, and look into both."""
    build(session, Path(session.create_tmp(), "dist"))
    session.run("relet", "adapters")


#: Where `release` leaves what is to be uploaded; and the Pythons that it installs this on.
DIST = Path("dist").absolute()
ENDS = (PYTHONS[0], NEWEST)
#: Kind of a distribution -> its file name.
INSTALLED = {"wheel": "*.whl", "sdist": "*.tar.gz"}


@nox.session(python=NEWEST)
def release(session: nox.Session) -> None:
    """Build what is to be uploaded into dist/, and install it on the oldest and newest Python."""
    if session.run("git", "status", "--porcelain", external=True, silent=True):
        session.warn("there are changes that are not committed; they are in what is built")
    build(session, DIST)
    for python in ENDS:
        for kind in INSTALLED:
            session.notify(f"installed(python='{python}', kind='{kind}')", [])


@nox.session(reuse_venv=False)
@nox.parametrize("python,kind", [(python, kind) for python in ENDS for kind in INSTALLED])
def installed(session: nox.Session, kind: str) -> None:
    """What `release` has built, as a stranger has it: a smoke test, and the demo."""
    found = list(DIST.glob(INSTALLED[kind]))
    if len(found) != 1:
        session.error(f"dist/ has {len(found)} files {INSTALLED[kind]}; run: nox -s release")
    smoke = Path("tests/smoke.py").absolute()
    install(session, f"relet[demo] @ {found[0].as_uri()}")
    # Not here, where the checkout is on sys.path.
    session.chdir(session.create_tmp())
    session.run("relet", "--version")
    session.run("relet", "adapters")
    session.run("python", str(smoke))
    session.run("relet", "demo", "--seconds", "1")


@nox.session(python=NEWEST)
@nox.parametrize("engine", ["psycopg", "sqlalchemy", "dj_db_conn_pool", "pg8000"])
@nox.parametrize("django", [LONG_TERM, djangos(NEWEST)[-1]])
def django_suite(session: nox.Session, django: str, engine: str) -> None:
    """Django's own test suite on the engines; ten minutes and more for each."""
    # pip downloads Django's sdist, and needs setuptools to look into it.
    extras = "pg8000" if engine == "pg8000" else "demo,dj_db_conn_pool,sqlalchemy"
    install(session, f".[{extras}]", f"django~={django}.0", "pip", "setuptools>=77")
    assert_absent(session, engine)
    session.run(
        *("python", "-m", "tests.django_suite.run", "--engine", f"relet.backends.{engine}"),
        *session.posargs,
    )


def install_from_debian(session: nox.Session, *packages: str) -> None:
    """Install *packages* where this is root's Debian; what is missing, tests skip, and say so."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    import fcntl  # where there is apt-get

    # Two at the same time would be one too many for apt-get, and `gate` runs two sessions.
    with (session.cache_dir / "apt-get.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in ("update",), ("install", "--no-install-recommends", *packages):
            session.run(
                *("apt-get", "-qq", *command),
                env={"DEBIAN_FRONTEND": "noninteractive"},
                external=True,
                success_codes=range(256),
            )


@nox.session(python=NEWEST)
def postgis(session: nox.Session) -> None:
    """Django's PostGIS backend; what that needs is installed where this is root's Debian."""
    install(session, *ON_THE_NEWEST)
    install_from_debian(session, "postgresql-postgis", "gdal-bin")  # with the server, GEOS and PROJ
    # Debian has initdb and pg_ctl there, and not on PATH.
    programs = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    run_tests(
        *(session, *WITH_SLOW, "tests/backends/test_postgis.py", *session.posargs),
        env={"PATH": os.pathsep.join([*session.bin_paths, *programs, os.environ["PATH"]])},
        may_skip_all=True,
    )


#: What servers and others need beside what is in ``.[dev]``.
SERVERS = ("celery>=5.5", "uvicorn>=0.30")
TENANTS = ("django-tenants>=4", "django-pghistory>=3.9", "django-pglock>=1.8")


@nox.session(python=NEWEST)
def servers(session: nox.Session) -> None:
    """gunicorn, uvicorn, Celery, runserver and PgBouncer."""
    install(session, *ON_THE_NEWEST, *SERVERS)
    install_pgbouncer(session)
    run_tests(session, "tests/servers", *WITH_SLOW, *session.posargs)


@nox.session(python=NEWEST)
def browser(session: nox.Session) -> None:
    """The page of the fleet, in Chromium, which is installed where this is root's Debian."""
    install(session, *ON_THE_NEWEST, "selenium>=4.20")
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        install_from_debian(session, "chromium", "chromium-driver")
    run_tests(
        *(session, *WITH_SLOW, "tests/servers/test_browser.py", *session.posargs),
        may_skip_all=True,
    )


def install_pgbouncer(session: nox.Session) -> None:
    if not shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin"):
        install_from_debian(session, "pgbouncer")


@nox.session(python=NEWEST)
def tenants(session: nox.Session) -> None:
    """django-tenants and backends like it, django-pgtrigger, django-pghistory and django-pglock."""
    install(session, *ON_THE_NEWEST, *TENANTS)
    tests = ("test_other_backends.py", "test_trigger_packages.py")
    run_tests(session, *(f"tests/backends/{test}" for test in tests), *session.posargs)


OTHERS = nox.project.load_toml("tests/others/packages.toml")


@nox.session(python=NEWEST)
@nox.parametrize("package", list(OTHERS))
def others(session: nox.Session, package: str) -> None:
    """The tests of other packages, from their sdists; a minute or two for each."""
    listed = OTHERS[package]
    # pip downloads the sdist.
    ours = (".[psycopg,testing]", "psycopg[binary]", f"django~={LONG_TERM}.0", "pip")
    install(session, *ours, f"{package}=={listed['version']}", *listed["requires"])
    session.run("python", "tests/others/run.py", package, *session.posargs)


ENGINES_OF_FAULTS = ("psycopg", "sqlalchemy", "dj_db_conn_pool", "pg8000")


@nox.session(python=NEWEST)
def chaos(session: nox.Session) -> None:
    """A minute of chaos on each engine, and other faults, at the same time."""
    install(session, *ON_THE_NEWEST)
    at_the_same_time(session, chaos_runs(*session.posargs, seconds=60))


def chaos_runs(
    *arguments: str, seconds: float, with_faults: Sequence[str] = ENGINES_OF_FAULTS
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return chaos on each engine, for *seconds*, and the other faults on those of *with_faults*.

    It is for `at_the_same_time`.
    """
    test, soak = "tests/faults/test_chaos.py", "tests/faults/test_soak.py"
    others = ["tests/faults", f"--ignore={test}", f"--ignore={soak}"]
    given = os.environ.get("RELET_CHAOS_SECONDS", str(seconds))
    runs = {}
    for engine in ENGINES_OF_FAULTS:
        env = {"RELET_TEST_ENGINE": engine, "RELET_CHAOS_SECONDS": given}
        runs[f"{engine}-chaos"] = [test, *arguments], env
        if engine in with_faults:
            # Most of them wait for what does not come. README's command runs the others on psycopg.
            which = ("-m", "slow") if IN_GATE in os.environ and engine == "psycopg" else ()
            runs[f"{engine}-faults"] = [*others, *which, "-n2", *arguments], env
    return runs


@nox.session(python=NEWEST)
def soak(session: nox.Session) -> None:
    """Chaos and interrupts on each engine at the same time, for ``--minutes N``; 1 by default."""
    install(session, *ON_THE_NEWEST)
    parser = argparse.ArgumentParser(prog="nox -s soak --", allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long it takes")
    given, posargs = parser.parse_known_args(session.posargs)
    runs = {}
    for engine in ENGINES_OF_FAULTS:
        env = {"RELET_TEST_ENGINE": engine, "RELET_SOAK_MINUTES": str(given.minutes)}
        runs[f"{engine}-soak"] = ["tests/faults/test_soak.py", *posargs], env
    at_the_same_time(session, runs)


def at_the_same_time(
    session: nox.Session, runs: dict[str, tuple[list[str], dict[str, str]]]
) -> None:
    """Run pytest with each of the arguments, and environments, of *runs*; show what they print."""
    logs = Path(session.create_tmp())
    command = [str(Path(session.bin, "python")), "-m", "pytest", "-rP", "-n0", *WITH_SLOW]
    command += ["-p", "no:cacheprovider"]
    running = {}
    for name, (arguments, env) in runs.items():
        log = logs / f"{name}.log"
        with log.open("w") as output:
            running[log] = subprocess.Popen(
                [*command, f"--junitxml={log.with_suffix('.xml')}", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
            )
    failed = []
    for log, process in running.items():
        if process.wait() != 0 or not passed(log.with_suffix(".xml")):
            failed.append(log.stem)
        session.log(f"{log.stem}:")
        print(log.read_text(), flush=True)
    if failed:
        session.error(f"failed: {', '.join(failed)}")


#: What Django's driver and the pool are, for each engine; that of psycopg_pool is in `tests`.
ENGINES = {
    "stack": ("./examples/relet-stack", "psycopg[binary]"),
    "sqlalchemy": (".[sqlalchemy]", "psycopg[binary]"),
    "sqlalchemy-psycopg2": (".", "sqlalchemy>=2.0,<2.2", "psycopg2-binary>=2.9.9"),
    "dj_db_conn_pool": (".[dj_db_conn_pool]", "psycopg[binary]"),
    "dj_db_conn_pool-psycopg2": (".", "django-db-connection-pool>=1.2.6", "psycopg2-binary>=2.9.9"),
    "pg8000": (".[pg8000]",),
}
#: Packages that are not to be there, for each driver that is not psycopg 3.
ABSENT = {"psycopg2": ("psycopg",), "pg8000": ("psycopg", "psycopg2")}
#: Engines on psycopg 3 whose adapters README's command and `newest` test as well.
ADAPTERS_ELSEWHERE = ("stack", "sqlalchemy", "dj_db_conn_pool")
#: An example, and one that differs from others in nothing that the gate's do not have.
NOT_IN_GATE = ("stack", "dj_db_conn_pool-psycopg2")
#: What they test is the same on each of them, or has a session of its own.
OF_NO_ENGINE = (
    *("audit_commands", "catalogue_oracle", "classifier_oracle", "commands", "demo", "postgis"),
    *("toolbar_panel", "trigger_packages"),
)


def assert_absent(session: nox.Session, driver: str) -> None:
    """Stop, unless what *driver* is tested without cannot be imported."""
    for package in ABSENT.get(driver, ()):
        code = f"from importlib.util import find_spec; assert find_spec({package!r}) is None"
        session.run("python", "-c", code)


@nox.session(python=NEWEST)
@nox.parametrize("engine", list(ENGINES))
def engines(session: nox.Session, engine: str) -> None:
    """The tests through Django, on the other engines, and where there is no psycopg 3."""
    listed = PYPROJECT["project"]["optional-dependencies"]["dev"]
    names = ("django-debug-toolbar", "gevent", "pytest", "sentry-sdk")
    needed = [requirement for requirement in listed if requirement.startswith(names)]
    ours = ".[opentelemetry,prometheus,testing,top]"
    install(session, ours, *ENGINES[engine], *needed, f"django~={djangos(NEWEST)[-1]}.0")
    adapter = engine.partition("-")[0]
    assert_absent(session, engine.rpartition("-")[2])
    # In the gate only the one with another driver runs what is slow. Without it, and each night,
    # all do.
    if IN_GATE not in os.environ or engine == "pg8000":
        which: Sequence[str] = WITH_SLOW
    elif engine in ADAPTERS_ELSEWHERE:  # README's driver, with another pool
        which = but_for(*OF_ENGINES, "backends/test_other_backends.py")
    else:
        which = ()
    run_tests(
        *(session, "tests/backends", "tests/dashboard", "tests/conformance/test_conformance.py"),
        *which,
        *(() if engine in ADAPTERS_ELSEWHERE else ("tests/adapters",)),
        *but_for(*(f"backends/test_{name}.py" for name in OF_NO_ENGINE)),
        *but_for(*(OF_PG8000 if engine == "pg8000" else ("adapters/pg8000",))),
        *share(engine),
        *session.posargs,
        env={**FEWER_EXAMPLES, **FEW_STRIKES, "RELET_TEST_ENGINE": adapter},
    )


#: What the gate runs beside README's command: what mostly waits for the network and runs on one
#: processor, and at the same time the tests.
CHECKS = ("postgis", "lint", "imports", "docs", "package", "typing")
TESTS = (
    *("oldest", "newest"),
    *(f"engines(engine='{engine}')" for engine in ENGINES if engine not in NOT_IN_GATE),
)


@nox.session(python=False)
def gate(session: nox.Session) -> None:
    """All that a change has to pass, beside README's command; nothing may be left out."""
    log = session.cache_dir / "checks.log"
    reports = {names: session.cache_dir / f"{names[0]}.json" for names in (CHECKS, TESTS)}
    for report in reports.values():
        report.unlink(missing_ok=True)
    with log.open("w") as output:
        checks = subprocess.Popen(
            nox_for(CHECKS, reports[CHECKS]), stdout=output, stderr=subprocess.STDOUT
        )
    subprocess.run(nox_for(TESTS, reports[TESTS]), env={**os.environ, IN_GATE: "1"})
    checks.wait()
    print(log.read_text(), flush=True)
    bad = [name for names, report in reports.items() for name in no_success(names, report)]
    if bad:
        session.error(f"failed, or not run: {', '.join(bad)}")


def nox_for(names: Sequence[str], report: Path) -> list[str]:
    return [sys.executable, "-m", "nox", "--report", str(report), "--sessions", *names]


def no_success(names: Sequence[str], report: Path) -> list[str]:
    """Return which of the sessions *names* are no success in nox's *report*, and of all in it.

    Nox itself takes one that was skipped for a success.
    """
    found = json.loads(report.read_text())["sessions"] if report.exists() else []
    bad = [result["signatures"][0] for result in found if result["result"] != "success"]
    known = {signature for result in found for signature in result["signatures"]}
    return bad + [name for name in names if name not in known]


@nox.session(python=NEWEST)
def prereleases(session: nox.Session) -> None:
    """The pools' newest pre-releases, which relet refuses until it was written for them.

    It fails when private parts that relet relies on have changed.
    """
    install(session, *ON_THE_NEWEST)
    newest = ("psycopg-pool", "sqlalchemy", "psycopg", "psycopg-binary", "pg8000", "django")
    session.install("--pre", "--upgrade", "--no-deps", *newest)
    run_tests(
        *(session, "tests/adapters", "tests/conformance", "tests/backends", *session.posargs),
        env={"RELET_UNREAD_VERSIONS": "1", **FEWER_EXAMPLES, **FEW_STRIKES},
    )


@nox.session(python=NEWEST)
def nightly(session: nox.Session) -> None:
    """What the tests generate, at length: hours. Then what the gate runs in part, and `others`."""
    for package in OTHERS:
        session.notify(f"others(package='{package}')", [])
    for engine in ENGINES:
        session.notify(f"engines(engine='{engine}')", [])
    install(session, *ON_THE_NEWEST)
    generated = ("catalogue_oracle", "classifier_oracle", "invariants", "session_machine")
    files = [f"tests/backends/test_{name}.py" for name in generated]
    files += ["tests/faults/test_chaos.py", "tests/backends/test_storms.py"]
    files += ["tests/faults/test_budget.py"]
    files += [f"tests/{where}/test_strikes.py" for where in ("adapters", "backends")]
    files += ["tests/adapters/test_fair_queue.py", "tests/backends/test_import_strikes.py"]
    files += ["tests/adapters/test_interrupts.py", "tests/conformance/test_conformance.py"]
    files += [
        f"tests/adapters/pg8000/{name}.py"
        for name in ("driver/test_nonsense", "values/test_injection")
    ]
    run_tests(
        *(session, "-rP", *WITH_SLOW),
        *(session.posargs or [*files, "tests/adapters/pg8000/values/test_round_trips.py"]),
        env={
            "RELET_CHAOS_SECONDS": os.environ.get("RELET_CHAOS_SECONDS", "1800"),
            "RELET_EXAMPLES": "3000",
            "RELET_FLEET_SECONDS": "60",
            "RELET_INTERRUPTS": "4000",
            "RELET_STORM_SECONDS": "600",
            "RELET_SCHEDULES": "all",
            "RELET_STRIKES_STEP": "1",
            "RELET_CATALOGUE_ORACLE": "20000",
            "RELET_ORACLE": "200000",  # and others each night:
            "RELET_ORACLE_SEED": f"{datetime.datetime.now(datetime.timezone.utc):%j}",
        },
    )


@nox.session(python=NEWEST)
def figures(session: nox.Session) -> None:
    """Measure all that README.md and docs/benchmarks.md show, and write it into them."""
    install(session, "-e", ".[demo,dj_db_conn_pool,pg8000]", group="benchmarks")
    install_pgbouncer(session)
    session.run("python", "benchmarks/figures.py", *session.posargs)


@nox.session(python=NEWEST)
def benchmarks(session: nox.Session) -> None:
    """The benchmarks, against the peers that are installed."""
    install(session, ".[demo,dj_db_conn_pool,pg8000]", group="benchmarks")
    install_pgbouncer(session)
    session.run("python", "benchmarks/classifier.py", *session.posargs)
    session.run("python", "benchmarks/catalogue.py", *session.posargs)
    session.run("python", "benchmarks/statement.py", *session.posargs)
    session.run("python", "benchmarks/start.py", *session.posargs)
    session.run("python", "benchmarks/holders.py", *session.posargs)
    session.run("python", "benchmarks/fleet.py", *session.posargs)
    session.run("python", "benchmarks/throughput.py", *session.posargs)
    session.run("python", "benchmarks/simple_query.py", *session.posargs)
