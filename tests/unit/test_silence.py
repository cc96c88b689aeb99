"""Whether something has arrived on an idle connection."""

import socket

from relet.core.sockets import silent


def test_a_connection():
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            assert silent(ours)
            theirs.send(b"N")
            assert not silent(ours)
            ours.recv(1)
            assert silent(ours)
        assert not silent(ours)  # they have closed it


def test_one_that_is_closed():
    class Closed:
        def fileno(self):
            raise RuntimeError("the connection is closed")

    assert not silent(Closed())


def test_a_socket_that_is_closed():
    ours, theirs = socket.socketpair()
    theirs.close()
    ours.close()
    assert not silent(ours)


def test_one_of_which_nobody_can_tell():
    assert silent(object())
