"""Calls of methylation in single cells: cells × CpGs in an .h5ad file, or a coverage file of Bismark for each cell.

A cell's reads cover few CpGs, one or two of them each, so a value is 0, 1, or a share of very few reads.

Legend: C CpGs, S cells, N calls.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from methyl_lightning.data.store import MOST_READS
from methyl_lightning.files import InputError
from methyl_lightning.readers.annotated import open_h5ad
from methyl_lightning.readers.cpgs import columns_of
from methyl_lightning.readers.fasta import cpg_positions, open_fasta
from methyl_lightning.readers.probes import chromosome
from methyl_lightning.readers.progress import shown
from methyl_lightning.readers.text import open_text, refuse_repeats

COVERAGE_NAME = re.compile(r"(?P<cell>.+?)(?:\.bismark)?\.cov(?:\.gz)?")
COVERAGE_COLUMNS = {"chrom": str, "start": np.int64, "end": np.int64, "percent": np.float64}
COUNTS = {"methylated": np.int64, "unmethylated": np.int64}
POSITION_BITS = 32  # of the key of a call; above them is the number of its chromosome
POSITION = (1 << POSITION_BITS) - 1
CONTEXT = re.compile(r"context|island|region|relation_to_island", re.IGNORECASE)


class Calls(NamedTuple):
    """What sequencing has called.

    Attributes
    ----------
    source
        The file or folder.
    obs
        One row a cell, indexed by its name, with what the file says of it.
    cpgs
        id, chrom, position (0-based, of the C), island: the word for what the CpG lies in, "" unknown.
    beta_CS
        float32, share of the reads that are methylated, NaN without any.
    reads_CS
        uint8, their number, 255 where there are more; None where it isn't known.
    """

    source: Path
    obs: pd.DataFrame
    cpgs: pd.DataFrame
    beta_CS: np.ndarray
    reads_CS: np.ndarray | None


def read_calls(path: Path, base: int, least_share: float = 0, genome: Path | None = None) -> Calls:
    """Read an .h5ad file, or the coverage files of a folder.

    Parameters
    ----------
    path
        ``.h5ad``: X has 0, 1 or shares between them, NaN where nothing was read; var has columns such as ``chrom`` and
        ``position``. A folder: ``CELL.cov``, ``CELL.bismark.cov.gz``, ….
    base
        What the .h5ad file counts from, 0 or 1; Bismark counts from 1.
    least_share
        Of a folder's CpGs those are kept that this share of the cells has: all of them may be too many for the memory.
    genome
        FASTA by which the two strands of a CpG, which Bismark calls apart, are put together, and other cytosines left
        out; without it they stand as in the files.

    Raises
    ------
    InputError
        If something is missing or damaged.
    """
    if path.is_dir():
        return _from_folder(path, least_share, genome)
    if path.suffix != ".h5ad":
        raise InputError(f"{path}: neither an .h5ad file nor a folder of Bismark's coverage files; give one of them")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check methylation=")
    return _from_anndata(path, base)


def _from_anndata(path: Path, base: int) -> Calls:
    opened = open_h5ad(path)
    obs, var = (table.set_axis(table.index.astype(str)) for table in (opened.obs, opened.var))
    for kind, names in (("cell", obs.index), ("CpG", var.index)):
        refuse_repeats(path, kind, names.tolist())
    if sparse.issparse(opened.values) or hasattr(opened.values, "to_memory"):
        raise InputError(f"{path}: X is sparse, where 0 and nothing read look alike; save it dense, NaN where missing")
    beta_CS = np.ascontiguousarray(np.asarray(opened.values[:], dtype=np.float32).T)
    known_CS = ~np.isnan(beta_CS)
    if not known_CS.any():
        raise InputError(f"{path}: X has no value that is not missing; choose another file")
    binary = bool(np.isin(beta_CS[known_CS], (0, 1)).all())
    return Calls(path, obs, _places(path, var, base), beta_CS, known_CS.astype(np.uint8) if binary else None)


def _places(path: Path, var: pd.DataFrame, base: int) -> pd.DataFrame:
    """Read where CpGs lie, and in what."""
    columns = [str(name) for name in var]
    place = columns_of(columns)
    for name in ("chrom", "position"):
        if name not in place:
            raise InputError(
                f"{path}: var has no column {name!r} among {', '.join(columns) or 'none'}; add or rename it"
            )
    position = pd.to_numeric(var.iloc[:, place["position"]], errors="coerce").to_numpy(np.float64) - base
    wrong_C = ~(position >= 0) | (position % 1 != 0)
    if wrong_C.any():
        c = int(np.argmax(wrong_C))
        value = var.iloc[c, place["position"]]
        raise InputError(f"{path}: position of CpG {var.index[c]!r} is {value!r}, no whole number from {base}; mend it")
    named = var.iloc[:, place["chrom"]].astype(str)
    context = next((name for name in columns if CONTEXT.fullmatch(name)), None)
    return pd.DataFrame(
        {
            "id": var.index,
            "chrom": named.map({name: chromosome(name) for name in named.unique()}).to_numpy(str),
            "position": position.astype(np.int64),
            "island": "" if context is None else var[context].astype(str).replace("nan", "").to_numpy(),
        }
    )


def _from_folder(folder: Path, least_share: float, genome: Path | None) -> Calls:
    files = {name["cell"]: path for path in sorted(folder.iterdir()) if (name := COVERAGE_NAME.fullmatch(path.name))}
    if not files:
        raise InputError(f"{folder}: no coverage file of Bismark in it (CELL.cov, CELL.bismark.cov.gz); check its name")
    codes: dict[str, int] = {}
    parts = []
    with shown(folder, len(files), "cells") as tell:
        for path in files.values():
            parts.append(_read_coverage(path, codes))
            tell(1)
    chroms, n_cells = list(codes), len(parts)
    table = pd.concat(parts, keys=range(n_cells), names=["cell", None]).reset_index("cell")
    if genome is not None:
        table["key"] = _of_plus_strand(table["key"].to_numpy(), chroms, genome)
        table = table[table["key"] >= 0]
    table = table.groupby(["key", "cell"], as_index=False).sum()
    key_C, c_N, count_C = np.unique(table["key"].to_numpy(), return_inverse=True, return_counts=True)
    kept_C = count_C >= least_share * n_cells
    if not kept_C.any():
        few = f"none of {len(key_C):,} CpGs is read in {least_share:.0%} of the cells; lower selection.min_measured"
        raise InputError(
            f"{folder}: {few if len(key_C) else f'no call stands on a CpG of {genome}; check the assembly'}"
        )
    at = kept_C[c_N]
    cells = (np.cumsum(kept_C) - 1)[c_N[at]], table["cell"].to_numpy()[at]
    methylated_N, reads_N = (table[name].to_numpy()[at] for name in ("methylated", "reads"))
    beta_CS = np.full((int(kept_C.sum()), n_cells), np.nan, dtype=np.float32)
    reads_CS = np.zeros(beta_CS.shape, dtype=np.uint8)
    beta_CS[cells], reads_CS[cells] = methylated_N / reads_N, np.minimum(reads_N, MOST_READS)
    chrom_C, position_C = np.array(chroms)[key_C[kept_C] >> POSITION_BITS], key_C[kept_C] & POSITION
    ids = np.char.add(np.char.add(chrom_C, "_"), position_C.astype(str))
    cpgs = pd.DataFrame({"id": ids, "chrom": chrom_C, "position": position_C, "island": ""})
    return Calls(folder, pd.DataFrame(index=pd.Index(files)), cpgs, beta_CS, reads_CS)


def _of_plus_strand(key_N: np.ndarray, chroms: list[str], genome: Path) -> np.ndarray:
    """Give each call the key of its CpG's C on the + strand, −1 where it stands on none."""
    of_plus_N = np.full(len(key_N), -1)
    with open_fasta(genome) as fasta:
        for code, chrom in enumerate(chroms):
            sites = cpg_positions(fasta, chrom)
            if sites is not None:
                for back in (0, 1):  # the C, or the G of the + strand, which is the C of the other
                    on_N = (key_N >> POSITION_BITS == code) & np.isin((key_N & POSITION) - back, sites)
                    of_plus_N[on_N] = key_N[on_N] - back
    return of_plus_N


def _read_coverage(path: Path, codes: dict[str, int]) -> pd.DataFrame:
    """Read a coverage file: a key of chromosome and position (0-based), reads, and those that are methylated.

    ``codes`` numbers the chromosomes and grows by those that are new.
    """
    types: dict[str, Any] = COVERAGE_COLUMNS | COUNTS
    try:
        with open_text(path) as text:
            table = pd.read_csv(text.file, sep="\t", header=None, names=list(types), dtype=types)
    except (ValueError, pd.errors.ParserError) as error:
        columns = "chromosome, start, end, percent, methylated and unmethylated reads"
        raise InputError(f"{path}: no coverage file of Bismark ({columns}): {error}; make it again") from error
    table["reads"] = table["methylated"] + table["unmethylated"]
    wrong = (table[list(COUNTS)] < 0).any(axis=1) | (table["reads"] < 1) | (table["start"] < 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{path}: line {row + 1} has no reads, or a position below 1; remove or mend it")
    names = {name: chromosome(name) for name in table["chrom"].unique()}
    for name in names.values():
        codes.setdefault(name, len(codes))
    code = table["chrom"].map(lambda name: codes[names[name]]).to_numpy(np.int64)
    keyed = table.assign(key=(code << POSITION_BITS) + table["start"].to_numpy() - 1)
    if keyed["key"].duplicated().any():
        row = int(np.argmax(keyed["key"].duplicated()))
        place = f"{table['chrom'].iloc[row]}:{table['start'].iloc[row]}"
        raise InputError(f"{path}: position {place} occurs twice; give one line for it")
    return keyed[["key", "methylated", "reads"]]
