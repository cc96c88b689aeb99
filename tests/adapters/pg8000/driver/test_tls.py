"""TLS contexts: what is in them, and that each is made once."""

from __future__ import annotations

import os
import signal
import ssl
import threading
import time
import warnings

import pytest

from relet.adapters.pg8000 import tls


@pytest.fixture(autouse=True)
def anew(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tls, "_contexts", type(tls._contexts)())


@pytest.fixture
def made(monkeypatch):
    """What was made."""
    make, made = tls._make_context, []

    def count(*args):
        made.append(args)
        return make(*args)

    monkeypatch.setattr(tls, "_make_context", count)
    return made


@pytest.fixture
def authority(tmp_path):
    """A file of one authority of the system's, or what there is in its place."""
    authorities = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not authorities:
        pytest.skip("the system has no authorities in a file")
    path = tmp_path / "root.crt"
    path.write_text(ssl.DER_cert_to_PEM_cert(authorities[0]))
    return path


@pytest.mark.parametrize("mode", ["allow", "prefer", "require"])
def test_nothing_is_loaded_where_nothing_is_verified(monkeypatch, mode):
    def load(*args, **kwargs):
        raise AssertionError("the system's authorities were loaded")

    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", load)
    monkeypatch.setattr(ssl.SSLContext, "set_default_verify_paths", load)
    context = tls.context({}, mode)
    assert context.get_ca_certs() == []
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


def test_what_is_verified(authority):
    for mode, of_name in ("verify-ca", False), ("verify-full", True), ("require", False):
        context = tls.context({"sslrootcert": str(authority)}, mode)
        assert len(context.get_ca_certs()) == 1
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, of_name)
    context = tls.context({"sslrootcert": "system"}, "verify-full")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_one_for_the_same_settings(made, authority):
    settings = [({}, "prefer"), ({"sslrootcert": str(authority)}, "verify-full")]
    settings += [({"sslrootcert": str(authority)}, "verify-ca"), ({"sslrootcert": "system"}, "x")]
    contexts = [tls.context(*given) for given in settings]
    assert len(set(contexts)) == 4
    assert [tls.context(*given) for given in settings] == contexts
    assert tls.context({}, "require") is tls.context({"user": "other"}, "allow") is contexts[0]
    assert len(made) == 4


def test_another_for_a_file_that_has_changed(made, authority):
    given = {"sslrootcert": str(authority)}, "verify-full"
    before = tls.context(*given)
    os.utime(authority, (1, 1))
    assert tls.context(*given) is not before
    assert len(made) == 2


def test_not_for_ever(made, authority):
    for second in range(tls._KEPT * 2):
        os.utime(authority, (second, second))
        tls.context({"sslrootcert": str(authority)}, "verify-full")
    assert len(tls._contexts) == tls._KEPT


def test_threads_share_one(made):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(tls.context({}, "prefer"))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(made) == 1


def test_what_fails_is_not_kept(made, tmp_path):
    for _ in range(2):
        with pytest.raises(tls.errors.OperationalError, match="sslcert '/nowhere'"):
            tls.context({"sslcert": "/nowhere"}, "require")
    assert len(made) == 2
    assert not tls._contexts
    assert tls.context({}, "require")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_no_fork_in_the_middle(monkeypatch):
    """A child would wait for OpenSSL's locks, and for this module's own, for good."""
    make, begun, ended = tls._make_context, threading.Event(), []

    def slow(*args):
        begun.set()
        time.sleep(0.3)
        made = make(*args)
        ended.append(made)
        return made

    monkeypatch.setattr(tls, "_make_context", slow)
    thread = threading.Thread(target=tls.context, args=({}, "prefer"))
    thread.start()
    begun.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads
        child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        context = tls.context({}, "prefer")
        tls.context({"sslcert": None, "sslrootcert": "system"}, "verify-full")
        os._exit(0 if ended and context is ended[0] else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    thread.join()
    assert tls.context({}, "prefer") is ended[0]
