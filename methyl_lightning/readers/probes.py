"""Where CpGs lie: probe maps, relations to islands, and the names of chromosomes.

Legend: C CpGs.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from methyl_lightning.data.store import UNKNOWN_POSITION
from methyl_lightning.files import InputError
from methyl_lightning.readers.text import MISSING, read_table, refuse_cells, refuse_repeats

AUTOSOMES = [f"chr{number}" for number in range(1, 23)]
STANDARD_CHROMOSOMES = [*AUTOSOMES, "chrX", "chrY", "chrM"]
REFSEQ = re.compile(r"NC_0000(0[1-9]|1\d|2[0-4])\.\d+")  # of the human chromosomes, any assembly
GENBANK = re.compile(r"CM000(6[6-8]\d)\.\d+")  # likewise, 663 is chromosome 1
SPELLING = re.compile(r"(?:chromosome|chrom|chr)?[ _.-]?0*([1-9]\d?|[XYM]|MT)(?:\.0)?", re.IGNORECASE)
LETTERS = {"23": "X", "24": "Y", "26": "M", "MT": "M"}  # numbers as PLINK has them
MITOCHONDRIA = ("NC_012920.1", "J01415.2")
REPLICATE = re.compile(r"((?:cg|ch|rs|nv)\S+)_[TB][CO]\d\d")  # cg00000029_TC21: how EPICv2 names the probes of a CpG

ISLAND_RELATIONS = ("Island", "N_Shore", "S_Shore", "N_Shelf", "S_Shelf", "OpenSea")
# what a column is called by UCSC Xena, Illumina, Bioconductor (assembly at the end) and the Zhou lab
LONGEST = 10**11  # more bases than any chromosome has
PROBE_COLUMNS = {
    "id": r"id|probe|probe_?id|name|ilmnid",
    "chrom": r"chrom|chr(_hg\d+)?|seqnames|cpg_chrm",
    "chromStart": r"chromstart|pos(_hg\d+)?|mapinfo|cpg_beg",
    "strand": r"strand|probe_strand",
    "island": r"relation_to_(ucsc_cpg_)?island|(cpg_)?island(_relation)?",
    "island_name": r"islands_name|ucsc_cpg_islands_name|(cpg_)?island_name",
}


def chromosome(name: str) -> str:
    """Name a chromosome as the store does, ``chr1`` … ``chrX``, ``chrM``; from ``1``, ``CHR01``, ``23``, ``MT``, …."""
    name = name.strip()
    if name in (*MISSING, "*"):
        return ""
    if name in MITOCHONDRIA:
        return "chrM"
    if refseq := REFSEQ.fullmatch(name):
        name = refseq[1]
    elif genbank := GENBANK.fullmatch(name):
        name = str(int(genbank[1]) - 662)
    if spelling := SPELLING.fullmatch(name):
        name = LETTERS.get(spelling[1].upper(), spelling[1].upper())
    name = name.removeprefix("chr")
    return f"chr{name}" if name else ""


def plain_name(cpg: str) -> str:
    """Name a CpG without the suffix by which EPICv2 tells its probes."""
    replicate = REPLICATE.fullmatch(cpg)
    return replicate[1] if replicate else cpg


def rows_of(table: pd.DataFrame, cpgs: list[str]) -> pd.DataFrame:
    """Take the rows of CpGs from a table of probes, of several probes of EPICv2 the first; missing where none is."""
    plain = table.set_axis([plain_name(name) for name in table.index])
    plain = plain[~plain.index.duplicated() & ~plain.index.isin(table.index)]
    return pd.concat([table, plain]).reindex(cpgs)


def read_columns(path: Path, needed: list[str], optional: list[str]) -> pd.DataFrame:
    """Read columns of a probe table as text, under the names of ``PROBE_COLUMNS`` and indexed by the first.

    Parameters
    ----------
    path
        See :func:`methyl_lightning.readers.text.read_table`.
    needed, optional
        Keys of ``PROBE_COLUMNS``; an optional one that isn't there is filled with "".

    Raises
    ------
    InputError
        If a needed column is not there, or two that differ may be meant.
    """
    table = read_table(path)
    chosen = {}
    for key in (*needed, *optional):
        names = [name for name in map(str, table) if re.fullmatch(PROBE_COLUMNS[key], name, flags=re.IGNORECASE)]
        names = names or [name for name in map(str, table) if key == "id" and not name]  # the row names of R
        for other in names[1:]:
            if not (table[other].map(plain_name) == table[names[0]].map(plain_name)).all():
                raise InputError(f"{path}: columns {names[0]!r} and {other!r} may both be {key!r}; keep one")
        if not names and key in needed:
            raise InputError(f"{path}: no column {key!r} among {', '.join(map(str, table))}; add or rename it")
        chosen[key] = table[names[0]] if names else ""
    return pd.DataFrame(chosen, index=table.index).set_index(needed[0])


def coordinates(path: Path, table: pd.DataFrame, chrom: str, columns: list[str]) -> pd.DataFrame:
    """Name the chromosomes in the column ``chrom`` and make the columns whole numbers, −1 where missing."""
    known = table[columns].replace(MISSING, str(UNKNOWN_POSITION)).apply(pd.to_numeric, errors="coerce")
    whole = (known % 1 == 0) & (known.abs() <= LONGEST)  # 1e+05 is one, of R
    refuse_cells(path, table[columns], ~whole.to_numpy(), "put a whole number there")
    names = {name: chromosome(name) for name in table[chrom].unique()}
    return table.assign(chrom=table[chrom].map(names), **known.astype(np.int64))


def locate_cpgs(path: Path, cpgs: list[str], base: int, minus: str = "C") -> pd.DataFrame:
    """Make the CpG table from a probe map: UCSC Xena, Illumina or Bioconductor, as TSV or parquet.

    Parameters
    ----------
    path
        Columns id, chrom, chromStart and perhaps strand, or as others call them (``PROBE_COLUMNS``).
    cpgs
        Probes, in the order of the result, with or without the suffixes of EPICv2.
    base
        Position of the first base in the map, 1 or 0.
    minus
        What the map gives for a probe on strand −: the position of the ``C`` of the + strand, as Illumina does, so
        that the strand changes nothing, or that of the ``G``, which is the C of the − strand, as methylation callers
        for sequencing do. The store has the C of the + strand.

    Returns
    -------
    pandas.DataFrame
        id, chrom, position, island ("") and strand ("" unknown); a probe without a row, or below ``base``, has chrom ""
        and position −1.

    Raises
    ------
    InputError
        If the map is damaged, or has none of the CpGs.
    """
    if base not in (0, 1) or minus not in ("C", "G"):
        raise InputError(f"probe_map_base={base} must be 0 or 1, probe_map_minus={minus!r} must be 'C' or 'G'")
    table = coordinates(path, read_columns(path, ["id", "chrom", "chromStart"], ["strand"]), "chrom", ["chromStart"])
    refuse_repeats(path, "probe", table.index.tolist())
    if minus == "G":
        table["chromStart"] -= table["strand"] == "-"
    rows = rows_of(table, cpgs)
    if rows["chrom"].isna().all():
        has = f"{cpgs[0]!r}, … there, {table.index[0]!r}, … here"
        raise InputError(f"{path}: has none of the {len(cpgs):,} CpGs ({has}); give the map of the same probes")
    rows = rows[(rows["chromStart"] >= base) & (rows["chrom"] != "")].reindex(cpgs)
    position = (rows["chromStart"] - base).fillna(UNKNOWN_POSITION).to_numpy(np.int64)
    columns = {name: rows[name].fillna("").to_numpy() for name in ("chrom", "strand")}
    return pd.DataFrame({"id": cpgs, "position": position, "island": "", **columns})


def read_islands(path: Path, cpgs: list[str]) -> np.ndarray:
    """Read the relation of each CpG to a CpG island.

    Parameters
    ----------
    path
        TSV or parquet with the probe and its relation, one of ``ISLAND_RELATIONS`` (UCSC). Where no cell says OpenSea,
        as in Illumina's manifest, an empty one means it.
    cpgs
        Probes, in the order of the result.

    Returns
    -------
    numpy.ndarray
        str [C], "" where unknown.

    Raises
    ------
    InputError
        If another relation is named, a probe occurs twice, or none of the CpGs is there.
    """
    relation = read_columns(path, ["id", "island"], [])["island"]
    refuse_repeats(path, "probe", relation.index.tolist())
    relation = relation.replace(MISSING, "")
    if not (relation == "OpenSea").any():
        relation = relation.replace("", "OpenSea")
    known = relation.isin([*ISLAND_RELATIONS, ""]).to_numpy()
    refuse_cells(path, relation.to_frame(), ~known[:, None], f"name one of {', '.join(ISLAND_RELATIONS)}")
    relation_C = rows_of(relation.to_frame(), cpgs)["island"].fillna("").to_numpy(dtype=object)
    if not (relation_C != "").any():
        has = f"{cpgs[0]!r}, … there, {relation.index[0]!r}, … here"
        raise InputError(f"{path}: none of the CpGs is in it ({has}); use the same names")
    return relation_C
