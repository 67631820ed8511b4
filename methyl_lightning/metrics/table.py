"""A table of results: in a file as Markdown or CSV, and printed."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from methyl_lightning.files import replacing

FORMULA = re.compile(
    r"[=@\t\r]|[+-](?!(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$|$)", re.IGNORECASE
)  # what a spreadsheet would run


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


def write_csv(table: pd.DataFrame, path: Path, purpose: str = "table") -> None:
    """Write a table as CSV that no spreadsheet runs, or nothing."""
    with replacing(path, purpose) as temporary:
        without_formulas(table).to_csv(temporary, index=False)


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Put an apostrophe before text that a spreadsheet would take for a formula: cells, headings and the index."""

    def shown(cell: Any) -> Any:
        return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell

    text = table.select_dtypes(exclude="number")
    return table.assign(**{str(name): text[name].map(shown) for name in text}).rename(index=shown, columns=shown)
