"""Where genes lie: GTF, GFF3, the gene probe maps of UCSC Xena, and plain tables; and what genes are called.

Every format counts its bases from 1, both ends included; the store counts from 0, half-open.

Legend: G genes.
"""

import logging
import re
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import gtfparse
import numpy as np
import pandas as pd

from methyl_lightning.data.store import UNKNOWN_POSITION
from methyl_lightning.files import InputError
from methyl_lightning.readers.assemblies import NAMED, SPECIES, assembly_name
from methyl_lightning.readers.probes import STANDARD_CHROMOSOMES, coordinates
from methyl_lightning.readers.text import read_lines, read_table, refuse_cells

log = logging.getLogger(__name__)

# ENSG00000223972.5, the …_2 of a lifted annotation, the …_PAR_Y of the copy on chrY
ENSEMBL_VERSION = re.compile(r"^(ENS[A-Z]{0,4}G\d{11})\.\d+(?:_\d+)?(_PAR_Y)?$")
TABLE, XENA, GTF, GFF3 = "table", "Xena gene probe map", "GTF", "GFF3"
TABLE_COLUMNS = ["symbol", "chr", "start", "end", "strand"]
XENA_COLUMNS = ["id", "gene", "chrom", "chromStart", "chromEnd", "strand"]
# of a file without genes the transcripts that overlap are joined, of one without transcripts first the exons of each
FEATURES = (re.compile(rb"gene|\w+_gene|pseudogene"), re.compile(rb"transcript|mRNA"), re.compile(rb"exon"))
SYMBOL_KEYS, ID_KEYS, TRANSCRIPT_KEYS = ["gene_name", "gene", "Name"], ["gene_id", "ID"], ["transcript_id", "Parent"]
PLACE_KEYS = ["symbol", "id", "chrom", "strand"]
LONGEST_INTRON = 1_200_000  # what lies farther apart is another copy


class GeneFile(NamedTuple):
    """What the head of a gene annotation says.

    Attributes
    ----------
    format
        ``table``, ``Xena gene probe map``, ``GTF`` or ``GFF3``.
    assembly
        ``hg19``, ``hg38``, … where a comment names one, else "".
    """

    format: str
    assembly: str


def recognise(path: Path) -> GeneFile:
    """Tell the format of a gene annotation from its first lines.

    Raises
    ------
    InputError
        If it is none of those that are read.
    """
    comments, first = [], ""
    for line in read_lines(path):
        text = line.decode(errors="replace").rstrip("\r\n")
        if text.startswith("#") and "\t" not in text:
            comments.append(text)
        elif text:
            first = text
            break
    named = NAMED.search(" ".join(comments))
    assembly = assembly_name(named[0]) if named else ""
    cells = [cell.strip('"') for cell in first.removeprefix("#").split("\t")]
    if len(cells) == 9 and cells[3].isdigit() and cells[4].isdigit():
        return GeneFile(GFF3 if re.match(r"\s*\w+=", cells[8]) else GTF, assembly)
    for name, columns in ((XENA, XENA_COLUMNS), (TABLE, TABLE_COLUMNS)):
        if set(columns) <= set(cells):
            return GeneFile(name, assembly)
    wanted = f"a table with the columns {', '.join(TABLE_COLUMNS)}, a Xena gene probe map, GTF or GFF3"
    missing = [name for name in TABLE_COLUMNS if name not in cells]
    lacks = f"no column {missing[0]!r}" if len(missing) < len(TABLE_COLUMNS) else "its format is not known"
    raise InputError(f"{path}: {lacks}; give {wanted} (.gz if zipped)")


def read_genes(path: Path) -> pd.DataFrame:
    """Read where genes lie: symbol, id ("" where there is none), chrom, start, end (0-based, half-open), strand.

    Rows without coordinates or strand are left out; a gene may have several rows.
    """
    kind = recognise(path).format
    if kind in (GTF, GFF3):
        table = _read_features(path, kind)
    elif kind == XENA:
        table = read_table(path, XENA_COLUMNS)
        table = table.rename(columns={"gene": "symbol", "chromStart": "start", "chromEnd": "end"})
    else:
        table = read_table(path, TABLE_COLUMNS)
        table = table.rename(columns={"chr": "chrom"}).assign(id=table.get("ensembl", ""))
    named = table.set_index("symbol")
    strand = named[["strand"]]
    refuse_cells(path, strand, ~strand.isin(["+", "-"]).to_numpy(), "the strand must be + or -")
    named = coordinates(path, named, "chrom", ["start", "end"])
    named = named.assign(start=named["start"] - 1)[["id", "chrom", "start", "end", "strand"]]
    return named[(named["start"] >= 0) & (named["start"] < named["end"])].reset_index()


def _read_features(path: Path, kind: str) -> pd.DataFrame:
    for features in FEATURES:
        content = _feature_lines(path, features)
        if content:
            break
    else:
        raise InputError(f"{path}: no gene, transcript or exon in it; give an annotation of genes")
    logging.getLogger("gtfparse").setLevel(logging.WARNING)  # it lists the attributes that it came upon
    try:
        rows = gtfparse.parse_gtf(BytesIO(content), split_attributes=False)
    except (gtfparse.ParsingError, ValueError) as error:
        raise InputError(f"{path}: not read as {kind} ({' '.join(str(error).split())}); mend the line") from error
    attributes = rows["attribute"].fillna("")
    keys = [*SYMBOL_KEYS, *ID_KEYS, *TRANSCRIPT_KEYS]
    if kind == GTF:
        found = gtfparse.expand_attribute_strings(attributes.tolist(), usecols=keys)
    else:
        found = {key: attributes.str.extract(rf"(?:^|;)\s*{key}=([^;]*)")[0].fillna("").map(unquote) for key in keys}
    columns = {key: np.asarray(found.get(key, [""] * len(rows)), dtype=object) for key in keys}
    table = pd.DataFrame({name: rows[name].astype(object) for name in ("start", "end", "strand")})
    table = table.assign(chrom=rows["seqname"].astype(str), symbol=_first(columns, SYMBOL_KEYS))
    # in GFF3 the ID of a transcript or an exon is its own, and the Parent of a transcript the gene
    own_id = kind == GFF3 and features is not FEATURES[0]
    id_keys = ["gene_id", *(["Parent"] if features is FEATURES[1] else [])] if own_id else ID_KEYS
    table["id"] = pd.Series(_first(columns, id_keys), dtype=str).str.removeprefix("gene:").str.removeprefix("gene-")
    table = table[table["strand"].isin(["+", "-"])]
    table = table.astype({"start": np.int64, "end": np.int64})
    if features is FEATURES[2]:
        table = table.assign(transcript=_first(columns, TRANSCRIPT_KEYS)[table.index])
        table = _joined(table, [*PLACE_KEYS, "transcript"], LONGEST_INTRON)
    if features is not FEATURES[0]:
        table = _joined(table, PLACE_KEYS, 0)
    return table.astype(str)


def _joined(table: pd.DataFrame, keys: list[str], gap: int) -> pd.DataFrame:
    """Join the rows of the same keys that overlap, or lie no farther apart than ``gap``, into one."""
    table = table.sort_values("start", kind="stable")
    reach = table.groupby(keys, sort=False)["end"].cummax()
    before = reach.groupby([table[key] for key in keys], sort=False).shift()
    begins = table["start"] > before + gap
    copy = begins.groupby([table[key] for key in keys], sort=False).cumsum().rename("copy")
    extent = {"start": "min", "end": "max"}
    return table.assign(copy=copy).groupby([*keys, "copy"], sort=False, as_index=False).agg(extent)


def _first(columns: dict[str, np.ndarray], keys: list[str]) -> np.ndarray:
    """Take the first attribute that is not empty."""
    value = columns[keys[-1]]
    for key in keys[-2::-1]:
        value = np.where(columns[key] != "", columns[key], value)
    return value


def _feature_lines(path: Path, features: re.Pattern[bytes]) -> bytes:
    """Keep the lines of these features, since the exons of a whole annotation fill the memory."""
    kept = []
    for number, line in enumerate(read_lines(path), start=1):
        if line.startswith(b"##FASTA"):
            break
        if line.startswith(b"#") or not line.strip():
            continue
        cells = line.split(b"\t")
        if len(cells) != 9:
            raise InputError(f"{path}: line {number} has {len(cells)} columns, not 9; mend or remove it")
        if features.fullmatch(cells[2]):
            kept.append(line)
    return b"".join(kept)


def without_version(name: str) -> str:
    """Take the version off an Ensembl id of a gene; other names stay."""
    return ENSEMBL_VERSION.sub(r"\1\2", name)


def locate_genes(path: Path, names: list[str], assembly: str = "") -> pd.DataFrame:
    """Make the gene table, one row for each name of an expression table: a symbol, or an Ensembl id of any version.

    Of several rows of one gene the one on a standard chromosome (1–22, X, Y, M) is taken, of these the longest, of the
    two copies of a pseudoautosomal gene that on X. A gene without coordinates has chrom "", start −1 and end −1. The
    log says the format, how many genes have coordinates, and how many lie at several places.

    Parameters
    ----------
    path
        See :func:`recognise`.
    names
        Genes, in the order of the result.
    assembly
        That of the cohort, such as ``hg19``; "" if unknown.

    Returns
    -------
    pandas.DataFrame
        id (the name), symbol, chrom, start, end (0-based, half-open), strand.

    Raises
    ------
    InputError
        If a line is damaged, the file names another assembly, or holds none of the genes.
    """
    kind, named = recognise(path)
    assembly = assembly_name(assembly)
    if named and NAMED.fullmatch(assembly) and named != assembly:
        raise InputError(f"{path}: is of {named}, the cohort of {assembly}; give the genes of {assembly}")
    table = read_genes(path)
    table = table.assign(standard=table["chrom"].isin(STANDARD_CHROMOSOMES), span=table["end"] - table["start"])
    table = table.assign(x=table["chrom"] != "chrY")
    table = table.sort_values(["standard", "span", "x"], ascending=False, kind="stable").reset_index(drop=True)
    row_of: dict[str, int] = {}
    for row, key in chain(enumerate(table["symbol"]), enumerate(table["id"])):
        row_of.setdefault(without_version(key), row)
    for key, row in list(row_of.items()):
        row_of.setdefault(gene_key(key), row)
    row_of.pop("", None)
    tried_G = ((without_version(name), *gene_keys(name)) for name in names)
    row_G = [next((row_of[key] for key in keys if key in row_of), -1) for keys in tried_G]
    if max(row_G) < 0:
        has = f"{names[0]!r}, … there, {table['symbol'].iloc[0]!r}, … here"
        raise InputError(f"{path}: no gene of the expression table is in it ({has}); use the same names")
    n_known = sum(row >= 0 for row in row_G)
    log.info(f"{path}: {kind}, gives the place of {n_known:,} of {len(names):,} genes")
    places = _joined(table[table["standard"]], PLACE_KEYS, 0)
    several = places["symbol"][places["symbol"].isin(table["symbol"].iloc[row_G]) & places["symbol"].duplicated()]
    if several.nunique():
        n = f"{several.nunique():,} genes ({several.iloc[0]}, …)"
        log.info(f"{path}: {n} lie at several places, of which the longest is taken")
    genes = table.reindex(row_G)[["symbol", "chrom", "start", "end", "strand"]].reset_index(drop=True).assign(id=names)
    genes[["start", "end"]] = genes[["start", "end"]].fillna(UNKNOWN_POSITION).astype(np.int64)
    return genes.assign(symbol=genes["symbol"].replace("", None).fillna(genes["id"])).fillna("")


ENSEMBL = re.compile(r"^(ENS[A-Z]*G\d{11})(\.\d+)?", re.IGNORECASE)
# GRCh38_TP53, mm10___Trp53, GRCh38-2020-A_TP53, human_TP53, and with the dashes of Seurat
GENOME_PREFIX = re.compile(
    rf"^(?P<genome>(?:{'|'.join(SPECIES)})\d+|human|mouse|HUMAN|MOUSE)(?:(?:[-.][\w.-]*?)?_+|-+)(?=\w)"
)

BAR, BESIDE_ID, ENSEMBL_ID = re.compile(r"[|;]"), re.compile(r"[|;_:]"), re.compile(r"ENSG\d{11}")


def gene_key(name: str) -> str:
    """Write a name as it is compared: upper case, without the genome before it and the version of an Ensembl id."""
    name = GENOME_PREFIX.sub("", name.strip())
    ensembl = ENSEMBL.match(name)
    return (ensembl[1] if ensembl else name).upper()


def gene_keys(name: str) -> list[str]:
    """List what a name may be known by: itself, the parts of TP53|7157 or ENSG…_TP53, HLA-A for HLA.A of R."""
    mark = BESIDE_ID if ENSEMBL_ID.search(name) else BAR  # _ alone stands in names such as ANKHD1_EIF4EBP3
    parts = [part for part in mark.split(name) if part and part != "?"]
    return list(dict.fromkeys(gene_key(key) for key in (name, *parts, name.replace(".", "-"))))
