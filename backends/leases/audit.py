"""Audit: asks the server what statements have left in their session, to find what texts hide.

It is for tests. An audited lease has another table, whose actions lead here, so that statements of
all other leases run the code that they would run without it; see `relet.core.lease.AUDITED_TABLES`.
The server is asked beneath Django, on the driver's connection, and never while that is busy.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from relet.core import Lease, PoolAdapter
from relet.core.session.audit import Leak, Ran, SessionAudit, is_commit, is_control, rolls_back
from relet.core.session.audit_report import AuditFinding
from relet.core.session.ledger import SessionLedger
from relet.core.session.snapshot import FUNCTIONS, Snapshot, names_in
from relet.core.sql.effects import Kind
from relet.core.sql.fingerprint import fingerprint
from relet.core.sql.local import local_changes
from relet.core.sql.quoting import quote_literal
from relet.core.status import TransactionStatus

from . import call_site, ending
from .findings import findings

IDLE, IN_TRANSACTION = TransactionStatus.IDLE, TransactionStatus.IN_TRANSACTION

#: Characters of SQL in a report.
_SHOWN = 500
_MAX_TEXTS = 100_000
#: At most so many settings with a dot are asked for.
_MAX_NAMES = 1000

#: Alias, whether in a test's transaction, and a hash of a text that has left nothing unseen.
_clean: set[tuple[str, bool, int]] = set()


class _Names:
    """The names of settings with a dot that the functions and the statements of a database have."""

    def __init__(self) -> None:
        self.of_functions: frozenset[str] = frozenset()
        self.of_texts: set[str] = set()
        #: `Snapshot.functions` when `of_functions` was read.
        self.read_at = ""

    def add(self, text: str) -> None:
        if len(self.of_texts) < _MAX_NAMES:
            self.of_texts |= names_in(text)

    def all(self) -> list[str]:
        return sorted(self.of_functions | self.of_texts)[:_MAX_NAMES]


_names: weakref.WeakKeyDictionary[PoolAdapter[Any], _Names] = weakref.WeakKeyDictionary()


def forget_texts() -> None:
    """Audit texts again that have left nothing unseen."""
    _clean.clear()


# The moments at which the server is asked.


def begin(runner: Any, lease: Lease) -> None:
    """Begin the audit of *lease*, whose connection was just taken and has no transaction yet."""
    lease.audit = None
    findings.audits(lease.alias, runner.host.settings_dict["ENGINE"])
    text = _text(lease)
    reference = None
    if text is None or is_control(text) or _is_due(runner, lease, text):
        reference = _snapshot(runner, lease, text or "", begins=True)
    lease.audit = SessionAudit(reference)


def transfer_begins(runner: Any, lease: Lease) -> None:
    """Record that a COPY or a stream() begins, after which the server cannot be asked."""
    if lease.audit is not None and (ran := _ran(runner, lease, lease.audit)) is not None:
        lease.audit.wait(ran)


def statement_ended(runner: Any, lease: Lease) -> None:
    """Observe what the statement that has just run on *lease* has left. The lease goes on."""
    audit, text = lease.audit, _text(lease)
    if audit is None or text is None:
        return
    kinds = _kinds(runner, lease)
    ran = _ran(runner, lease, audit)
    if not _can_ask(runner, lease):
        if ran is not None:
            audit.wait(ran)
        return
    in_transaction = runner.status() == IN_TRANSACTION
    if ran is None and not audit.pending and (audit.last is not None or is_control(text)):
        if in_transaction and (not kinds or is_control(text)) and not _brings_back(audit, text):
            return
        if not in_transaction and not kinds and not audit.observed:
            return
    if (now := _snapshot(runner, lease, text)) is None:
        return
    if not in_transaction:
        _settle(runner, lease, audit, now, ran)
    elif _is_undone_anyway(lease):
        audit.skip(now)
    elif ran is None and not audit.pending:
        audit.refresh(now)
    else:
        control = is_control(text)
        seen = _seen(lease, audit.seen if control else kinds)
        audit.observe(ran or Ran(text), now, seen, _own_settings(runner, lease))
        if _only_tests(runner):
            leaks = audit.settle(now, _own_settings(runner, lease), in_test=True, wait=True)
            _report(runner, lease, leaks)
            _keep_clean(lease.alias, audit.clean(leaks), in_test=True)


def transaction_ended(runner: Any, lease: Lease) -> None:
    """Observe what a transaction has left, or a cursor. The lease goes on."""
    audit = lease.audit
    if audit is None or not audit.observed or not _can_ask(runner, lease):
        return
    in_transaction = runner.status() == IN_TRANSACTION
    if in_transaction and not audit.waiting:
        return
    if (now := _snapshot(runner, lease)) is None:
        return
    if not in_transaction:
        _settle(runner, lease, audit, now, None)
    elif _is_undone_anyway(lease):
        audit.skip(now)
    else:
        seen = _seen(lease, audit.seen)
        audit.observe(audit.suspect(), now, seen, _own_settings(runner, lease))


def begin_in_between(runner: Any, lease: Lease) -> None:
    """Begin the audit of *lease*, which has begun already, and which no statement uses now."""
    findings.audits(lease.alias, runner.host.settings_dict["ENGINE"])
    lease.audit = SessionAudit(None)
    if _can_ask(runner, lease) and (now := _snapshot(runner, lease)) is not None:
        lease.audit.refresh(now)


def report_in_test(runner: Any, lease: Lease) -> None:
    """Report what is left before a test ends, and with it the transaction in which it runs."""
    audit = lease.audit
    if audit is None or not audit.pending or not _only_tests(runner):
        return
    if not _can_ask(runner, lease) or (now := _snapshot(runner, lease)) is None:
        return
    own = _own_settings(runner, lease)
    if not _is_undone_anyway(lease) and audit.waiting:
        audit.observe(audit.suspect(), now, _seen(lease, audit.seen), own)
    _report(runner, lease, audit.settle(now, own, in_test=True))


def lease_ends(runner: Any, lease: Lease, *, ran: bool) -> bool:
    """Observe what *lease* has left. It has no open transaction, and ends now.

    :param ran: whether a statement ends it that has just run.
    :return: whether its session has to be restored.
    """
    audit = lease.audit
    if audit is None or lease.connection is None:
        return False
    last = _ran(runner, lease, audit) if ran else None
    if audit.last is None or (last is None and not audit.observed):
        lease.audit = None
        return False
    now = None if runner.is_busy() else _snapshot(runner, lease)
    lease.audit = None
    if now is None:
        _mark_left(lease, (Kind.UNKNOWN,))
        return True
    return _settle(runner, lease, audit, now, last)


def _settle(runner: Any, lease: Lease, audit: SessionAudit, now: Snapshot, ran: Ran | None) -> bool:
    """Report what is left while no transaction is open; return whether anything is."""
    own, undone_anyway = _own_settings(runner, lease), _is_undone_anyway(lease)
    if undone_anyway:
        audit.skip(now)
    else:
        audit.observe(ran or audit.suspect(), now, _seen(lease, audit.seen), own)
    leaks = audit.settle(now, own)
    _report(runner, lease, leaks)
    clean = audit.clean(leaks)
    if not undone_anyway:
        _keep_clean(lease.alias, clean, in_test=False)
    audit.seen = set()
    mode = runner.choice.policy.state_mode
    left = {leak.kind for leak in leaks if mode(leak.kind) != "ignore"}
    if left:
        _mark_left(lease, left)
    return bool(left)


# What to audit.


def _text(lease: Lease) -> str | None:
    """Return the SQL of the statement that runs on *lease*, or ran last, if it is known."""
    if lease.sql is None or lease.connection is None or lease.pool is None:
        return None
    return lease.pool.sql_text(lease.sql)


def _ran(runner: Any, lease: Lease, audit: SessionAudit) -> Ran | None:
    """Return the statement that has just run on *lease*; None if it is not to be audited."""
    if (text := _text(lease)) is None:
        return None
    effects = runner.known_effects(lease.sql)
    if effects is not None:
        audit.seen |= effects.kinds
        audit.explain(effects.resolve(None, None))
    audit.explain(local_changes(text))
    if is_control(text) or is_commit(text) or not _is_due(runner, lease, text):
        return None
    return Ran(text, call_site.first_outside(sys._getframe(1)))


def _brings_back(audit: SessionAudit, text: str) -> bool:
    """Return whether *text* may bring back what was there before a statement that was observed."""
    return audit.inside and rolls_back(text)


def _is_due(runner: Any, lease: Lease, text: str) -> bool:
    if runner.choice.audit_mode == "all":
        return True
    return (lease.alias, _in_test(runner), hash(text)) not in _clean


def _keep_clean(alias: str, texts: Iterable[str], *, in_test: bool) -> None:
    if len(_clean) > _MAX_TEXTS:
        _clean.clear()
    _clean.update((alias, in_test, hash(text)) for text in texts)


def _in_test(runner: Any) -> bool:
    """Whether a transaction is open in which Django's ``TestCase`` runs a test."""
    return any(block._from_testcase for block in runner.host.atomic_blocks)


def _only_tests(runner: Any) -> bool:
    """Whether a test's transaction is open, and none of the project's own inside of it."""
    blocks = runner.host.atomic_blocks
    return bool(blocks) and all(block._from_testcase for block in blocks)


def _kinds(runner: Any, lease: Lease) -> frozenset[Kind]:
    effects = runner.known_effects(lease.sql)
    return frozenset() if effects is None else effects.kinds


#: What may have left state of any kind.
_ANYTHING = frozenset({Kind.UNKNOWN, Kind.DYNAMIC})


def _is_undone_anyway(lease: Lease) -> bool:
    """Whether all state of the lease will be undone, whatever it is, as in a ``hold()`` block."""
    return lease.session is not None and not _ANYTHING.isdisjoint(lease.session.left)


def _seen(lease: Lease, kinds: Collection[Kind]) -> frozenset[Kind]:
    """Return the *kinds* of state that texts show, and what follows from them."""
    if lease.session is not None and Kind.TEMPORARY in lease.session.left:
        # With pg_temp in the search path, plain tables are temporary.
        return frozenset({*kinds, Kind.TEMPORARY})
    return frozenset(kinds)


def _own_settings(runner: Any, lease: Lease) -> frozenset[str]:
    """Return the names of settings that relet itself keeps in the session."""
    connection, _ = ending.leased(lease)
    own: frozenset[str] = runner.own_settings
    tracked = connection.tracked_settings
    return own if tracked is None else own | tracked.names


def _mark_left(lease: Lease, kinds: Iterable[Kind]) -> None:
    if lease.session is None:
        lease.session = SessionLedger()
    lease.session.mark_dirty(kinds)


# The server's answer.


def _can_ask(runner: Any, lease: Lease) -> bool:
    """Whether a query on the connection of *lease* would disturb nothing."""
    connection, _ = ending.leased(lease)
    if any(opened is not None for opened in lease.pins.values()) or runner.is_busy():
        return False
    status = runner.status()
    # Without autocommit, the driver would begin a transaction for it.
    return bool(status == IN_TRANSACTION or (status == IDLE and connection.raw.autocommit is True))


def _snapshot(
    runner: Any, lease: Lease, text: str = "", *, begins: bool = False
) -> Snapshot | None:
    """Ask the server for the session's state; return None, and stop auditing, if that fails.

    :param text: the SQL of the statement that has just run, or is to run.
    :param begins: whether *lease* is only beginning, and lets the connection go if this raises.
    """
    connection, pool = ending.leased(lease)
    names = _names_of(pool)
    names.add(text)
    now = None
    try:
        with _undisturbed(runner, lease):
            now = _ask(pool, connection.raw, names)
    except BaseException:
        # An interrupt: the connection may be in the middle of anything.
        lease.audit = None
        if not begins:
            _mark_left(lease, (Kind.UNKNOWN,))
        raise
    if now is None:
        lease.audit = None
    return now


@contextmanager
def _undisturbed(runner: Any, lease: Lease) -> Iterator[None]:
    """Let a query fail, by a statement_timeout or a cancel, without ending the transaction."""
    connection, pool = ending.leased(lease)
    raw, error = connection.raw, (runner.Database.Error, UnicodeError)
    try:
        if runner.status() != IN_TRANSACTION:
            if raw.autocommit is not True:
                raw.autocommit = True  # the lease ends; else the driver would begin a transaction
            yield
            return
        pool.execute_internal(raw, "SAVEPOINT relet_audit")
        try:
            yield
        except error:
            pool.execute_internal(raw, "ROLLBACK TO SAVEPOINT relet_audit")
            raise
        finally:
            if runner.status() == IN_TRANSACTION:
                pool.execute_internal(raw, "RELEASE SAVEPOINT relet_audit")
    except error as raised:
        runner.messages.debug(lease.alias, "session state could not be audited", raised)


def _ask(pool: PoolAdapter[Any], raw: Any, names: _Names) -> Snapshot:
    budget = pool.config.budget
    lock_class = None if budget is None else budget.lock_class

    def ask() -> Snapshot:
        query = Snapshot.query(names.all(), lock_class)
        return Snapshot.from_rows(pool.execute_internal(raw, query))

    now = ask()
    if now.functions != names.read_at:
        # A function may be new. Read from each which settings it mentions.
        found: set[str] = set()
        for (source,) in pool.execute_internal(raw, FUNCTIONS):
            found |= names_in(source if isinstance(source, str) else str(source))
        before = names.all()
        names.of_functions, names.read_at = frozenset(found), now.functions
        if names.all() != before:
            now = ask()
    return now


def _names_of(pool: PoolAdapter[Any]) -> _Names:
    return _names.setdefault(pool, _Names())


# The report.


def _report(runner: Any, lease: Lease, leaks: Iterable[Leak]) -> None:
    for leak in leaks:
        shown = _shown(leak.ran)
        finding = AuditFinding(
            sql=shown,
            alias=lease.alias,
            engine=runner.host.settings_dict["ENGINE"],
            kind=leak.kind.value,
            name=", ".join(_public(runner, lease, leak)),
            place=call_site.format_site(leak.ran.site),
            sure=leak.sure,
        )
        if findings.add(finding):
            named = f" ({finding.name})" if finding.name else ""
            runner.messages.warning(
                "DATABASES[%r]: this statement leaves %s%s in its session, and its text does not "
                "show that: %s\nIt ran at %s. %sUse %s. (Reported once for "
                "statements that differ only in their values.)",
                *(lease.alias, leak.kind.noun, named, shown, finding.place),
                "It was undone. "
                if leak.sure
                else "It may be local to its transaction, which "
                "cannot be seen inside a test's transaction. ",
                leak.kind.cure,
            )


def _shown(ran: Ran) -> str:
    """Return the SQL of *ran* without its values."""
    if not ran.suspects:
        return fingerprint(ran.text, _SHOWN)
    return f"{ran.text or 'one'} of {'; '.join(map(fingerprint, ran.suspects))}"


def _public(runner: Any, lease: Lease, leak: Leak) -> list[str]:
    """Return the names of *leak* that are no values.

    Those of settings are none. Others may come from a parameter, except if a function has them.
    """
    names = [name for name in leak.names if name]
    if leak.kind is Kind.SETTING or not names:
        return names
    connection, pool = ending.leased(lease)
    found: list[Any] = []
    listed = ", ".join(map(quote_literal, names))
    sql = (
        f"SELECT name FROM pg_catalog.unnest(ARRAY[{listed}]) AS name WHERE EXISTS (SELECT FROM "
        "pg_catalog.pg_proc WHERE oid >= 16384 AND pg_catalog.strpos(prosrc, name) > 0)"
    )
    with _undisturbed(runner, lease):
        found = pool.execute_internal(connection.raw, sql)
    return [str(name) for (name,) in found]
