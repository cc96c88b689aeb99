"""Patience: how long the kit waits for what should happen soon."""

from __future__ import annotations


class Patience:
    """It is long as long as nothing was waited for in vain, and half of it each time after that.

    So an adapter on a slow machine is not blamed, and one that is broken does not take minutes.
    """

    #: Seconds at first, and at the end.
    LONG, SHORT = 10.0, 0.5

    def __init__(self) -> None:
        self.seconds = self.LONG

    def renew(self) -> None:
        """Begin again, for another adapter."""
        self.seconds = self.LONG

    def lose(self) -> None:
        """Something was waited for in vain."""
        self.seconds = max(self.SHORT, self.seconds / 2)


#: That of the kit; it tests one adapter at a time.
patience = Patience()
