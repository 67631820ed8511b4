"""What a person sees while a large file is read or written: rows, rate, and the time left."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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
