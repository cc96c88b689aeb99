"""Budget: who gives up connections, and what is said of the holders."""

import pytest

from relet.core.budget import Budget, Share, describe_holders, surplus

ME = 1


def given_up(held, *others, guaranteed=1, idle=0, chance=0.0):
    """What a pool that holds *held* gives up, where *others* hold something and may ask."""
    pools = {ME: Share(held, False)}
    pools.update({number: Share(*share) for number, share in enumerate(others, 2)})
    return surplus(pools, ME, guaranteed=guaranteed, idle=idle, chance=chance)


@pytest.mark.parametrize(
    ("count", "held", "others", "more"),
    [
        (0, 5, [(2, False)], {"idle": 5}),  # nobody asks
        (1, 5, [(2, True)], {"idle": 5}),  # one for each that asks
        (3, 5, [(0, True)] * 3, {"idle": 5}),
        (2, 5, [(9, True)] * 3, {"idle": 2}),  # no matter how much these have
        (1, 5, [(0, True)] * 3, {"idle": 5, "guaranteed": 4}),
        (0, 4, [(0, True)] * 3, {"idle": 4, "guaranteed": 4}),
        (1, 5, [(0, True)], {}),  # a busy one
        (0, 5, [(5, True)], {}),  # that has no more than others
        (0, 5, [(7, True)], {}),
        (1, 5, [(4, True)], {}),  # with one more, now and then
        (0, 5, [(4, True)], {"chance": 0.5}),
        (1, 5, [(3, True)], {"chance": 0.99}),
        (0, 5, [(3, True), *[(5, True)] * 9], {"chance": 0.5}),  # another of the ten does
        (0, 1, [(0, True)], {}),  # its last
    ],
)
def test_surplus(count, held, others, more):
    assert given_up(held, *others, **more) == count


def test_a_pool_that_holds_nothing():
    assert surplus({2: Share(0, True)}, ME, guaranteed=0, idle=0, chance=0.0) == 0


def test_groups_have_locks_of_their_own():
    names = ["shop", "Shop", "shop ", "", "ß", "\ud800", *map(str, range(1000))]
    assert len({Budget(80, name).lock_class for name in names}) == len(names)
    assert all(-(2**31) <= Budget(80, name).lock_class < 2**31 for name in names)
    # Old and new processes of a deployment have to agree.
    assert Budget(80, "shop").lock_class == Budget(60, "shop").lock_class == -463671870


def test_holders():
    rows = [
        ("relet web-1:11", 101, "active"),
        ("relet web-2:22", 102, "idle"),
        (b"relet web-1:11", 103, b"idle"),  # client_encoding is SQL_ASCII
        ("", 104, "unknown"),
    ]
    assert describe_holders(rows) == [
        "relet web-1:11 has 2: pid 101 active, 103 idle",
        "relet web-2:22 has 1: pid 102 idle",
        "(no name) has 1: pid 104 unknown",
    ]
    many = describe_holders((f"app {number}", number, "idle") for number in range(12))
    assert len(many) == 11
    assert many[-1] == "and 2 more"
    (line,) = describe_holders(("app", number, "idle") for number in range(500))
    assert line.startswith("app has 500: pid 0 idle, 1 idle, ")
    assert line.endswith(", 9 idle, and 490 more")
