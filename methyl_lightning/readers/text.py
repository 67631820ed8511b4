"""Text tables line by line, and what is refused in them.

Every reader names the file, the row or column and the remedy in one line (`InputError`) before anything is written.
Legend: R rows and K columns of a table as it stands in its file.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from methyl_lightning.files import InputError

MISSING = ["NA", "", "NaN", "nan"]


def refuse_repeats(path: Path, kind: str, names: list[str]) -> None:
    """Refuse a name that occurs twice."""
    repeated = pd.Index(names)[pd.Index(names).duplicated()]
    if len(repeated):
        raise InputError(f"{path}: {kind} {repeated[0]!r} occurs twice; keep one of them")


def refuse_cells(path: Path, table: pd.DataFrame, bad_RK: np.ndarray, remedy: str) -> None:
    """Refuse a table with a bad cell and name the first."""
    if bad_RK.any():
        r, k = np.argwhere(bad_RK)[0]
        cell = f"row {table.index[r]!r}, column {table.columns[k]!r} is '{table.to_numpy()[r, k]}'"
        raise InputError(f"{path}: {cell}; {remedy}")


def read_lines(path: Path) -> Iterator[bytes]:
    """Read the lines of a file, through gzip where its name ends in ``.gz``."""
    try:
        with gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); check the name or get the file again") from error


def split_cells(line: bytes, separator: str) -> list[str]:
    """Split a line into text, without quotes around a cell."""
    return [cell.strip('"') for cell in line.decode("utf-8-sig", errors="replace").rstrip("\r\n").split(separator)]


def header_and_rows(path: Path, separator: str) -> tuple[list[str], list[bytes]]:
    """Read the names of the columns and the lines below, each with as many cells."""
    lines = [line for line in read_lines(path) if line.strip(b"\r\n")]
    header = split_cells(lines[0], separator) if lines else []
    if len(lines) < 2 or len(header) < 2:
        raise InputError(f"{path}: empty, or not text with {separator!r} between cells (.gz if zipped); replace it")
    for line in lines[1:]:
        if line.count(separator.encode()) != len(header) - 1:
            cells = split_cells(line, separator)
            raise InputError(f"{path}: row {cells[0]!r} has {len(cells)} cells, the header {len(header)}; mend the row")
    refuse_repeats(path, "column", header)
    return header, lines[1:]


def read_text(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a TSV with at least these columns as text, indexed by the first of them; a ``#`` before the header goes."""
    header, rows = header_and_rows(path, "\t")
    header = [name.removeprefix("#") for name in header]
    for column in columns:
        if column not in header:
            raise InputError(f"{path}: no column {column!r} among {', '.join(header)}; add or rename it")
    return pd.DataFrame([split_cells(row, "\t") for row in rows], columns=header, dtype=str).set_index(columns[0])
