"""Whether something has arrived on an idle connection."""

import socket

from relet.core.sockets import has_unread_data


def test_a_connection():
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            assert not has_unread_data(ours)
            theirs.send(b"N")
            assert has_unread_data(ours)
            ours.recv(1)
            assert not has_unread_data(ours)
        assert has_unread_data(ours)  # they have closed it


def test_one_that_is_closed():
    class Closed:
        def fileno(self):
            raise RuntimeError("the connection is closed")

    assert has_unread_data(Closed())


def test_a_socket_that_is_closed():
    ours, theirs = socket.socketpair()
    theirs.close()
    ours.close()
    assert has_unread_data(ours)


def test_one_of_which_nobody_can_tell():
    assert not has_unread_data(object())
