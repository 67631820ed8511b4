"""CpGs as people list them: names, positions, regions; lists, BED and its relatives, calls of sequencing, tables.

Legend: C CpGs.
"""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from methyl_lightning.files import InputError
from methyl_lightning.readers.probes import LONGEST, chromosome, plain_name
from methyl_lightning.readers.text import read_cells

PROBE = re.compile(r"(cg|ch\.|rs|nv)[\w.:-]*\d[\w.:-]*")
PLACE = re.compile(r"(?P<chrom>[\w.]+):(?P<position>\d+)")
HEADINGS = {
    "chrom": r"chrom|chromosome|chr(_hg\d+)?|seqnames?|cpg_chrm",
    "position": r"position|start|chromstart|pos(_hg\d+)?|mapinfo|base|cpg_beg",
    "end": r"end|chromend|cpg_end",
    "strand": r"strand",
    "id": r"id|cpg|name|(probe|target)_?(id)?|ilmnid",
}
FROM_ONE = ("seqnames", "pos", "mapinfo", "base")  # headings of R, minfi, Illumina and methylKit, which count from 1
# what callers write where BED has a name: the modification, or its context
CODES = re.compile(r"[mhafc]|5m?h?m?C|6mA|21839|CG|CpG|C[HG][HG]", re.IGNORECASE)
CALL_CELLS = 9  # bedMethyl has so many at least
STRANDS = {"F": "+", "R": "-"}  # of methylKit
WORD = re.compile(r"[^\s,;\"'()\[\]{}]+")


def _is_name(cell: str, known: Collection[str]) -> bool:
    return cell in known or plain_name(cell) in known


def _is_likely(cell: str, known: Collection[str]) -> bool:
    return _is_name(cell, known) or PROBE.fullmatch(cell) is not None


def _names_several(row: list[str], known: Collection[str]) -> bool:
    """Tell whether a line lists CpGs, as c("cg1", "cg2") of R does; one of a manifest has a CpG and its SNPs."""
    words = [word for cell in row for word in WORD.findall(cell)]
    names = [plain_name(word) for word in words if _is_likely(word, known) and not word.startswith("rs")]
    return len(set(names)) > 1 and len(words) <= len(names) + 3  # ids <- c


def _choose_column(rows: list[list[str]], known: Collection[str]) -> int:
    """Choose the column that names most CpGs that are known, or else most that look like probes, or else the first."""
    columns = range(max(map(len, rows)))
    for test in (lambda cell: _is_name(cell, known), lambda cell: PROBE.fullmatch(cell) is not None):
        counts = [sum(test(row[k]) for row in rows if k < len(row)) for k in columns]
        if max(counts):
            return int(np.argmax(counts))
    return 0


def read_names(path: Path, known: Collection[str]) -> list[str]:
    """Read a list of CpGs: text or CSV with or without a header, comments, quotes, and other columns.

    Parameters
    ----------
    path
        The list. Where it has several columns, that with the names is found.
    known
        CpGs that may be named; they tell which column names them, and whether the first line is a header.

    Returns
    -------
    list of str
        As in ``known``, without the suffix of EPICv2 where that is how they are known.
    """
    rows = [row for _, row in read_cells(path)]
    if not rows:
        raise InputError(f"{path}: empty; put one CpG a line there")
    if any(_names_several(row, known) for row in rows[:1000]):
        words = [word for row in rows for cell in row for word in WORD.findall(cell)]
        names = [word for word in words if _is_likely(word, known)]
    else:
        k = _choose_column(rows, known)
        named = [row[k : k + 1] or [cell for cell in row if _is_likely(cell, known)] for row in rows]
        names = [cells[0] for cells in named if cells and cells[0]]
        if not _is_likely(names[0], known) and any(_is_likely(name, known) for name in names):
            names = names[1:]  # below a header
    return [name if name in known else plain_name(name) for name in names]


def names_places(path: Path, known: Collection[str]) -> bool:
    """Tell whether a file of CpGs gives positions rather than names."""
    rows = [row for _, row in read_cells(path)][:1000]
    if not rows:
        raise InputError(f"{path}: empty; put one CpG on each line")
    if "position" in columns_of(rows[0]) or _is_place(rows[-1]):
        return True
    numbered = any(len(row) > 1 and row[1].isdigit() for row in rows[:2])
    return numbered and not any(_is_likely(row[0], known) or PLACE.fullmatch(row[0]) for row in rows)


def _is_place(row: list[str]) -> bool:
    return len(row) == 1 and PLACE.fullmatch(row[0]) is not None


def columns_of(row: list[str]) -> dict[str, int]:
    """Find the columns of a header that says what they hold."""
    return {
        key: k
        for key, pattern in HEADINGS.items()
        for k, cell in reversed(list(enumerate(row)))
        if re.fullmatch(pattern, cell.lstrip("#"), re.IGNORECASE)
    }


def read_places(path: Path) -> pd.DataFrame:
    """Read positions: BED, bedGraph, bedMethyl, coverage and reports of Bismark, tables with a header, ``chr1:999``.

    Returns
    -------
    pandas.DataFrame
        chrom, position (0-based), perhaps id and strand; not yet checked. Of calls for several modifications each
        position stands once.
    """
    rows = [row for _, row in read_cells(path)]
    headings = columns_of(rows[0])
    if "position" in headings:
        body, from_one = rows[1:], any(cell.lower() in FROM_ONE for cell in rows[0])
    elif _is_place(rows[-1]):
        body, headings, from_one = [row[0].rsplit(":", 1) for row in rows], {"chrom": 0, "position": 1}, False
    else:
        body, from_one = rows, False
        headings = {name: k for k, name in enumerate(("chrom", "position", "end", "id")[: len(rows[0])])}
        if len(rows[0]) > 2 and rows[0][2] in ("+", "-"):  # Bismark's report of cytosines
            headings, from_one = {"chrom": 0, "position": 1, "strand": 2}, True
        elif len(rows[0]) > 5 and rows[0][5] in ("+", "-"):
            headings["strand"] = 5
    n_cells = max(headings.values(), default=0) + 1
    short = next((row for row in body if len(row) < n_cells), None)
    if short is not None:
        raise InputError(f"{path}: row '{' '.join(short)}' has {len(short)} of {n_cells} cells; mend it")
    table = pd.DataFrame({name: [row[k] for row in body] for name, k in headings.items()}, dtype=str)
    if "strand" in table:
        table["strand"] = table["strand"].replace(STRANDS)
    if "end" in table and "position" in table and len(table) and (table["end"] == table["position"]).all():
        from_one = True  # Bismark's coverage: both ends included
    if from_one:
        table["position"] = (pd.to_numeric(table["position"], errors="coerce") - 1).astype(object)
    calls = "id" in table and (len(rows[0]) >= CALL_CELLS or table["id"].str.fullmatch(CODES).all())
    if calls:
        table = table.drop_duplicates(["chrom", "position"])
    if "id" in table and not _are_names(table["id"]):
        table = table.drop(columns="id")
    return table.drop(columns="end", errors="ignore").reset_index(drop=True)


def _are_names(cells: pd.Series) -> bool:
    """Tell names from values, codes of modifications, and labels that stand at several positions."""
    numbers = pd.to_numeric(cells, errors="coerce").notna()
    return not (numbers.any() or cells.isin([".", ""]).any() or cells.str.fullmatch(CODES).any()) and cells.is_unique


def in_bed(path: Path, cpgs: pd.DataFrame) -> np.ndarray:
    """Tell for each CpG whether the C lies in a region of a BED file (bool [C]); without a position it doesn't.

    Raises
    ------
    InputError
        If a line is no region, or there is none.
    """
    regions = []
    for number, cells in read_cells(path):
        if number == 1 and "position" in columns_of(cells):
            continue
        numbers = [int(cell) for cell in cells[1:3] if cell.isdecimal()]
        if len(numbers) < 2 or not numbers[0] < numbers[1] <= LONGEST:
            words = " ".join(cells[:3])
            raise InputError(f"{path}: line {number} is '{words}', not chromosome, start < end; mend or remove it")
        regions.append((chromosome(cells[0]), int(cells[1]), int(cells[2])))
    if not regions:
        raise InputError(f"{path}: no region in it; give a BED file")
    table = pd.DataFrame(regions, columns=["chrom", "start", "end"]).sort_values(["chrom", "start"])
    chrom_C, position_C = cpgs["chrom"].to_numpy(), cpgs["position"].to_numpy(np.int64)
    inside_C = np.zeros(len(cpgs), dtype=bool)
    for chrom, some in table.groupby("chrom"):
        on_C = np.flatnonzero(chrom_C == chrom)
        n_begun = np.searchsorted(some["start"], position_C[on_C], side="right")
        reach = np.concatenate([[0], np.maximum.accumulate(some["end"])])  # end of the farthest region begun so far
        inside_C[on_C] = position_C[on_C] < reach[n_begun]
    return inside_C
