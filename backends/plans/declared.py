"""The targets that are declared, by alias, and the books of the pools that prepare them.

A pool has a book only if there is something to prepare. All other pools run the code that they
would run if there were none of this.
"""

from __future__ import annotations

import _thread
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from relet.backends.config.prepare import Prepare
from relet.backends.pools import pools
from relet.core import PoolAdapter

if TYPE_CHECKING:
    from relet.core.plans import Targets

logger = logging.getLogger("relet")

_targets: dict[str, Targets] = {}


class _Blocks:
    """Whether ``relet.prepared`` was ever used in this process."""

    used = False


def targets_of(alias: str) -> Targets:
    """Return the targets of *alias*, to which more may be added."""
    from relet.core.plans import Targets  # not at the top: most processes prepare nothing

    return _targets.get(alias) or _targets.setdefault(alias, Targets(alias))


def declared_aliases() -> list[str]:
    """Return the aliases that have targets, sorted."""
    return sorted(alias for alias, targets in list(_targets.items()) if len(targets))


def forked() -> None:
    """Keep the targets of the parent in a forked child, but not its counts."""
    for targets in _targets.values():
        for target in targets:
            target.forked()


def is_asked_for(alias: str) -> bool:
    """Return whether something is to be prepared for *alias*, whatever its settings say."""
    return _Blocks.used or bool(_targets.get(alias))


def give_book(pool: PoolAdapter[Any], options: Prepare | None) -> None:
    """Have *pool* prepare the targets of its alias, if there are any or *options* ask for it."""
    alias = pool.config.alias
    if options is None and not is_asked_for(alias):
        return
    if pool.plans is not None or pool.cannot_prepare():
        return
    from relet.core.plans import PlanBook

    from .matches import matched

    _watch_migrations()
    found = options or Prepare()
    book = PlanBook(
        targets_of(alias),
        after=found.after if found.mode == "auto" else None,
        most=found.max,
        tell=_tell,
        matched=matched,
    )
    if _Blocks.used:
        book.open_to_blocks()
    pool.prepare_targets(book)


def targets_changed(alias: str) -> None:
    """Have the open pools of *alias* prepare its targets, from their next cursor on."""
    for handle in pools:
        if handle.alias == alias:
            if handle.pool.plans is not None:
                handle.pool.plans.read_again()
            else:
                give_book(handle.pool, None)


def open_to_blocks() -> None:
    """Have all pools look for ``relet.prepared`` blocks, from now on."""
    if not _Blocks.used:
        _Blocks.used = True
        for handle in pools:
            if handle.pool.plans is not None:
                handle.pool.plans.open_to_blocks()
            else:
                give_book(handle.pool, None)


def _watch_migrations() -> None:
    # Not at the top: it imports Django's models.
    from django.db.models.signals import post_migrate

    post_migrate.connect(_migrated, dispatch_uid="relet.plans")


def _migrated(using: str, **kwargs: Any) -> None:
    """Have the pools of the database *using* prepare anew. A receiver of ``post_migrate``."""
    for handle in pools:
        if handle.alias == using and handle.pool.plans is not None:
            handle.pool.plans.renew()


def _tell(message: str) -> None:
    """Log *message* in a thread of its own: a handler may need the connection that is in use."""
    with suppress(RuntimeError):  # too many threads, or the interpreter is shutting down
        _thread.start_new_thread(partial(logger.warning, "%s", message), ())
