"""ReleasePolicy: values that are wrong are refused, with what would be right."""

import dataclasses

import pytest

from relet.core import ConfigurationError, ReleasePolicy


def test_defaults():
    assert ReleasePolicy() == ReleasePolicy(release="statement", check_idle=0.5)


def test_from_mapping():
    assert ReleasePolicy.from_mapping({"release": "cursor"}).release == "cursor"
    assert ReleasePolicy.from_mapping({}, release="request").release == "request"
    assert ReleasePolicy.from_mapping({"release": "cursor"}, release="request").release == "cursor"


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ReleasePolicy().release = "cursor"


@pytest.mark.parametrize("release", ["Statement", None, 1, "", ["statement"]])
def test_release(release):
    with pytest.raises(ConfigurationError, match="'statement', 'cursor', 'request'"):
        ReleasePolicy(release=release)


@pytest.mark.parametrize("check_idle", [-1, "1", None, True, float("nan")])
def test_check_idle(check_idle):
    with pytest.raises(ConfigurationError, match="'check_idle'"):
        ReleasePolicy(check_idle=check_idle)


def test_unknown_keys_are_all_named():
    with pytest.raises(ConfigurationError, match=r"'releese'.*'release'.*'zzz'"):
        ReleasePolicy.from_mapping({"releese": "cursor", "zzz": 1})
