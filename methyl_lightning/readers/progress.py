"""One bar for all long work: drawn on a terminal, elsewhere a line every ten seconds, and one in the log at the end."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)
EVERY_S = 10  # between two lines where there is no terminal
QUIET_S = 5  # what takes less is not logged


@contextmanager
def shown(what: str | Path, total: float | None = None, unit: str = "rows") -> Iterator[Callable[..., None]]:
    """Show how far some work is.

    Parameters
    ----------
    what
        The work, or the file that is read.
    total, unit
        How much there is to do, where that is known, and in what.

    Yields
    ------
    Callable
        To be told how much more is done, and the share that is done by then where ``total`` is not known.
    """
    name, console = Path(what).name, Console(stderr=True)
    started = said = time.perf_counter()
    done = 0.0
    amount = TextColumn("{task.fields[amount]}")
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(20), TaskProgressColumn(), amount, *times)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(name, total=None, amount="")

        def tell(more: float, share: float | None = None) -> None:
            nonlocal done, said
            done += more
            now = time.perf_counter()
            share = done / total if share is None and total else share
            text = f"{done:,.0f} {unit}, {done / (now - started):,.0f} {unit}/s"
            bar.update(task, completed=share or 0.0, total=None if share is None else 1.0, amount=text)
            if not console.is_terminal and now - said >= EVERY_S:
                said = now
                left = f", {(now - started) * (1 - share) / share:,.0f} s left" if share else ""
                console.print(f"{name}: {text}{left}", soft_wrap=True)

        yield tell
    seconds = time.perf_counter() - started
    if seconds > QUIET_S:
        log.info(f"{what}: {done:,.0f} {unit} in {seconds:,.1f} s, {done / seconds:,.0f} {unit}/s")
