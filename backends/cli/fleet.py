"""``relet top`` and the commands that print one table of the fleet.

This is the one module below `relet.dashboard` that imports it, when a command runs.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .converters import number, whole_number

#: Command -> what it shows.
COMMANDS = {
    "top": "show the processes of a fleet, live",
    "pools": "print the pools of a fleet",
    "routes": "print which routes of a fleet hold connections",
    "queries": "print the statements of a fleet that cost most",
    "connections": "print the connections of a fleet, and whom they wait for",
    "processes": "print the processes of a fleet",
}
#: What the rows of a report can be chosen by -> what it says in the help.
FILTERS = {
    "host": ("NAME", "only processes of this host"),
    "alias": ("NAME", "only pools of this alias"),
    "route": ("TEXT", "only routes that contain TEXT"),
}
#: Command -> which of them its rows have.
FILTERED = {
    "top": ("host", "alias", "route"),
    "pools": ("host", "alias"),
    "routes": ("host", "route"),
    "queries": ("host", "route"),
    "connections": ("host", "alias", "route"),
    "processes": ("host",),
}
_SEE = (
    " It reads what processes with 'relet.dashboard' in INSTALLED_APPS have reported to their "
    "database, and asks the server."
)


def add_commands(commands: Any) -> None:
    """Add the commands to the parser of ``relet``."""
    for name, text in COMMANDS.items():
        described = f"{text[0].upper()}{text[1:]}.{_SEE}"
        command = commands.add_parser(name, help=text, description=described)
        where = command.add_mutually_exclusive_group()
        where.add_argument(
            "--settings", metavar="MODULE", help="the settings of a project that has the app"
        )
        where.add_argument(
            "--dsn", metavar="URI", help="the database, such as postgresql://user@host/name"
        )
        for filtered in FILTERED[name]:
            metavar, help_text = FILTERS[filtered]
            command.add_argument(f"--{filtered}", metavar=metavar, help=help_text)
        command.add_argument("--json", action="store_true", help="print JSON; times are in seconds")
        if name == "top":
            command.add_argument(
                "--interval",
                type=number(0.5, 3600),
                default=2.0,
                metavar="N",
                help="seconds between two refreshes (default: %(default)g)",
            )
            command.add_argument(
                "--once", action="store_true", help="print once and exit, as into a pipe"
            )
        else:
            command.add_argument(
                "--fleet",
                action="store_true",
                help="of all processes, as always; this may be left out",
            )
            command.add_argument(
                "--limit",
                type=whole_number(1, 10_000),
                default=20,
                metavar="N",
                help="rows (default: %(default)d)",
            )


def run(arguments: argparse.Namespace) -> int:
    """Run one of `COMMANDS`; return the exit code."""
    from relet.dashboard import terminal
    from relet.dashboard.fleet import Filter

    options = terminal.Options(
        settings=arguments.settings,
        dsn=arguments.dsn,
        only=Filter(**{name: getattr(arguments, name) for name in FILTERED[arguments.command]}),
        as_json=arguments.json,
    )
    try:
        terminal.set_up(options)
        if arguments.command == "top":
            return terminal.top(options, interval=arguments.interval, once=arguments.once)
        return terminal.show(arguments.command, options, limit=max(0, arguments.limit))
    except terminal.NotSetUp as error:
        print(f"relet {arguments.command}: {error}", file=sys.stderr)
        return 2
