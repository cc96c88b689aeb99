"""I15: an exception while an engine is imported leaves nothing half done for the next import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..support import engine
from ..support import strikes as opcodes

#: Every so many instructions; each of them takes a process and a fifth of a second.
STEP = opcodes.STEP * 97

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here"),
    pytest.mark.skipif(engine.NAME == "pg8000", reason="the script imports Django's backend"),
]


@pytest.mark.slow
def test_i15_while_an_engine_is_imported():
    script = Path(__file__).with_name("import_strikes.py")
    command = [sys.executable, str(script), engine.NAME, "1", str(STEP)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    assert "FAILED" not in output, output
    assert output.endswith("instructions at most\n"), output


class Told(Exception):
    """As what Celery raises when a task's time is up: an `Exception`, of nobody's here."""


def test_what_is_raised_while_plugins_are_looked_for_arrives_as_itself(monkeypatch):
    """It is no fault of a plugin's: those come again when they are tried again."""
    from importlib.metadata import EntryPoint

    from relet.core.registry import Registry

    registry, load, raised = Registry(), EntryPoint.load, []

    def interrupted(self):
        if not raised:
            raised.append(self)
            raise Told
        return load(self)

    monkeypatch.setattr(EntryPoint, "load", interrupted)
    with pytest.raises(Told):
        registry.specs()
    assert engine.NAME in registry.specs()
    assert registry.problems() == ()
