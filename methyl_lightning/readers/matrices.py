"""Matrices of numbers as text, read in chunks of rows by pyarrow while the next block is unzipped.

A fault is refused with the file and the row and column, and the line where the text itself is wrong.
Legend: R rows of a chunk and K columns, of a table as it stands in its file; C CpGs, S samples.
"""

import gzip
import zlib
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
from methyl_lightning.readers.text import MISSING, read_lines, refuse_cells, refuse_repeats, split_cells

BLOCK_BYTES = 2**23  # of text at once
BLOCK_LINES = 64  # at least, where lines are long


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
    """

    path: Path
    columns: list[str]
    chunks: Callable[[list[str]], Iterator[Chunk]]


def text_matrix(
    path: Path, kind: str, *, separator: str = "\t", dtype: type[np.floating] = np.float32, missing: bool = False
) -> Matrix:
    """Open a text file, perhaps ``.gz``, whose first line and first column are names.

    Cells must be finite numbers; ``NA``, ``NaN`` or nothing gives NaN where ``missing`` is allowed. ``kind`` is what
    a row is called in messages.
    """
    line = next((line for line in read_lines(path) if line.strip(b"\r\n")), b"")
    header = split_cells(line, separator)
    if len(header) < 2:
        raise InputError(f"{path}: empty, or not text with {separator!r} between cells (.gz if zipped); replace it")
    refuse_repeats(path, "column", header)
    text = _Text(path, kind, separator, header, max(BLOCK_BYTES, BLOCK_LINES * len(line)), dtype, missing)
    return Matrix(path, header[1:], text.chunks)


def read_all(matrix: Matrix) -> pd.DataFrame:
    """Read the whole of a matrix."""
    chunks = list(matrix.chunks(matrix.columns))
    values_RK = np.concatenate([chunk.values_RK for chunk in chunks])
    return pd.DataFrame(values_RK, [name for chunk in chunks for name in chunk.names], matrix.columns)


def checked_beta(matrix: Matrix, columns: list[str]) -> Iterator[Chunk]:
    """Read beta values; refuse values outside 0…1, the −0.5 shift of old Xena files by name."""
    lowest, highest = 0.0, 0.0
    for names, values_RK in matrix.chunks(columns):
        lowest = np.fmin.reduce(values_RK, axis=None, initial=lowest)
        highest = np.fmax.reduce(values_RK, axis=None, initial=highest)
        if lowest < 0 or highest > 1:
            if lowest >= -0.5 and highest <= 0.5:
                found = f"values from {lowest:g} to {highest:g} are beta − 0.5, as in old Xena files"
                raise InputError(f"{matrix.path}: {found}; add 0.5")
            table = pd.DataFrame(values_RK, names, columns)
            refuse_cells(matrix.path, table, (values_RK < 0) | (values_RK > 1), "beta lies within 0…1, convert it")
        yield Chunk(names, values_RK)


class _Text(NamedTuple):
    path: Path
    kind: str
    separator: str
    header: list[str]
    block_bytes: int
    dtype: type[np.floating]
    missing: bool

    def chunks(self, columns: list[str]) -> Iterator[Chunk]:
        seen: list[str] = []
        with shown(self.path) as tell, ThreadPoolExecutor(1) as pool:
            blocks = self._blocks()
            line = 2
            upcoming = pool.submit(next, blocks, None)
            while (found := upcoming.result()) is not None:
                upcoming = pool.submit(next, blocks, None)  # unzips while this one is parsed
                block, share = found
                names, values_RK = self._parse(block, columns, line)
                seen += names
                tell(len(names), share)
                line += block.count(b"\n")
                if names:
                    yield Chunk(names, values_RK)
        if not seen:
            raise InputError(f"{self.path}: has a header and no row; replace it")
        refuse_repeats(self.path, self.kind, seen)

    def _blocks(self) -> Iterator[tuple[bytes, float]]:
        """Read blocks of whole lines below the header, and the share of the file that has been read."""
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as raw, gzip.GzipFile(fileobj=raw) if self.path.suffix == ".gz" else raw as file:
                while not file.readline().strip(b"\r\n"):
                    pass  # up to the header, which is there
                rest = b""
                while data := file.read(self.block_bytes):
                    head, newline, tail = data.rpartition(b"\n")
                    if newline:
                        yield rest + head + newline, raw.tell() / size
                    rest = tail if newline else rest + data
                if rest:
                    yield rest, 1.0
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{self.path}: cannot be read ({error}); check the name or get the file again") from error

    def _parse(self, block: bytes, columns: list[str], first_line: int) -> Chunk:
        place = {name: str(k) for k, name in enumerate(self.header)}  # names of columns for pyarrow, as they may be odd
        wanted = [place[name] for name in columns]
        number = pa.from_numpy_dtype(self.dtype)
        try:
            table = csv.read_csv(
                pa.BufferReader(block),
                csv.ReadOptions(column_names=list(place.values()), block_size=max(2**20, self.block_bytes // 16)),
                csv.ParseOptions(delimiter=self.separator),
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
        names = [name.decode(errors="replace") for name in table.column("0").to_pylist()]
        values_KR = np.empty((len(wanted), len(names)), self.dtype)
        for k, one in enumerate(wanted):
            values_KR[k] = table.column(one).to_numpy()
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
            cells = split_cells(line, self.separator)
            if not line.strip(b"\r"):
                continue
            where = f"{self.path}: line {number}: row {cells[0]!r}"
            if len(cells) != len(self.header):
                raise InputError(f"{where} has {len(cells)} cells, the header {len(self.header)}; mend the row")
            for name, cell in zip(self.header[1:], cells[1:], strict=True):
                if name in columns and cell not in MISSING and not _is_number(cell):
                    raise InputError(f"{where}, column {name!r} is {cell!r}; {self._remedy()}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
