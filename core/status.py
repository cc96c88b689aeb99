"""TransactionStatus: the state of the transaction on a connection, as its driver reports it."""

from __future__ import annotations

from enum import IntEnum


class TransactionStatus(IntEnum):
    """The transaction status of a connection, numbered like libpq's ``PQTRANS_*``.

    https://www.postgresql.org/docs/current/libpq-status.html#LIBPQ-PQTRANSACTIONSTATUS
    """

    IDLE = 0
    ACTIVE = 1
    IN_TRANSACTION = 2
    IN_ERROR = 3
    UNKNOWN = 4
