"""Matrices of numbers as text, read in chunks of rows by pyarrow while the next block is unzipped.

A fault is refused with the file and the row and column, and the line where the text itself is wrong.
Legend: R rows of a chunk and K columns, of a table as it stands in its file; C CpGs, S samples.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from methyl_lightning.files import InputError
from methyl_lightning.readers.progress import shown
from methyl_lightning.readers.text import (
    MISSING,
    Layout,
    is_number,
    open_text,
    read_layout,
    refuse_cells,
    refuse_repeats,
    split_cells,
)

BLOCK_BYTES = 2**23  # of text at once
BLOCK_LINES = 64  # at least, where lines are long
ROUNDING = 1e-6  # what lies so little outside 0…1 was meant to be 0 or 1


class Chunk(NamedTuple):
    """Some rows of a matrix: their names, and float values [R, K] of the columns asked for, NaN where missing."""

    names: list[str]
    values_RK: np.ndarray


class Matrix(NamedTuple):
    """A matrix whose columns are known and whose rows can be read, once or more.

    Attributes
    ----------
    path
        Where it comes from.
    columns
        Names of the columns.
    chunks
        Reads all rows, of the columns with these names in this order.
    layout
        Of a text file.
    described
        Names of columns that say something of the rows.
    """

    path: Path
    columns: list[str]
    chunks: Callable[[list[str]], Iterator[Chunk]]
    layout: Layout | None = None
    described: tuple[str, ...] = ()

    def description(self) -> pd.DataFrame:
        """Read what a text file says of its rows, as text; of other files nothing is read."""
        if self.layout is None:
            return pd.DataFrame()
        column = [self.layout.header.index(name) for name in self.described]
        with open_text(self.path) as text:
            table = pd.read_csv(
                text.file,
                sep=self.layout.separator,
                header=None,
                skiprows=self.layout.line,
                dtype=str,
                usecols=[0, *column],
            )
        return table.fillna("")[column].set_axis(list(self.described), axis=1)


def text_matrix(path: Path, kind: str, *, dtype: type[np.floating] = np.float32, missing: bool = False) -> Matrix:
    """Open a text file, perhaps ``.gz``, whose first line and first column are names.

    Cells must be finite numbers; ``NA``, ``NaN`` or nothing gives NaN where ``missing`` is allowed. ``kind`` is what
    a row is called in messages.
    """
    layout = read_layout(path)
    return Matrix(path, layout.header[1:], _Text(path, kind, layout, dtype, missing).chunks, layout)


def read_all(matrix: Matrix) -> pd.DataFrame:
    """Read the whole of a matrix."""
    chunks = list(matrix.chunks(matrix.columns))
    values_RK = np.concatenate([chunk.values_RK for chunk in chunks])
    return pd.DataFrame(values_RK, [name for chunk in chunks for name in chunk.names], matrix.columns)


def checked_beta(matrix: Matrix, columns: list[str]) -> Iterator[Chunk]:
    """Read beta values; refuse values outside 0…1, the −0.5 shift of old Xena files and M values by name."""
    lowest, highest = 0.0, 0.0
    for names, values_RK in matrix.chunks(columns):
        lowest = np.fmin.reduce(values_RK, axis=None, initial=lowest)
        highest = np.fmax.reduce(values_RK, axis=None, initial=highest)
        if lowest < -ROUNDING or highest > 1 + ROUNDING:
            if lowest >= -0.5 and highest <= 0.5:
                range_ = f"values from {lowest:g} to {highest:g} are beta − 0.5, as in old Xena files"
                raise InputError(f"{matrix.path}: {range_}; add 0.5")
            table, outside_RK = pd.DataFrame(values_RK, names, columns), (values_RK < 0) | (values_RK > 1)
            refuse_cells(matrix.path, table, outside_RK, "beta lies within 0…1, convert it")
        yield Chunk(names, np.clip(values_RK, 0, 1))


class _Text(NamedTuple):
    path: Path
    kind: str
    layout: Layout
    dtype: type[np.floating]
    missing: bool

    def chunks(self, columns: list[str]) -> Iterator[Chunk]:
        seen: list[str] = []
        with shown(self.path) as tell, ThreadPoolExecutor(1) as pool:
            blocks = self._blocks()
            line = self.layout.line + 1
            upcoming = pool.submit(next, blocks, None)
            while (read := upcoming.result()) is not None:
                upcoming = pool.submit(next, blocks, None)  # unzips while this one is parsed
                block, share = read
                names, values_RK = self._parse(block, columns, line)
                seen += names
                tell(len(names), share)
                line += block.count(b"\n")
                if names:
                    yield Chunk(names, values_RK)
        refuse_repeats(self.path, self.kind, seen)

    def _blocks(self) -> Iterator[tuple[bytes, float]]:
        """Read blocks of whole lines below the header, and the share of the file that has been read."""
        with open_text(self.path) as text:
            header = [text.file.readline() for _ in range(self.layout.line)][-1]
            size, rest = max(BLOCK_BYTES, BLOCK_LINES * len(header)), b""
            while data := text.file.read(size):
                head, newline, tail = data.rpartition(b"\n")
                if newline:
                    yield rest + head + newline, text.share
                rest = tail if newline else rest + data
            if rest:
                yield rest, 1.0

    def _parse(self, block: bytes, columns: list[str], first_line: int) -> Chunk:
        # numbers name the columns for pyarrow, as their own names may be odd
        place = {name: str(k) for k, name in enumerate(self.layout.header)}
        wanted = [place[name] for name in columns]
        number = pa.from_numpy_dtype(self.dtype)
        try:
            table = csv.read_csv(
                pa.BufferReader(block),
                csv.ReadOptions(
                    column_names=[str(k) for k in range(self.layout.n_cells)],
                    block_size=max(2**20, BLOCK_BYTES // 16, len(block) // 16),
                ),
                csv.ParseOptions(delimiter=self.layout.separator),
                csv.ConvertOptions(
                    column_types={"0": pa.binary(), **dict.fromkeys(wanted, number)},
                    include_columns=["0", *wanted],
                    null_values=MISSING,
                ),
            )
        except pa.ArrowInvalid as error:
            if not block.strip(b"\r\n"):
                return Chunk([], np.empty((0, len(columns)), self.dtype))
            self._diagnose(block, set(columns), first_line)
            raise InputError(f"{self.path}: cannot be read ({error}); mend or replace it") from error
        names = [name.decode(errors="replace").strip() for name in table.column("0").to_pylist()]
        values_KR = np.empty((len(wanted), len(names)), self.dtype)
        for k, column in enumerate(wanted):
            values_KR[k] = table.column(column).to_numpy()
        values_RK = values_KR.T
        refused_RK = np.isinf(values_RK) if self.missing else ~np.isfinite(values_RK)
        if refused_RK.any():
            refuse_cells(self.path, pd.DataFrame(values_RK, names, columns), refused_RK, self._remedy())
        return Chunk(names, values_RK)

    def _remedy(self) -> str:
        return f"put a number{' or NA' if self.missing else ''} there"

    def _diagnose(self, block: bytes, columns: set[str], first_line: int) -> None:
        """Refuse the first line of a block that has too few or many cells, or text in one that is wanted."""
        for number, line in enumerate(block.split(b"\n"), first_line):
            cells = split_cells(line, self.layout.separator)
            if not line.strip(b"\r"):
                continue
            where = f"{self.path}: line {number}: row {cells[0]!r}"
            if len(cells) != self.layout.n_cells:
                raise InputError(f"{where} has {len(cells)} cells, the header {self.layout.n_cells}; mend the row")
            for name, cell in zip(self.layout.header[1:], cells[1:], strict=False):
                if name in columns and cell not in MISSING and not is_number(cell):
                    raise InputError(f"{where}, column {name!r} is {cell!r}; {self._remedy()}")
