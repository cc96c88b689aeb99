"""I5, I6, I8, I12, I18 while processes are killed, the server restarts, the network fails."""

from __future__ import annotations

import os

import pytest

from .chaos import ALIAS, CONNECTIONS, SEED, chaos

SECONDS = float(os.environ.get("RELET_CHAOS_SECONDS", "10"))


@pytest.mark.slow
@pytest.mark.usefixtures("garbage")
def test_chaos(postgres, network, use, caplog):
    caplog.set_level("ERROR", "psycopg.pool")  # it warns of each connection that was lost
    print(f"RELET_CHAOS_SEED={SEED}")
    use(network.port, alias=ALIAS, size=CONNECTIONS)
    chaos(postgres, network, SECONDS, name=SEED, interrupts=False)
