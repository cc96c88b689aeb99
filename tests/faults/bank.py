"""Accounts, and transfers between them: money is neither made nor lost."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, connections, models, transaction
from django.db.models import F, Sum

from ..support import driver

ACCOUNTS, EACH = 50, 1000
TOTAL = ACCOUNTS * EACH


class Account(models.Model):
    balance = models.BigIntegerField()

    class Meta:
        app_label = "faults"


class Transfer(models.Model):
    #: Not unique: what is written twice is to be seen.
    token = models.UUIDField(db_index=True)
    source = models.ForeignKey(Account, models.CASCADE, related_name="+")
    target = models.ForeignKey(Account, models.CASCADE, related_name="+")
    amount = models.IntegerField()

    class Meta:
        app_label = "faults"


def found(alias: str) -> None:
    """Make the tables, and open the accounts."""
    close(alias)
    with connections[alias].schema_editor() as editor:
        editor.create_model(Account)
        editor.create_model(Transfer)
    accounts = [Account(pk=number, balance=EACH) for number in range(ACCOUNTS)]
    Account.objects.using(alias).bulk_create(accounts)


def close(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS faults_transfer, faults_account")


class Client:
    """Has transfers done, one after the other, and remembers what was acknowledged."""

    def __init__(self, alias: str, seed: str) -> None:
        self.alias = alias
        self.chance = random.Random(seed)
        self.acknowledged: list[uuid.UUID] = []
        self.tried: set[uuid.UUID] = set()
        #: One whose outcome is not known.
        self.unknown: Transfer | None = None

    def transfer(self) -> None:
        """Do one; again the last, if that may have failed, and is not there."""
        wanted, retried = self.unknown, self.unknown is not None
        if wanted is None:
            source, target = self.chance.sample(range(ACCOUNTS), 2)
            token = uuid.UUID(int=self.chance.getrandbits(128))
            wanted = Transfer(token=token, source_id=source, target_id=target)
            wanted.amount = self.chance.randint(1, 9)
        self.tried.add(wanted.token)
        # Now and then the client never asks what became of it.
        self.unknown = wanted if self.chance.random() < 0.7 else None
        self._transfer(wanted, retried)
        self.unknown = None
        self.acknowledged.append(wanted.token)

    def _transfer(self, wanted: Transfer, retried: bool) -> None:
        accounts = Account.objects.using(self.alias)
        both = accounts.filter(pk__in=(wanted.source_id, wanted.target_id))
        with transaction.atomic(using=self.alias):
            pid = self._pid()
            assert len(both.select_for_update().order_by("pk")) == 2
            # The lock is waited for, so whatever still ran for it before has ended.
            if retried and Transfer.objects.using(self.alias).filter(token=wanted.token).exists():
                return
            accounts.filter(pk=wanted.source_id).update(balance=F("balance") - wanted.amount)
            if self.chance.random() < 0.2:
                # Careless: whatever becomes of this, it goes on.
                with suppress(DatabaseError):
                    self._sleep()
            with transaction.atomic(using=self.alias):
                Transfer(
                    token=wanted.token,
                    source_id=wanted.source_id,
                    target_id=wanted.target_id,
                    amount=wanted.amount,
                ).save(using=self.alias, force_insert=True)
            accounts.filter(pk=wanted.target_id).update(balance=F("balance") + wanted.amount)
            assert self._pid() == pid

    def read(self) -> None:
        """Look at all accounts, in one statement: nothing is missing at any moment."""
        found = Account.objects.using(self.alias).aggregate(Sum("balance"))["balance__sum"]
        assert found == TOTAL, found

    def iterate(self) -> None:
        """The same with a server-side cursor."""
        accounts = Account.objects.using(self.alias)
        found = sum(account.balance for account in accounts.iterator(chunk_size=10))
        assert found == TOTAL, found

    def set(self) -> None:
        """Leave something in the session; nobody else is to find it, and nobody has left any."""
        wrapper: Any = connections[self.alias]
        name = f"client {id(self)}"
        try:
            with wrapper.cursor() as cursor:
                cursor.execute("SHOW application_name")
                assert cursor.fetchone()[0].startswith("relet ")
                cursor.execute("SELECT set_config('application_name', %s, false)", [name])
                cursor.execute("SHOW application_name")
                assert cursor.fetchone() == (name,)
        finally:
            wrapper.close()

    def _sleep(self) -> None:
        with connections[self.alias].cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [self.chance.random() / 20])

    def _pid(self) -> int:
        with connections[self.alias].cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return int(cursor.fetchone()[0])


def audit(observer: driver.Observer, clients: list[Client]) -> int:
    """I12: whatever was acknowledged is there once, and all balances agree; count transfers."""
    there = Counter(
        uuid.UUID(token)
        for (token,) in observer.execute("SELECT token::text FROM faults_transfer").fetchall()
    )
    assert not [token for token, times in there.items() if times > 1]
    assert not {token for client in clients for token in client.acknowledged} - set(there)
    assert not set(there) - {token for client in clients for token in client.tried}
    wrong = observer.execute(
        """
        SELECT id, balance, agreed FROM faults_account, LATERAL (
            SELECT %s
                + coalesce(sum(amount) FILTER (WHERE target_id = faults_account.id), 0)
                - coalesce(sum(amount) FILTER (WHERE source_id = faults_account.id), 0) AS agreed
            FROM faults_transfer
        ) AS recomputed WHERE balance <> agreed
        """,
        [EACH],
    ).fetchall()
    assert not wrong
    ((total,),) = observer.execute("SELECT sum(balance)::bigint FROM faults_account").fetchall()
    assert total == TOTAL
    return len(there)
