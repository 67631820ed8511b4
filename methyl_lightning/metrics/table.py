"""A table of results: in a file as Markdown, and printed."""

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from methyl_lightning.files import replacing


def show_table(
    path: Path,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str,
    *,
    intervals: str,
    wide: int,
    names: int = 1,
    wrapped: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """Write a table as Markdown and print it; a terminal too narrow for it shows no intervals.

    Parameters
    ----------
    path
        The Markdown file, where a row is one line whatever breaks its cells have.
    header, rows
        Text; intervals stand in parentheses behind their values.
    title
        Printed above the table; ``{intervals}`` in it becomes what follows, or where the intervals are if not shown.
    intervals
        What the intervals are.
    wide
        Characters that the whole table takes, and gets where it is not printed on a terminal.
    names
        So many columns, the first ones, name what was measured; with several, rows that begin alike make a section.
    wrapped
        Headings of the columns whose cells may be broken.
    notes
        Written and printed below the table.
    """
    lines = ["| " + " | ".join(cells).replace("\n", " ") + " |" for cells in (header, ["---"] * len(header), *rows)]
    with replacing(path, "table") as temporary:
        temporary.write_text("\n".join([*lines, *([""] if notes else []), *(f"- {note}" for note in notes)]) + "\n")
    console = Console()
    console = console if console.is_terminal else Console(width=wide)
    narrow = console.width < wide
    table = Table(
        title=title.format(intervals=f"intervals in {path}" if narrow else intervals),
        title_justify="left",
        padding=(0, 0 if narrow else 1),
    )
    for name in header:
        table.add_column(name, no_wrap=name not in wrapped)
    for i, row in enumerate(rows):
        if i and names > 1 and rows[i - 1][0] != row[0]:
            table.add_section()
        table.add_row(*row[:names], *(re.sub(r"\s\(.*", "", cell) if narrow else cell for cell in row[names:]))
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False)
