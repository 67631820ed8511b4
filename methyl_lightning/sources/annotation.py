"""Where CpGs and genes lie.

Legend: G genes.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from methyl_lightning.sources.text import MISSING, read_text, refuse_cells, refuse_repeats
from methyl_lightning.store import UNKNOWN_POSITION, InputError

ENSEMBL_VERSION = re.compile(r"(?<=^ENSG\d{11})\.\d+$")
STANDARD_CHROMOSOMES = [f"chr{name}" for name in (*range(1, 23), "X", "Y", "M")]


def _coordinates(path: Path, table: pd.DataFrame, chrom: str, columns: list[str]) -> pd.DataFrame:
    known = table[columns].replace(MISSING, str(UNKNOWN_POSITION))
    whole = known.apply(lambda column: column.str.fullmatch(r"-?\d+"))
    refuse_cells(path, table[columns], ~whole.to_numpy(bool), "put a whole number there")
    chromosomes = ("chr" + table[chrom].str.removeprefix("chr")).replace("chrMT", "chrM")
    return table.assign(chrom=chromosomes, **known.astype(np.int64))


def locate_cpgs(path: Path, cpgs: list[str], base: int) -> pd.DataFrame:
    """Make the CpG table from a probe map; a probe without a row, or below ``base``, has chrom "" and position −1."""
    table = _coordinates(path, read_text(path, ["id", "chrom", "chromStart"]), "chrom", ["chromStart"])
    refuse_repeats(path, "probe", table.index.tolist())
    table = table[table["chromStart"] >= base].reindex(cpgs)
    position = (table["chromStart"] - base).fillna(UNKNOWN_POSITION).to_numpy(np.int64)
    return pd.DataFrame({"id": cpgs, "chrom": table["chrom"].fillna("").to_numpy(), "position": position, "island": ""})


def locate_genes(path: Path, names: list[str]) -> pd.DataFrame:
    """Make the gene table, one row for each name of an expression table: a symbol, or an Ensembl id of any version.

    Of several rows of one gene the one on a standard chromosome (1–22, X, Y, M) is taken, of these the longest.
    Coordinates are assumed 1-based and inclusive (UCSC knownGene as Bioconductor gives it) and become 0-based and
    half-open; a gene without coordinates has chrom "", start −1 and end −1.
    """
    table = read_text(path, ["symbol", "chr", "start", "end", "strand"])
    refuse_cells(path, table[["strand"]], ~table[["strand"]].isin(["+", "-"]).to_numpy(), "the strand must be + or -")
    table = _coordinates(path, table, "chr", ["start", "end"])
    table = table.assign(start=table["start"] - 1, standard=table["chrom"].isin(STANDARD_CHROMOSOMES))
    table = table.assign(span=table["end"] - table["start"])[(table["start"] >= 0) & (table["start"] < table["end"])]
    table = table.sort_values(["standard", "span"], ascending=False, kind="stable").reset_index()
    row_of: dict[str, int] = {}
    for key_column in ("symbol", "ensembl"):
        for row, key in enumerate(table.get(key_column, ())):
            row_of.setdefault(ENSEMBL_VERSION.sub("", key), row)
    row_G = [row_of.get(ENSEMBL_VERSION.sub("", name), -1) for name in names]
    if max(row_G) < 0:
        raise InputError(f"{path}: no gene of the expression table is in it ({names[0]!r}, …); use the same names")
    genes = table.reindex(row_G)[["symbol", "chrom", "start", "end", "strand"]].reset_index(drop=True).assign(id=names)
    genes[["start", "end"]] = genes[["start", "end"]].fillna(UNKNOWN_POSITION).astype(np.int64)
    return genes.assign(symbol=genes["symbol"].replace("", None).fillna(genes["id"])).fillna("")
