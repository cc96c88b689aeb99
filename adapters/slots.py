"""Slots: checkout and checkin for adapters that move connections into and out of leases."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from relet.core import PoolAdapter, PooledConnection


class Slot:
    """Holds a checked-out connection that no lease has."""

    __slots__ = ("connection",)

    def __init__(self, connection: PooledConnection | None = None) -> None:
        self.connection = connection


class SlotAdapter(PoolAdapter[Any]):
    """An adapter that implements `checkout()` and the like by `checkout_into()` and the like."""

    @abstractmethod
    def checkout_into(self, lease: Any, timeout: float | None = None) -> None: ...

    @abstractmethod
    def checkin_from(self, lease: Any) -> None: ...

    @abstractmethod
    def discard_from(self, lease: Any) -> None: ...

    def checkout(self, timeout: float | None = None) -> PooledConnection:
        slot = Slot()
        try:
            self.checkout_into(slot, timeout)
        except BaseException:
            if slot.connection is not None:
                self.discard_from(slot)
            raise
        assert slot.connection is not None
        return slot.connection

    def checkin(self, connection: PooledConnection) -> None:
        slot = Slot(connection)
        try:
            self.checkin_from(slot)
        except BaseException:
            if slot.connection is not None:
                self.discard_from(slot)
            raise

    def discard(self, connection: PooledConnection) -> None:
        self.discard_from(Slot(connection))
