"""The transition tables: total, closed, and silent about what they refuse."""

import itertools

import pytest

from relet.core import Action, Event, IllegalEvent, Lease, State, TransactionStatus
from relet.core.lease import AUDITED_TABLES, CONDITIONS, TABLES, Hold

LEASED = [state for state in State if state is not State.RELEASED]
RUNNING = {State.RUNNING, State.RUNNING_IN_TRANSACTION}
CONDITION_EVENTS = set(CONDITIONS.values())

#: Every pair that means nothing; all others must be in the table.
ILLEGAL = (
    {(State.RELEASED, event) for event in CONDITION_EVENTS | {Event.UNAVAILABLE}}
    | {(state, Event.STATEMENT) for state in RUNNING}
    | {(state, Event.ENDED) for state in RUNNING}
    | {
        (state, Event.UNAVAILABLE)
        for state in (State.IN_TRANSACTION, State.RUNNING_IN_TRANSACTION, State.BROKEN)
    }
)

tables = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
pairs = pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))


def lease_in(state, table=TABLES["statement"]):
    lease = Lease("default", table)
    lease.state = state
    return lease


@tables
def test_every_pair_is_either_a_move_or_illegal(table):
    assert set(table) | ILLEGAL == set(itertools.product(State, Event))
    assert not set(table) & ILLEGAL


@tables
@pytest.mark.parametrize(("state", "event"), sorted(ILLEGAL, key=str))
def test_an_illegal_event_raises_and_changes_nothing(table, state, event):
    lease = lease_in(state, table)
    lease.pins["pin"] = None
    with pytest.raises(IllegalEvent, match=r"DATABASES\['default'\]") as caught:
        lease.send(event)
    assert (caught.value.state, caught.value.event) == (state.value, event.value)
    assert lease.state is state
    assert lease.pins == {"pin": None}


@tables
def test_every_state_can_be_reached_and_left_for_rest(table):
    def reachable(start):
        found, todo = {start}, [start]
        while todo:
            here = todo.pop()
            for (state, _), (target, _) in table.items():
                if state is here and target not in found:
                    found.add(target)
                    todo.append(target)
        return found

    assert reachable(State.RELEASED) == set(State)
    assert all(State.RELEASED in reachable(state) for state in State)


@tables
def test_i5_a_connection_is_taken_from_rest_only_and_ends_on_the_way_back(table):
    gives_up = {Action.CHECKIN, Action.DISCARD, Action.RESET_THEN_CHECKIN, Action.FORGET}
    for (state, event), (target, action) in table.items():
        took = action is Action.CHECKOUT
        assert took == (state is State.RELEASED and target is not State.RELEASED), (state, event)
        if state in LEASED and event is not Event.UNAVAILABLE:
            assert (action in gives_up) == (target is State.RELEASED), (state, event)


@tables
def test_i1_no_checkin_when_a_transaction_is_open(table):
    for (state, event), (_, action) in table.items():
        if event is Event.TRANSACTION:
            assert action in (Action.NOTHING, Action.PIN_CURSOR), state


@tables
def test_i2_no_checkin_while_pinned(table):
    for (state, event), (target, action) in table.items():
        if event is Event.PINNED:
            assert target is not State.RELEASED, state
            assert action in (Action.NOTHING, Action.PIN_CURSOR), state


@tables
def test_i4_a_quiet_statement_ends_the_lease_in_statement_mode_only(table):
    released = table[State.RUNNING, Event.CLEAN] == (State.RELEASED, Action.CHECKIN)
    assert released == (table is TABLES["statement"])


@tables
def test_i6_what_is_lost_is_never_checked_in(table):
    for (state, event), (_, action) in table.items():
        if event in (Event.LOST, Event.LOST_IN_USE) or state is State.BROKEN:
            assert action not in (Action.CHECKIN, Action.RESET_THEN_CHECKIN), (state, event)


@tables
def test_i8_a_lost_transaction_is_ended_by_its_owner_only(table):
    for state in (State.IN_TRANSACTION, State.RUNNING_IN_TRANSACTION):
        for event in (Event.LOST, Event.LOST_IN_USE):
            assert table[state, event] == (State.BROKEN, Action.NOTHING)
    ways_out = {
        event
        for (state, event), (target, _) in table.items()
        if state is State.BROKEN and target not in (State.BROKEN, State.RUNNING_IN_TRANSACTION)
    }
    assert ways_out == {Event.ENDED, Event.CLOSE, Event.ABANDON, Event.FORK}


@tables
def test_i10_a_child_neither_resets_nor_closes(table):
    for state in LEASED:
        assert table[state, Event.FORK] == (State.RELEASED, Action.FORGET)


@tables
def test_a_dead_threads_connection_is_discarded(table):
    for state in LEASED:
        assert table[state, Event.ABANDON] == (State.RELEASED, Action.DISCARD)


def test_modes_differ_from_statement_in_their_own_rows_only():
    statement, cursor, request = TABLES.values()
    changed = {pair for pair in statement if statement[pair] != cursor[pair]}
    assert {state for state, _ in changed} == RUNNING
    changed = {pair for pair in statement if statement[pair] != request[pair]}
    assert {event for _, event in changed} == {Event.CLEAN, Event.DIRTY}


#: What an audited lease does -> what another does in its place.
PLAIN = {
    Action.AUDIT: Action.NOTHING,
    Action.AUDIT_THEN_CHECKIN: Action.CHECKIN,
    Action.AUDIT_THEN_PIN_CURSOR: Action.PIN_CURSOR,
}


@pytest.mark.parametrize("mode", TABLES)
def test_an_audited_lease_makes_the_same_moves(mode):
    audited = {
        pair: (target, PLAIN.get(action, action))
        for pair, (target, action) in AUDITED_TABLES[mode].items()
    }
    assert audited == TABLES[mode]


@pytest.mark.parametrize("table", AUDITED_TABLES.values(), ids=AUDITED_TABLES)
def test_an_audited_lease_never_goes_back_without_an_audit(table):
    actions = {action for _, action in table.values()}
    assert not actions & {Action.CHECKIN, Action.PIN_CURSOR}
    for (state, event), (target, action) in table.items():
        if state in RUNNING and event in (Event.CLEAN, Event.PINNED, Event.TRANSACTION):
            assert action in PLAIN, (state, event)
        if target is State.BROKEN:
            assert action is Action.NOTHING


@tables
def test_others_are_not_audited(table):
    assert not {action for _, action in table.values()} & {*PLAIN}


def test_conditions_are_total():
    assert set(CONDITIONS) == set(itertools.product(TransactionStatus, Hold))


@pytest.mark.parametrize("status", TransactionStatus)
@pytest.mark.parametrize("in_atomic_block", [False, True])
@pytest.mark.parametrize("pinned", [False, True])
def test_condition(status, in_atomic_block, pinned):
    lease = Lease("default")
    if pinned:
        lease.pins["pin"] = None
    hold = Hold.PIN if pinned else Hold.DJANGO if in_atomic_block else Hold.NOBODY
    assert lease.condition(status, in_atomic_block) is CONDITIONS[status, hold]


def test_a_statement_lease_is_two_events():
    lease = Lease("default")
    assert lease.send(Event.STATEMENT) is Action.CHECKOUT
    assert lease.send(lease.condition(TransactionStatus.IDLE, False)) is Action.CHECKIN
    assert lease.state is State.RELEASED


def test_repr_tells_alias_and_state():
    assert repr(Lease("replica")) == "<Lease 'replica' released, 0 pins>"


@tables
@pytest.mark.parametrize("state", LEASED, ids=str)
@pytest.mark.parametrize("status", TransactionStatus, ids=str)
def test_report_is_condition_and_send(table, state, status):
    for in_atomic_block, pins in itertools.product([False, True], [{}, {"pin": None}]):
        one, other = lease_in(state, table), lease_in(state, table)
        one.pins, other.pins = pins, pins
        action = one.send(one.condition(status, in_atomic_block))
        assert other.report(status, in_atomic_block) is action
        assert other.state is one.state


def test_report_at_rest_is_illegal():
    lease = lease_in(State.RELEASED)
    with pytest.raises(IllegalEvent, match="released"):
        lease.report(TransactionStatus.IDLE, False)
    assert lease.state is State.RELEASED
