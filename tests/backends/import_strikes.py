"""Imports an engine, struck at each instruction of relet's code; a process of its own for each.

python import_strikes.py ENGINE FIRST STEP

Prints how many instructions there were, and what has gone wrong. It imports nothing of relet's
itself, so that each child imports all of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

import django.db.backends.postgresql.base  # noqa: F401
import pluggy  # noqa: F401
from django.conf import settings

ROOT = Path(__file__).resolve().parents[2]


def strikes() -> ModuleType:
    """The tracer, from the folder of the kit: its package itself would import relet."""
    folder = ModuleType("kit")
    folder.__path__ = [str(ROOT / "adapters" / "conformance")]
    sys.modules["kit"] = folder
    return importlib.import_module("kit.strikes")


def relet() -> list[ModuleType]:
    """What stands for relet's packages, of which none has been imported."""
    folders = []
    for name in "core", "adapters", "backends":
        found = importlib.util.find_spec("relet").submodule_search_locations
        folder = ModuleType(name)
        folder.__file__ = None
        folder.__path__ = [str(Path(next(iter(found)), name))]
        folders.append(folder)
    return folders


def child(number: int, engine: str, tracer: ModuleType, packages: list[ModuleType]) -> int:
    """Return 0 if all is well, 1 if not, 2 if there are not so many instructions."""
    name = f"relet.backends.{engine}.base"
    if not tracer.strike_at(number, lambda: importlib.import_module(name), *packages):
        return 2
    assert importlib.import_module(name).DatabaseWrapper.adapter_class
    from relet import policies
    from relet.core import registry

    assert registry.problems() == ()
    assert registry.spec(engine)
    assert policies.assigned == {}
    return 0


def main(engine: str, first: int, step: int) -> None:
    settings.configure(DATABASES={}, INSTALLED_APPS=[])
    tracer, packages = strikes(), relet()
    number = first
    while True:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = child(number, engine, tracer, packages)
            except BaseException:
                print(f"struck at instruction {number}:")
                traceback.print_exc(file=sys.stdout)
            finally:
                sys.stdout.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == 2:
            break
        if status:
            print(f"FAILED at {number}: {status}", flush=True)
        number += step
    print(f"{number} instructions at most")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
