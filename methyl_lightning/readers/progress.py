"""What a person sees while training: steps, rate, time left, and the two validation metrics."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class RowProgress:
    """Rows done, rate and time left: a bar on a terminal, elsewhere a line every ten seconds.

    Parameters
    ----------
    description, total, unit
        What is done, to how many, and what they are called.
    """

    EVERY_SECONDS = 10.0

    def __init__(self, description: str, total: int, unit: str):
        self._description, self._total, self._unit = description, total, unit
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._done, self._start, self._said = 0, 0.0, 0.0

    def __enter__(self) -> "RowProgress":
        self._start = self._said = time.perf_counter()
        if self._console.is_terminal:
            left = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
            )
            self._bar = Progress(*columns, *left, console=self._console)
            self._bar.add_task(self._description, total=self._total, rate="")
            self._bar.start()
        return self

    def advance(self, rows: int) -> None:
        """Say that so many more rows are done."""
        self._done += rows
        now = time.perf_counter()
        rate = self._done / (now - self._start)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, rate=f"{rate:,.0f} {self._unit}/s")
        elif now - self._said >= self.EVERY_SECONDS:
            self._said = now
            left = f"{(self._total - self._done) / rate:,.0f} s left"
            done = f"{self._done:,}/{self._total:,} {self._unit}"
            self._console.print(f"{self._description}: {done}, {rate:,.0f} {self._unit}/s, {left}", soft_wrap=True)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()


log = logging.getLogger(__name__)
QUIET_S = 5  # what takes less is not logged


@contextmanager
def shown(what: str | Path) -> Iterator[Callable[[int, float], None]]:
    """Show a bar on a terminal, and one line at the end of what took long; the block tells rows and share so far."""
    started, n_rows = time.perf_counter(), 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(Path(what).name, total=1.0, rows="")

        def tell(more_rows: int, share: float) -> None:
            nonlocal n_rows
            n_rows += more_rows
            rate = n_rows / (time.perf_counter() - started)
            bar.update(task, completed=share, rows=f"{n_rows:,} rows, {rate:,.0f} rows/s")

        yield tell
    seconds = time.perf_counter() - started
    if seconds > QUIET_S:
        log.info(f"{what}: {n_rows:,} rows in {seconds:,.1f} s, {n_rows / seconds:,.0f} rows/s")
