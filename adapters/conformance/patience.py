"""Patience: how long the kit waits for something that should happen soon."""

from __future__ import annotations


class Patience:
    """A long time at first, which is halved each time that it runs out.

    So an adapter is not blamed for a slow machine, and a broken one does not take minutes.
    """

    #: Seconds at first, and at the end.
    LONG, SHORT = 10.0, 0.5

    def __init__(self) -> None:
        self.seconds = self.LONG

    def renew(self) -> None:
        """Start again, for another adapter."""
        self.seconds = self.LONG

    def lose(self) -> None:
        """Record that the time has run out."""
        self.seconds = max(self.SHORT, self.seconds / 2)


#: The kit's own. The kit tests one adapter at a time.
patience = Patience()
