"""Django's test client, in the process of the tests: see `project/in_process.py`."""

from __future__ import annotations

import pytest

from .conftest import Project
from .process import python

pytestmark = pytest.mark.slow

COMMAND = python("django", "test", "project.in_process", "--noinput", "--verbosity=0")


@pytest.mark.parametrize("parallel", [(), ("--parallel=2",)], ids=["one", "parallel"])
def test_client(project: Project, parallel: tuple[str, ...]) -> None:
    project.run(*COMMAND, *parallel)
    assert project.tokens() == []
