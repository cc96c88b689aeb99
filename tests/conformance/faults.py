"""Adapters with one fault each, and the rule that it breaks."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sqlalchemy import exc
from sqlalchemy.pool import QueuePool

from relet.adapters.queue_pool.lean_queue_pool import LeanQueuePool, PoolClosed
from relet.adapters.slots import Slot
from relet.adapters.sqlalchemy import SQLAlchemyAdapter
from relet.adapters.waiter import Waiter
from relet.core import PooledConnection

#: Faulty adapter -> the rule.
FAULTS: dict[type[Any], str] = {}


def breaks(rule: str) -> Any:
    def register(adapter: type[Any]) -> type[Any]:
        FAULTS[adapter] = rule
        return adapter

    return register


def with_pool(pool_class: type[Any]) -> Any:
    """Have an adapter use *pool_class*."""

    def decorate(adapter: type[Any]) -> type[Any]:
        def arguments(cls: Any, options: Any) -> Any:
            return pool_class, dict(options)

        adapter._arguments = classmethod(arguments)
        return adapter

    return decorate


# Waiting.


@breaks("lost waiter")
class LeaksOnTimeout(SQLAlchemyAdapter):
    """Who gives up leaves somebody behind who goes on waiting."""

    def checkout(self, timeout=None):
        try:
            return super().checkout(timeout)
        except self.dbapi.OperationalError:
            if not self.closed:
                threading.Thread(target=self._go_on, daemon=True).start()
                while not self.stats().waiting:
                    time.sleep(0.001)
            raise

    def _go_on(self):
        with suppress(Exception):
            SQLAlchemyAdapter.checkout(self, 60)


@breaks("timeout")
class IgnoresTheTimeout(SQLAlchemyAdapter):
    def checkout(self, timeout=None):
        return super().checkout(60)


@breaks("timeout")
class GivesUpAtOnce(SQLAlchemyAdapter):
    def checkout(self, timeout=None):
        return super().checkout(0)


@breaks("timeout")
class RaisesAnErrorOfItsOwn(SQLAlchemyAdapter):
    def checkout(self, timeout=None):
        try:
            return super().checkout(timeout)
        except self.dbapi.OperationalError as error:
            raise TimeoutError(str(error)) from error


@breaks("timeout")
class DoesNotNameTheAlias(SQLAlchemyAdapter):
    def exhausted(self, error_class, error, cure):
        return error_class(error)


@breaks("order")
class ServesTheLastFirst(SQLAlchemyAdapter):
    def checkin(self, connection):
        self._pool.fairness = 0  # it is handed over at once
        self._pool._waiting.reverse()
        try:
            super().checkin(connection)
        finally:
            self._pool._waiting.reverse()


@breaks("order")
@with_pool(QueuePool)
class DoesNotCountWhoWaits(SQLAlchemyAdapter):
    """SQLAlchemy's own QueuePool, which lets newcomers get ahead, too."""


@breaks("overtaking")
class LetsNewcomersGetAhead(SQLAlchemyAdapter):
    """What comes back lies about for a moment, and whoever wants one just then takes it."""

    ahead = 0

    def __init__(self, config):
        super().__init__(config)
        self.lying: list[Any] = []

    def checkin(self, connection):
        if self.closed or not self.stats().waiting or self.ahead == 20:
            self.ahead = 0
            super().checkin(connection)
            return
        self.ahead += 1
        connection.last_used_at = time.monotonic()
        self.lying.append(connection)
        threading.Timer(0.01, self._pick_up).start()

    def _pick_up(self):
        with suppress(IndexError):
            super().checkin(self.lying.pop())

    def checkout(self, timeout=None):
        with suppress(IndexError):
            return self.lying.pop()
        return super().checkout(timeout)


class Deaf(LeanQueuePool):
    """Who gives up does not look whether anything has come meanwhile."""

    def _wait_into(self, slot, timeout):
        waiter = Waiter()
        with self._lock:
            if self.closed:
                raise PoolClosed("the pool is closed")
            self.checkouts += 1
            self.waits += 1
            self._waiting.append(waiter)
            self._serve()
        seconds = self._timeout if timeout is None else timeout
        if not waiter.wait(seconds):
            with self._lock:
                waiter.leave(self._waiting)
            raise exc.TimeoutError("in vain")
        if waiter.error is not None:
            raise waiter.error
        self._attach(waiter.conn, slot)


@breaks("handover")
@with_pool(Deaf)
class LosesWhatComesAtTheLastMoment(SQLAlchemyAdapter):
    pass


@breaks("discard")
class LosesWaiters(SQLAlchemyAdapter):
    """Nobody is told that a place came free."""

    def discard(self, connection):
        entry, connection.entry, connection.raw = connection.entry, None, None
        entry.close()
        del self._pool.leased[entry]


@breaks("interrupted waiter")
class LosesWhatAnInterruptedWaiterWasToHave(SQLAlchemyAdapter):
    def checkout(self, timeout=None):
        try:
            return super().checkout(timeout)
        except Exception:
            raise
        except BaseException:
            threading.Thread(target=lambda: super(type(self), self).checkout(60)).start()
            while not self.stats().waiting:
                time.sleep(0.001)
            raise


@breaks("struck")
class IsNotSafeFromWhatStrikes(SQLAlchemyAdapter):
    """It has a connection at hand for an instant, and no lease has it."""

    def checkout_into(self, lease, timeout=None):
        slot = Slot()
        super().checkout_into(slot, timeout)
        lease.connection = slot.connection


# What leases call.


class HasMethodsForLeases(SQLAlchemyAdapter):
    """What leases call is not used by checkout(), checkin() and discard()."""

    def checkout(self, timeout=None):
        slot = Slot()
        SQLAlchemyAdapter.checkout_into(self, slot, timeout)
        return slot.connection

    def checkin(self, connection):
        SQLAlchemyAdapter.checkin_from(self, Slot(connection))

    def discard(self, connection):
        SQLAlchemyAdapter.discard_from(self, Slot(connection))


@breaks("timeout")
class IgnoresTheTimeoutOfLeases(HasMethodsForLeases):
    """And waits as long as the pool does by itself."""

    def checkout_into(self, lease, timeout=None):
        super().checkout_into(lease)


@breaks("proven")
class DoesNotTellLeasesWhenItWorked(HasMethodsForLeases):
    def checkin_from(self, lease):
        connection = lease.connection
        before = connection.last_used_at
        super().checkin_from(lease)
        connection.last_used_at = before


@breaks("discard")
class KeepsTheLeaseOfWhatIsDiscarded(HasMethodsForLeases):
    def discard_from(self, lease):
        super().discard_from(Slot(lease.connection))


# Opening.


@breaks("open at once")
class OpensTwice(SQLAlchemyAdapter):
    """Each thread that finds it not open makes a pool, and the others are lost."""

    openers = 0

    def open(self):
        if not self._opened:
            self.openers += 1
            time.sleep(0.02 * self.openers)
            self._pool = self._lean = self.fair_queue = self._make_pool()
        super().open()


@breaks("refused")
class LosesAPlaceWithEachRefusal(SQLAlchemyAdapter):
    """The place counts neither as in use nor as idle."""

    lost = 0

    def checkout_into(self, lease, timeout=None):
        try:
            super().checkout_into(lease, timeout)
        except self.dbapi.OperationalError as error:
            if "cannot connect" in str(error):
                self._pool.leased[object()] = None
                self.lost += 1
            raise

    def stats(self):
        stats = super().stats()
        return replace(stats, in_use=stats.in_use - self.lost)


# Checkout and checkin.


@breaks("exclusive")
class HandsOutWhatIsCheckedOut(SQLAlchemyAdapter):
    last: Any = None

    def checkout(self, timeout=None):
        if self.last is None or self.last.raw is None:
            self.last = super().checkout(timeout)
        return self.last


@breaks("remembered")
class ForgetsToForget(SQLAlchemyAdapter):
    """What was known of a connection that is gone is taken to be known of its successor."""

    first: Any = None

    def checkout(self, timeout=None):
        connection = super().checkout(timeout)
        if self.first is None:
            self.first = connection
        self.first.raw, self.first.entry = connection.raw, connection.entry
        return self.first


@breaks("remembered")
class RemembersNothing(SQLAlchemyAdapter):
    def checkout(self, timeout=None):
        connection = super().checkout(timeout)
        return PooledConnection(connection.raw, connection.last_used_at, connection.entry)


@breaks("emptied")
class KeepsWhatItWasGiven(SQLAlchemyAdapter):
    def checkin(self, connection):
        raw = connection.raw
        super().checkin(connection)
        connection.raw = raw


@breaks("emptied")
class KeepsWhatItThrewAway(HasMethodsForLeases):
    def discard_from(self, lease):
        connection, raw = lease.connection, lease.connection.raw
        super().discard_from(lease)
        connection.raw = raw


@breaks("noted")
class SendsTheSignalAnew(SQLAlchemyAdapter):
    def checkin(self, connection):
        super().checkin(connection)
        connection.initialized = False


@breaks("noted")
class CopiesWhatWasNoted(SQLAlchemyAdapter):
    """To what comes after a connection that it has thrown away."""

    baseline: Any = None

    def checkout(self, timeout=None):
        connection = super().checkout(timeout)
        connection.baseline = connection.baseline or self.baseline
        return connection

    def discard(self, connection):
        self.baseline = connection.baseline
        super().discard(connection)


@breaks("pid and facts")
class TellsNothingOfWhatIsClosed(SQLAlchemyAdapter):
    def backend_pid(self, raw):
        return self.execute_internal(raw, "SELECT pg_backend_pid()")[0][0]


@breaks("pid and facts")
class TellsAnotherPid(SQLAlchemyAdapter):
    def backend_pid(self, raw):
        return 1


@breaks("proven")
class DoesNotSayWhenItWorked(SQLAlchemyAdapter):
    def checkin(self, connection):
        before = connection.last_used_at
        super().checkin(connection)
        connection.last_used_at = before


@breaks("parameters")
class AsksForParametersOnce(SQLAlchemyAdapter):
    def __init__(self, config):
        super().__init__(replace(config, connect=config.parameters(), ask=dict))


@breaks("configure")
class DoesNotConfigure(SQLAlchemyAdapter):
    def _creator(self):
        return lambda: self.connect(self.config.parameters())


@breaks("configure")
class ConfiguresEachTime(SQLAlchemyAdapter):
    def checkout(self, timeout=None):
        connection = super().checkout(timeout)
        self.config.configure(connection.raw)
        return connection


@breaks("configure")
class ConfiguresInATransaction(SQLAlchemyAdapter):
    """And rolls it back, with what was SET."""

    def _creator(self):
        def create():
            raw = self.connect(self.config.parameters())
            raw.autocommit = False
            self.config.configure(raw)
            raw.rollback()
            raw.autocommit = True
            return raw

        return create


@breaks("order")
class DoesNotCountWhoHasWaited(SQLAlchemyAdapter):
    def stats(self):
        return replace(super().stats(), waits=0)


class Forgetful(LeanQueuePool):
    def _connect_failed(self, entry, error):
        super()._connect_failed(entry, error)
        self.leased[entry] = None


@breaks("failed configure")
@with_pool(Forgetful)
class LosesThePlaceOfWhatCouldNotBeConfigured(SQLAlchemyAdapter):
    pass


@breaks("autocommit")
class FlipsAutocommit(SQLAlchemyAdapter):
    """As a ping that switches autocommit on, and back to what it takes for the usual."""

    def ping(self, raw):
        raw.autocommit = True
        try:
            return super().ping(raw)
        finally:
            with suppress(self.dbapi.Error):
                raw.autocommit = False


@breaks("autocommit")
class LeavesATransactionOpen(SQLAlchemyAdapter):
    def checkout(self, timeout=None):
        connection = super().checkout(timeout)
        self.execute_internal(connection.raw, "BEGIN")
        return connection


@breaks("counts")
class CountsWrong(SQLAlchemyAdapter):
    """Of what is discarded it goes on to think that it is checked out."""

    lost = 0

    def discard(self, connection):
        super().discard(connection)
        self.lost += 1

    def stats(self):
        stats = super().stats()
        return replace(stats, in_use=stats.in_use + self.lost)


@breaks("limit")
class OpensTooMany(SQLAlchemyAdapter):
    def checkout(self, timeout=None):
        try:
            return super().checkout(timeout)
        except self.dbapi.OperationalError:
            if self.closed:
                raise
            self._pool._max_overflow += 1
            return super().checkout(timeout)


# Discarding.


@breaks("discard")
class ChecksInWhatIsDiscarded(SQLAlchemyAdapter):
    def discard(self, connection):
        self.checkin(connection)


@breaks("broken")
class RaisesOnDiscard(SQLAlchemyAdapter):
    def discard(self, connection):
        self.execute_internal(connection.raw, "ROLLBACK")
        super().discard(connection)


@breaks("broken")
class RaisesOnPing(SQLAlchemyAdapter):
    def ping(self, raw):
        self.execute_internal(raw, "SELECT 1")
        return True


@breaks("broken")
class TakesAllToBeWell(SQLAlchemyAdapter):
    def ping(self, raw):
        return True


@breaks("status")
class GuessesTheStatus(SQLAlchemyAdapter):
    def transaction_status(self, raw):
        return 4 if raw.closed else 0


@breaks("run")
class RunsTheFirstStatementOnly(SQLAlchemyAdapter):
    def execute_internal(self, raw, sql):
        return super().execute_internal(raw, sql.partition(";")[0])


@breaks("settings")
class ForgetsWhatTheDriverKeeps(SQLAlchemyAdapter):
    """So what one has set would not be reset for the next."""

    def driver_state(self, raw):
        return None


# Closing.


@breaks("close")
class ClosesTwice(SQLAlchemyAdapter):
    def close(self):
        if self.closed:
            raise RuntimeError("closed already")
        super().close()


@breaks("close")
class KeepsWhatComesBackLate(SQLAlchemyAdapter):
    def checkin(self, connection):
        if self.closed:
            connection.raw = None
        else:
            super().checkin(connection)


@breaks("close")
class ClosesWhatIsInUse(SQLAlchemyAdapter):
    def __init__(self, config):
        super().__init__(config)
        self.out: set[Any] = set()

    def checkout(self, timeout=None):
        connection = super().checkout(timeout)
        self.out.add(connection)
        return connection

    def close(self):
        super().close()
        for connection in self.out:
            if connection.raw is not None:
                connection.raw.close()


@breaks("close while waiting")
class LetsThemWait(SQLAlchemyAdapter):
    def close(self):
        waiting, self._pool._waiting = self._pool._waiting, type(self._pool._waiting)()
        super().close()
        self._pool._waiting = waiting


# Threads.


@breaks("thread safety")
class IsNotThreadSafe(SQLAlchemyAdapter):
    """Keeps one at hand, and looks at it before it takes it."""

    at_hand: Any = None

    def checkout(self, timeout=None):
        if (connection := self.at_hand) is not None:
            time.sleep(0.001)
            self.at_hand = None
            return connection
        return super().checkout(timeout)

    def checkin(self, connection):
        if self.at_hand is None and not (self.closed or self.stats().waiting):
            connection.last_used_at = time.monotonic()
            self.at_hand = connection
        else:
            super().checkin(connection)


# Facts.


@breaks("options")
class TakesAnyOption(SQLAlchemyAdapter):
    @classmethod
    def check_options(cls, options):
        pass


@breaks("facts")
class TextIsBytes(SQLAlchemyAdapter):
    @classmethod
    def sql_text(cls, query):
        return query


@breaks("notices")
class RaisesWhereNoticesAre(SQLAlchemyAdapter):
    keeps_notices = True

    def drop_notices(self, raw):
        raise RuntimeError("there are none")


@breaks("booleans")
class TakesAllForTrue(SQLAlchemyAdapter):
    def boolean_columns(self, cursor):
        return [True]


@breaks("booleans")
class FetchesToRead(SQLAlchemyAdapter):
    def boolean_columns(self, cursor):
        return list(cursor.fetchone())


@breaks("unread data")
class NeverHasUnreadData(SQLAlchemyAdapter):
    def has_unread_data(self, raw):
        return False


@breaks("no pool")
class PoolsAllTheSame(SQLAlchemyAdapter):
    @classmethod
    def _arguments(cls, options):
        return super()._arguments({} if options is False else options)


@breaks("machine")
class LosesAPlaceNowAndThen(SQLAlchemyAdapter):
    """No single rule shows it: it takes three that broke, and one of two checked out."""

    breaks = 0

    def discard_from(self, lease):
        self.breaks += self.transaction_status(lease.connection.raw) == 4
        super().discard_from(lease)
        if self.breaks == 3 and self.stats().in_use == 1:
            self._pool.leased[object()] = None
