"""The release modes ``cursor`` and ``request``; ``statement`` is everywhere else."""

from django.db import transaction
from testapp.models import Item

from ..support.pools import at_rest, backend_pid, stats


def test_cursor_mode_releases_with_the_last_cursor(make):
    wrapper = make(policy={"release": "cursor"})
    first, second = wrapper.cursor(), wrapper.cursor()
    first.execute("SELECT 1")
    second.execute("SELECT 2")
    assert stats(wrapper).in_use == 1
    first.close()
    assert stats(wrapper).in_use == 1
    second.close()
    assert at_rest(wrapper)


def test_cursor_mode_and_transactions(make):
    wrapper = make(policy={"release": "cursor"})
    with wrapper.cursor() as cursor:
        cursor.execute("BEGIN")
    assert stats(wrapper).in_use == 1
    with wrapper.cursor() as cursor:
        cursor.execute("COMMIT")
        assert stats(wrapper).in_use == 1
    assert at_rest(wrapper)


def test_cursor_mode_unused_cursor_takes_nothing(make):
    wrapper = make(policy={"release": "cursor"})
    with wrapper.cursor():
        assert at_rest(wrapper)


def test_cursor_mode_close_ends_the_lease_of_an_open_cursor(make):
    wrapper = make(policy={"release": "cursor"})
    cursor = wrapper.cursor()
    cursor.execute("SELECT 1")
    wrapper.close()
    assert at_rest(wrapper)
    cursor.execute("SELECT 2")
    assert cursor.fetchone() == (2,)
    cursor.close()
    assert at_rest(wrapper)


def test_request_mode_releases_with_close(make):
    wrapper = make(policy={"release": "request"})
    pid = backend_pid(wrapper)
    wrapper.set_autocommit(False)
    assert backend_pid(wrapper) == pid
    wrapper.commit()
    wrapper.set_autocommit(True)
    assert stats(wrapper).in_use == 1
    wrapper.close()
    assert at_rest(wrapper)


def test_request_mode_ends_with_the_request(make):
    wrapper = make(policy={"release": "request"})
    backend_pid(wrapper)
    assert stats(wrapper).in_use == 1
    wrapper.close_if_unusable_or_obsolete()
    assert at_rest(wrapper)


def test_default_mode_is_statement(db):
    with transaction.atomic():
        Item.objects.count()
    assert at_rest(db)
