"""The console script ``relet``.

This module, `adapters` and `budget` import only the standard library, Django and pluggy, and the
driver of the settings. The dependencies of `demo` are imported when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path

from relet.core.policy import AUDIT_MODES

from . import fleet
from .converters import number, whole_number

#: Below PostgreSQL's default max_connections of 100, some of which are reserved.
_MAX_CONNECTIONS = 90
_MAX_CLIENTS = 500
#: As a shell has it for a program that SIGPIPE ends.
_READER_GONE = 128 + 13


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console script; return its exit code.

    :param argv: the arguments without the program's name. Defaults to ``sys.argv[1:]``.
    """
    for name in "stdout", "stderr":
        if getattr(sys, name) is None:  # it was closed before
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    for stream in sys.stdout, sys.stderr:
        # What others call their hosts, routes or budgets may have any letters.
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever reads has seen enough. https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "adapters":
            from .adapters import list_adapters

            return list_adapters()
        if arguments.command in fleet.COMMANDS:
            return fleet.run(arguments)
        if arguments.command == "audit":
            from .audit import audit

            return audit(
                _command_of(parser, arguments),
                mode=arguments.mode,
                fail_on=arguments.fail_on,
                json_file=arguments.json,
            )
        if arguments.command == "prepare":
            from .prepare import check

            return check(_command_of(parser, arguments), json_file=arguments.json)
        if arguments.command == "budget":
            from .budget import budget

            if (arguments.dsn is None) != (arguments.group is None):
                parser.error("budget: --dsn needs --group, and --group needs --dsn")
            return budget(settings=arguments.settings, dsn=arguments.dsn, group=arguments.group)
        if arguments.command == "demo":
            from relet.backends import demo

            return demo.run(
                seconds=arguments.seconds,
                clients=arguments.clients,
                connections=arguments.connections,
                json_file=arguments.json,
            )
    except KeyboardInterrupt:
        # Before the demo handles signals, so nothing is running yet.
        return 130
    parser.print_help()
    return 0


def _command_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[str]:
    """Return the command that *arguments* have after ``--``."""
    run: list[str] = arguments.run
    command = run[1:] if run[:1] == ["--"] else run
    if not command:
        parser.error(f"{arguments.command}: no command to run; write it after --")
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="relet",
        description="Return Django's pooled PostgreSQL connections after every statement.",
    )
    parser.add_argument("--version", action="version", version=f"relet {version('relet')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser(
        "adapters",
        help="list the registered adapters, their ENGINE, and what is missing for them",
        description="List the registered adapters, the ENGINE of each, and whether its "
        "requirements are installed.",
    )
    audit = commands.add_parser(
        "audit",
        help="run a command, such as tests, and report session state that relet does not see",
        description="Run COMMAND, compare what the server lists of each session before and after "
        "each statement, and report statements that leave session state which relet does not see "
        "in their text. The report goes to stderr.",
        usage="relet audit [-h] [--mode MODE] [--fail-on WHAT] [--json FILE] -- COMMAND ...",
    )
    audit.add_argument(
        "--mode",
        choices=AUDIT_MODES,
        default="first",
        help="look at the first execution of each text, or at every one (default: %(default)s)",
    )
    audit.add_argument(
        "--fail-on",
        choices=("sure", "any"),
        help="exit with 1 if something was found: something certain, or anything",
    )
    audit.add_argument(
        "--json", type=_file, metavar="FILE", help="also write the report to this file"
    )
    audit.add_argument("run", nargs=argparse.REMAINDER, metavar="COMMAND", help=argparse.SUPPRESS)
    prepare = commands.add_parser(
        "prepare",
        help="run a command, such as tests, and report prepared targets that match no statement",
        description="Run COMMAND, and report the targets of relet.prepare() that match none of "
        "the statements that it and its children run, or cannot be prepared. The report goes to "
        "stderr. The exit code is 1 if there are any.",
        usage="relet prepare --check [-h] [--json FILE] -- COMMAND ...",
    )
    prepare.add_argument(
        "--check", action="store_true", required=True, help="check the targets (required)"
    )
    prepare.add_argument(
        "--json", type=_file, metavar="FILE", help="also write the report to this file"
    )
    prepare.add_argument("run", nargs=argparse.REMAINDER, metavar="COMMAND", help=argparse.SUPPRESS)
    budget = commands.add_parser(
        "budget",
        help="show who has the connections of a budget, and whether it fits the server",
        description="Show the connections that the budgets in DATABASES allow, who has them, and "
        "what all processes could open, now and while a deployment runs old and new ones, beside "
        "the server's max_connections. The exit code is 1 if a budget does not fit the server.",
    )
    where = budget.add_mutually_exclusive_group()
    where.add_argument(
        "--settings",
        metavar="MODULE",
        help="the settings module (default: DJANGO_SETTINGS_MODULE)",
    )
    where.add_argument("--dsn", metavar="URI", help="the database, instead of settings")
    budget.add_argument("--group", metavar="NAME", help="the budget's group, with --dsn")
    demo = commands.add_parser(
        "demo",
        help="compare Django's native pool and relet on the same Django project",
        description="Start a temporary PostgreSQL server and a small Django project, load it from "
        "many clients, first on Django's native pool, then on relet, and compare the figures. "
        "Requires pip install 'relet[demo]'.",
    )
    numbers: tuple[tuple[str, Callable[[str], float], float, str], ...] = (
        ("--seconds", number(0.5, 600), 8.0, "seconds to measure each engine"),
        (
            "--clients",
            whole_number(1, _MAX_CLIENTS),
            32,
            "clients, and threads of the server",
        ),
        ("--connections", whole_number(1, _MAX_CONNECTIONS), 4, "size of the connection pool"),
    )
    for option, convert, default, text in numbers:
        text += " (default: %(default)g)"
        demo.add_argument(option, type=convert, default=default, metavar="N", help=text)
    demo.add_argument(
        "--json", type=_file, metavar="FILE", help="also write the figures to this file"
    )
    fleet.add_commands(commands)
    return parser


def _file(text: str) -> Path:
    # Checked now rather than after half a minute of measuring.
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a directory")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{str(path.parent)!r} is not a directory")
    return path
