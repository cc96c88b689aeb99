"""CHANGELOG.md is what https://keepachangelog.com/en/1.1.0/ says."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.fixture(scope="module")
def changelog(root: Path) -> str:
    return (root / "CHANGELOG.md").read_text()


def test_sections_are_versions_newest_first(changelog: str) -> None:
    sections = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    if sections[0] == "[Unreleased]":
        del sections[0]
    dated = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", each) for each in sections]
    assert None not in dated, sections
    versions = [tuple(map(int, match.groups())) for match in dated if match]
    assert versions == sorted(versions, reverse=True)


def test_this_version_is_there_or_unreleased(changelog: str) -> None:
    newest = re.search(r"^## \[(.*?)\]", changelog, re.MULTILINE)
    assert newest
    assert newest.group(1) in ("Unreleased", version("relet"))


def test_kinds_of_changes(changelog: str) -> None:
    kinds = set(re.findall(r"^### (.*)$", changelog, re.MULTILINE))
    assert kinds
    assert kinds <= KINDS
