"""TransactionStatus: what a driver says of the transaction on its connection."""

from __future__ import annotations

from enum import IntEnum


class TransactionStatus(IntEnum):
    """A connection's transaction status, numbered as libpq's ``PQTRANS_*``.

    https://www.postgresql.org/docs/current/libpq-status.html#LIBPQ-PQTRANSACTIONSTATUS
    """

    IDLE = 0
    ACTIVE = 1
    IN_TRANSACTION = 2
    IN_ERROR = 3
    UNKNOWN = 4
