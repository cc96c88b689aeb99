"""Test what is specific to this pool: its options, order and lifetime."""

import pytest
from relet_stack.adapter import StackAdapter
from relet_stack.pool import StackPool

from relet.core import ConfigurationError


class Connection:
    closed = False

    def close(self):
        self.closed = True


@pytest.mark.parametrize("options", [{"sise": 1}, {"size": 0}, {"timeout": "long"}])
def test_wrong_options(options):
    with pytest.raises(ConfigurationError):
        StackAdapter.check_options(options)


def test_the_last_connection_in_is_the_first_out():
    pool = StackPool(Connection, max_lifetime=60)
    first, second = pool.pop(), pool.pop()
    pool.push(first)
    pool.push(second)
    assert pool.pop() is second


def test_a_connection_that_is_too_old_is_closed():
    pool = StackPool(Connection, max_lifetime=0)
    entry = pool.pop()
    pool.push(entry)
    assert entry.raw.closed
    assert len(pool) == 0
