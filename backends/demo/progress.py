"""Progress: shows the state of the comparison while it runs."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress


class Bar(ABC):
    """A progress bar for the measurement of one engine."""

    @abstractmethod
    def update(self, elapsed: float, requests: int) -> None:
        """Show the *requests* answered in *elapsed* seconds."""


class Progress(ABC):
    """Output for the user. A context manager, because drawing must be finished at the end."""

    def __enter__(self) -> Progress:
        return self

    @abstractmethod
    def __exit__(self, *exc_info: object) -> None: ...

    @abstractmethod
    def say(self, text: str) -> None:
        """Print a message."""

    @abstractmethod
    @contextmanager
    def bar(self, name: str, seconds: float) -> Iterator[Bar]:
        """Show the progress of measuring *name*, which takes *seconds*."""


class Lines(Progress):
    """Plain lines, for files and pipes."""

    def __exit__(self, *exc_info: object) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        print(text, flush=True)

    @contextmanager
    def bar(self, name: str, seconds: float) -> Iterator[Bar]:
        self.say(f"{name}: warming up, then measuring for {seconds:g} seconds ...")
        bar = _LastLine()
        yield bar
        self.say(f"{name}: {bar.requests} requests")


class _LastLine(Bar):
    requests = 0

    def update(self, elapsed: float, requests: int) -> None:
        self.requests = requests


class Live(Progress):
    """A live bar for each engine, for terminals."""

    def __init__(self) -> None:
        self._rich = RichProgress(
            TextColumn("{task.description:<21}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[state]}", markup=False),
            # Drawn only on updates, because a drawing thread would take CPU time from the clients.
            auto_refresh=False,
        )

    def __enter__(self) -> Progress:
        self._rich.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._rich.stop()

    def say(self, text: str) -> None:
        self._rich.console.print(text, markup=False, highlight=False)

    @contextmanager
    def bar(self, name: str, seconds: float) -> Iterator[Bar]:
        task = self._rich.add_task(name, total=seconds, state="warming up")
        self._rich.refresh()
        yield _LiveBar(self._rich, task)


class _LiveBar(Bar):
    def __init__(self, rich: RichProgress, task: TaskID) -> None:
        self._rich = rich
        self._task = task

    def update(self, elapsed: float, requests: int) -> None:
        state = f"{requests / elapsed:6.1f} requests/s" if elapsed > 0 else ""
        self._rich.update(self._task, completed=elapsed, state=state, refresh=True)


def progress() -> Progress:
    """Return `Live` if stdout is a terminal, else `Lines`."""
    return Live() if sys.stdout.isatty() else Lines()
