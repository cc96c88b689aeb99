"""django-pgtrigger, django-pghistory and django-pglock: what of theirs keeps a connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from django.db import connections

from ..support import driver, engine

PROJECT = Path(__file__).parent / "triggers_project"
PACKAGES = ("pgtrigger", "pghistory", "pglock")

pytestmark = [
    pytest.mark.skipif(not all(map(find_spec, PACKAGES)), reason="they are not installed"),
    driver.needs("psycopg", "work of pghistory's"),
]


def test_triggers(database):
    """In a process of its own, for it wants settings of its own."""
    default = connections["default"].settings_dict
    keys = (*("NAME", "USER", "PASSWORD", "HOST", "PORT"), engine.adapter().options_setting[0])
    told = {key: default[key] for key in keys if key in default}
    ran = subprocess.run(
        [sys.executable, PROJECT / "run.py"],
        env={
            **os.environ,
            "RELET_TRIGGERS": json.dumps({"DATABASE": {**told, "ENGINE": engine.ENGINE}}),
        },
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
