"""Text as people have it: its bytes, its lines, its header, its table; and what is refused in it.

Every reader names the file, the row or column and the remedy in one line (`InputError`) before anything is written.
Legend: R rows and K columns of a table as it stands in its file.
"""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from methyl_lightning.files import InputError

MISSING = ["NA", "", "NaN", "nan", "null", "NULL", "None", "N/A", "n/a", "#N/A", "<NA>", "."]
HEAD_BYTES = 1 << 16
NOT_TEXT = {
    b"\x1f\x8b": "is zipped by gzip; end its name in .gz",
    b"PK\x03\x04": "is a zip archive or an Excel workbook; save its table as tab-separated text",
    b"BZh": "is packed by bzip2; unpack it",
    b"\xfd7zXZ": "is packed by xz; unpack it",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook; save its table as tab-separated text",
    b"\x89HDF": "is an HDF5 file; end its name in .h5ad if AnnData wrote it, in .h5 if 10x did",
    b"PAR1": "is a Parquet file; end its name in .parquet",
}
MONTHS = "jan|feb|m[aä]r|apr|ma[yi]|jun|jul|aug|sep|o[ck]t|nov|de[cz]"
EXCEL_DATE = re.compile(
    rf"\d{{1,2}}[-. ]+({MONTHS})\w*\.?|({MONTHS})\w*[-. ]+\d{{1,2}}|"
    r"\d{4}-\d\d-\d\d.*|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}",
    re.IGNORECASE,
)
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def refuse_repeats(path: str | Path, kind: str, names: list[str]) -> None:
    """Refuse a name that occurs twice; of genes several may have none, as they are left out."""
    named = pd.Index([name for name in names if kind != "gene" or name not in MISSING])
    repeated = named[named.duplicated()]
    if len(repeated):
        dated = f"{kind} {repeated[0]!r} is a date that Excel made of a name and occurs twice; export it without Excel"
        twice = f"{kind} {repeated[0]!r} occurs twice; keep one of them"
        raise InputError(f"{path}: {dated if EXCEL_DATE.fullmatch(str(repeated[0])) else twice}")


def refuse_cells(path: Path, table: pd.DataFrame, bad_RK: np.ndarray, remedy: str) -> None:
    """Refuse a table with a bad cell and name the first."""
    if bad_RK.any():
        r, k = np.argwhere(bad_RK)[0]
        cell = f"row {table.index[r]!r}, column {table.columns[k]!r} is '{table.to_numpy()[r, k]}'"
        raise InputError(f"{path}: {cell}; {remedy}")


class Text(NamedTuple):
    """A text file that is read: UTF-8 without a mark, lines that end in LF or CRLF.

    Attributes
    ----------
    file
        The text.
    raw, size
        What is read of the disk, and its length.
    """

    file: Any
    raw: Any
    size: int

    @property
    def share(self) -> float:
        """Share of the file that has been read."""
        return min(self.raw.tell() / max(self.size, 1), 1.0)


@contextmanager
def open_text(path: Path) -> Iterator[Text]:
    """Open text, through gzip where its name ends in ``.gz``; UTF-16 and lines that end in CR alone are converted.

    Raises
    ------
    InputError
        If the file cannot be read, or is another kind of file under the name of a text.
    """
    try:
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw as file:
            head = file.read(HEAD_BYTES)
            for magic, words in NOT_TEXT.items():
                if head.startswith(magic):
                    raise InputError(f"{path}: {words}")
            file.seek(0)
            if head.startswith(UTF16) or (b"\r" in head and b"\n" not in head):
                content = file.read()
                content = content.decode("utf-16").encode() if head.startswith(UTF16) else content
                converted = io.BytesIO(content.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
                yield Text(converted, converted, len(content))
                return
            if b"\0" in head:
                raise InputError(f"{path}: is no text; give the table as tab-separated text")
            file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
            yield Text(file, raw, path.stat().st_size)
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); check the name or get the file again") from error


def read_lines(path: Path) -> Iterator[bytes]:
    """Read the lines of a text file."""
    with open_text(path) as text:
        yield from text.file


def split_cells(line: bytes, separator: str) -> list[str]:
    """Split a line into text, without quotes and blanks around a cell."""
    text = line.decode(errors="replace").rstrip("\r\n")
    cells = next(csv.reader([text], delimiter=separator)) if '"' in text else text.split(separator)
    return [cell.strip() for cell in cells]


class Layout(NamedTuple):
    """How the table of a text file stands.

    Attributes
    ----------
    separator
        Between cells.
    header
        Names of the columns; "" for row names above which R wrote none.
    n_cells
        Of a row: more than the header has where lines end in separators.
    line
        Number of the line with the header.
    """

    separator: str
    header: list[str]
    n_cells: int
    line: int


def _lines_of_table(path: Path) -> Iterator[tuple[int, bytes]]:
    """Read the lines of a table with their numbers: none that is empty, nor the preamble of GCT and of a manifest."""
    numbered = enumerate(read_lines(path), 1)
    for number, line in numbered:
        if line.startswith(b"#1.3"):
            raise InputError(f"{path}: is GCT 1.3, whose rows and columns carry annotation; save it as GCT 1.2")
        if line.startswith(b"#1.2"):
            next(numbered, None)  # the size
        elif line.startswith(b"!"):
            raise InputError(f"{path}: line {number} is of a series matrix of GEO; keep the lines of its table alone")
        elif number == 1 and line.lstrip(b'"').startswith((b"Illumina", b"[Heading]")):
            next((line for _, line in numbered if line.lstrip(b'"').startswith(b"[Assay]")), None)
        elif line.lstrip(b'"').startswith(b"[Controls]"):
            return
        elif line.strip(b"\r\n"):
            yield number, line


def _separator(path: Path, line: bytes) -> str:
    """Tell what stands between cells: tabs, or commas in a file whose name says so."""
    if b"\t" not in line and b"," in line and ".csv" in path.suffixes:
        return ","
    if b"\t" not in line and line.count(b";") > line.count(b","):
        raise InputError(f"{path}: has semicolons between its cells; save it with tabs, and with points in numbers")
    return "\t"


def read_layout(path: Path) -> Layout:
    """Find the header of a table, below lines that begin with ``#``, and see by the first row how it is meant.

    A line with ``#`` is the header where it is the last of them and has as many cells as the first row. A header with
    one name less than the row has cells is one of R, whose row names have none.
    """
    comment: tuple[int, bytes] | None = None
    header: tuple[int, bytes] | None = None
    separator, first = "\t", None
    for number, line in _lines_of_table(path):
        if header is None and line.startswith(b"#"):
            comment = number, line
        elif header is None:
            separator = _separator(path, line)
            commented = [] if comment is None else split_cells(comment[1], separator)
            if len(commented) > 1 and len(commented) == len(split_cells(line, separator)):
                header, first = comment, line
                break
            header = number, line
        else:
            first = line
            break
    if header is None or first is None or separator not in first.decode(errors="replace"):
        words = f"not text with {separator!r} between cells (.gz if zipped)"
        raise InputError(f"{path}: empty, without a row below its header, or {words}; replace it")
    names, cells = split_cells(header[1], separator), split_cells(first, separator)
    names[0] = names[0].removeprefix("#").strip()
    if len(cells) == len(names) + 1 and cells[-1]:
        names = ["", *names]
    while len(names) > 1 and not names[-1]:
        names.pop()
    n_cells = len(names) if any(cells[len(names) :]) else max(len(names), len(cells))
    if len(set(names)) < len(names) and all(map(is_number, names[1:])):
        raise InputError(f"{path}: its first line ({names[0]}, {names[1]}, …) is no header; add one with names")
    refuse_repeats(path, "column", names)
    return Layout(separator, names, n_cells, header[0])


def column_key(name: str) -> str:
    """Write the name of a column as it is compared: ``Gene Symbol``, ``gene.symbol`` and ``gene-symbol`` are alike."""
    return re.sub(r"[\s.-]+", "_", name.strip()).lower()


def is_number(cell: str) -> bool:
    """Tell whether a cell is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_table(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a table as text: TSV, CSV (by its name), each perhaps ``.gz``, or parquet.

    Parameters
    ----------
    path
        The file.
    columns
        What it must have.

    Raises
    ------
    InputError
        If the file is damaged, a row has too few or many cells, or a column is not there.
    """
    table = _parquet_table(path) if path.suffix == ".parquet" else _text_table(path)
    for column in columns or []:
        if column not in table:
            raise InputError(f"{path}: no column {column!r} among {', '.join(map(str, table))}; add or rename it")
    return table


def _text_table(path: Path) -> pd.DataFrame:
    separator, header, n_cells, header_line = read_layout(path)
    rows = []
    for number, line in _lines_of_table(path):
        if number <= header_line:
            continue
        cells = split_cells(line, separator)
        if len(cells) != n_cells:
            raise InputError(f"{path}: row {cells[0]!r} has {len(cells)} cells, the header {n_cells}; mend the row")
        rows.append(cells[: len(header)])
    return pd.DataFrame(rows, columns=header, dtype=str)


def _parquet_table(path: Path) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
        text = {name: table[name].cast(pa.string()).fill_null("").to_numpy() for name in table.column_names}
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as parquet ({reason}); get the file again") from error
    return pd.DataFrame(text, dtype=str)


def read_cells(path: Path) -> list[tuple[int, list[str]]]:
    """Read lines that need no header, with their numbers: cells split at tabs, else commas or semicolons, else blanks.

    Lines that are empty are left out, and those that begin with ``#``, ``track`` or ``browser``.
    """
    rows: list[tuple[int, list[str]]] = []
    marks = "\t,;"
    for number, line in _lines_of_table(path):
        if line.strip() and not line.startswith((b"#", b"track", b"browser")):
            separator = next((mark for mark in marks if mark.encode() in line), None)
            if not rows and separator == ";":  # in the first line; commas are in numbers then
                marks = ";"
            cells = split_cells(line, separator) if separator else line.decode(errors="replace").split()
            rows.append((number, [cell.strip().strip('"') for cell in cells]))
    return rows
