"""ReleasePolicy: values that are wrong are refused, with what would be right."""

import dataclasses

import pytest

from relet.core import ConfigurationError, Kind, ReleasePolicy


def test_defaults():
    assert ReleasePolicy() == ReleasePolicy("statement", "pin", 0.5, "never")


@pytest.mark.parametrize("retry", ["Reads", None, True, "writes", ["reads"]])
def test_retry(retry):
    with pytest.raises(ConfigurationError, match=r"'retry' is .* 'never', 'reads'"):
        ReleasePolicy(retry=retry)


@pytest.mark.parametrize("session_state", ["Pin", None, 1, "", ["pin"]])
def test_session_state(session_state):
    with pytest.raises(ConfigurationError, match="'pin', 'reset', 'error', 'ignore'"):
        ReleasePolicy(session_state=session_state)


def test_one_mode_for_every_kind_of_session_state():
    policy = ReleasePolicy(session_state="error")
    assert {policy.state_mode(kind) for kind in Kind} == {"error"}


def test_replaced():
    policy = ReleasePolicy(check_idle=3)
    assert policy.replaced({"release": "cursor"}) == ReleasePolicy("cursor", check_idle=3)
    assert policy.replaced({}) == policy
    with pytest.raises(ConfigurationError, match="did you mean 'release'"):
        policy.replaced({"relase": "cursor"})
    with pytest.raises(ConfigurationError, match="'release' is 'x'"):
        policy.replaced({"release": "x"})


def test_replaced_in_a_policy_of_ones_own():
    @dataclasses.dataclass(frozen=True)
    class Own(ReleasePolicy):
        tenant: str = "a"

    assert Own().replaced({"tenant": "b", "release": "request"}) == Own("request", tenant="b")


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


@pytest.mark.parametrize("ttl", [-1, "60", True, float("nan")])
def test_catalogue_ttl(ttl):
    with pytest.raises(ConfigurationError, match=r"'catalogue_ttl' is .*, or None"):
        ReleasePolicy(catalogue_ttl=ttl)
    assert ReleasePolicy(catalogue_ttl=None).catalogue_ttl is None


@pytest.mark.parametrize("dynamic_sql", ["Pin", None, "error", ["pin"]])
def test_dynamic_sql(dynamic_sql):
    with pytest.raises(ConfigurationError, match=r"'dynamic_sql' is .* 'pin', 'ignore'"):
        ReleasePolicy(dynamic_sql=dynamic_sql)


def test_unknown_keys_are_all_named():
    with pytest.raises(ConfigurationError, match=r"'releese'.*'release'.*'zzz'"):
        ReleasePolicy.from_mapping({"releese": "cursor", "zzz": 1})
