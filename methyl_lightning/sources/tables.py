"""UCSC Xena tables of one cohort → store, and the reading of tables that the other sources share.

Every reader names the file, the row or column and the remedy in one line (`InputError`) before anything is written.
Legend: C CpGs, S samples, G genes, L bases; R rows and K columns of a table as it stands in its file.
"""

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator
from csv import QUOTE_NONE
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyfaidx

from methyl_lightning.distances import gene_distances
from methyl_lightning.store import ALPHABET, UNKNOWN_POSITION, InputError, encode_sequences, write_store

MISSING = ["NA", "", "NaN", "nan"]
BARCODE = re.compile(r"^(?P<patient>TCGA-\w\w-\w{4})-(?P<tissue>\d\d)[A-Z]?(?:-[\w-]+)?$")
TISSUE_TYPES = {"01": "Primary Tumor", "06": "Metastatic", "11": "Solid Tissue Normal"}
ENSEMBL_VERSION = re.compile(r"(?<=^ENSG\d{11})\.\d+$")
STANDARD_CHROMOSOMES = [f"chr{name}" for name in (*range(1, 23), "X", "Y", "M")]


def provenance(
    source: str, settings: dict[str, Any], paths: list[Path], genes: pd.DataFrame, beta_CS: np.ndarray
) -> dict[str, Any]:
    """Say in plain JSON what a store was made from, how, and how much is in it."""
    inputs = []
    for path in paths:
        data = path.read_bytes()
        inputs.append({"file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    counts = {
        "cpgs": beta_CS.shape[0],
        "samples": beta_CS.shape[1],
        "genes": len(genes),
        "genes_without_coordinates": int((genes["start"] == UNKNOWN_POSITION).sum()),
        "missing_share": float(np.isnan(beta_CS).mean()),
    }
    return {"source": source, "settings": settings, "inputs": inputs, "counts": counts}


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


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); check the name or get the file again") from error


def _cells(line: bytes, separator: str) -> list[str]:
    return [cell.strip('"') for cell in line.decode("utf-8-sig", errors="replace").rstrip("\r\n").split(separator)]


def _header_and_rows(path: Path, separator: str) -> tuple[list[str], list[bytes]]:
    lines = [line for line in _lines(path) if line.strip(b"\r\n")]
    header = _cells(lines[0], separator) if lines else []
    if len(lines) < 2 or len(header) < 2:
        raise InputError(f"{path}: empty, or not text with {separator!r} between cells (.gz if zipped); replace it")
    for line in lines[1:]:
        if line.count(separator.encode()) != len(header) - 1:
            cells = _cells(line, separator)
            raise InputError(f"{path}: row {cells[0]!r} has {len(cells)} cells, the header {len(header)}; mend the row")
    refuse_repeats(path, "column", header)
    return header, lines[1:]


def read_text(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a TSV with at least these columns as text, indexed by the first of them; a ``#`` before the header goes."""
    header, rows = _header_and_rows(path, "\t")
    header = [name.removeprefix("#") for name in header]
    for column in columns:
        if column not in header:
            raise InputError(f"{path}: no column {column!r} among {', '.join(header)}; add or rename it")
    return pd.DataFrame([_cells(row, "\t") for row in rows], columns=header, dtype=str).set_index(columns[0])


def read_numbers(
    path: Path, kind: str, *, separator: str = "\t", dtype: type[np.floating] = np.float32, missing: bool = False
) -> pd.DataFrame:
    """Read numbers whose first line and first column are names; ``kind`` is what a row is called in messages.

    Cells must be finite numbers; ``NA``, ``NaN`` or nothing gives NaN where ``missing`` is allowed.
    """
    header, rows = _header_and_rows(path, separator)
    names = [_cells(row.partition(separator.encode())[0], separator)[0] for row in rows]
    refuse_repeats(path, kind, names)
    options = dict[str, Any](names=header, usecols=range(1, len(header)), sep=separator, quoting=QUOTE_NONE)
    remedy = f"put a number{' or NA' if missing else ''} there"
    content = b"".join(rows)
    try:
        table = pd.read_csv(BytesIO(content), dtype=dtype, na_values=MISSING, keep_default_na=False, **options)
    except ValueError:
        text = pd.read_csv(BytesIO(content), dtype=str, na_filter=False, encoding_errors="replace", **options)
        is_number = text.apply(pd.to_numeric, errors="coerce").notna()
        refuse_cells(path, text.set_axis(names), ~(is_number | text.isin(MISSING)).to_numpy(), remedy)
        raise
    table = table.set_axis(names)
    values_RK = table.to_numpy()
    refuse_cells(path, table, np.isinf(values_RK) if missing else ~np.isfinite(values_RK), remedy)
    return table


def read_beta(path: Path, separator: str = "\t") -> pd.DataFrame:
    """Read a table CpG × sample of beta values; refuse values outside 0…1, the −0.5 shift of old Xena files by name."""
    table = read_numbers(path, "probe", separator=separator, missing=True)
    values_CS = table.to_numpy()
    lowest, highest = (extreme.reduce(values_CS, axis=None, initial=0) for extreme in (np.fmin, np.fmax))
    if -0.5 <= lowest < 0 and highest <= 0.5:
        raise InputError(f"{path}: values from {lowest:g} to {highest:g} are beta − 0.5, as in old Xena files; add 0.5")
    refuse_cells(path, table, (values_CS < 0) | (values_CS > 1), "beta lies within 0…1, convert it")
    return table


def set_barcodes(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Check that the columns are TCGA barcodes, with dots taken as dashes."""
    for name in table.columns:
        if not BARCODE.fullmatch(name.replace(".", "-")):
            raise InputError(f"{path}: column {name!r} is not a barcode such as TCGA-A1-A0SB-01; rename or remove it")
    barcodes = table.columns.str.replace(".", "-")
    refuse_repeats(path, "barcode", barcodes.tolist())
    return table.set_axis(barcodes, axis="columns")


def sample_table(ids: list[str], cohort: str) -> pd.DataFrame:
    """Make the sample table; an id that is no barcode is its own patient, its tissue ``unknown``."""
    parts = pd.Series(ids).str.extract(BARCODE)
    patient = parts["patient"].fillna(pd.Series(ids))
    tissue_type = [TISSUE_TYPES.get(code, code) for code in parts["tissue"].fillna("unknown")]
    return pd.DataFrame({"id": ids, "patient": patient, "cohort": cohort, "tissue_type": tissue_type})


def refuse_off_centre(path: Path, cpgs: list[str], sequence_CL: np.ndarray) -> None:
    """Refuse a sequence without C at window/2 − 1 and G after it."""
    c_index = sequence_CL.shape[1] // 2 - 1
    is_cg = (sequence_CL[:, c_index : c_index + 2] == [ALPHABET.index("C"), ALPHABET.index("G")]).all(axis=1)
    if not is_cg.all():
        cpg = cpgs[int(np.argmin(is_cg))]
        raise InputError(f"{path}: the centre of the sequence of {cpg!r} is not CG; mend it or remove the probe")


def read_sequences(path: Path, cpgs: list[str], window: int) -> np.ndarray:
    """Cut a window around the centre of each probe's FASTA record (C at k − 1 of 2k bases), uint8 [C, window].

    The index of pyfaidx, and the text of a gzip file, lie in a temporary folder: the folder of the input is only read.
    """
    with TemporaryDirectory() as folder:
        text = Path(folder, "sequences.fa") if path.suffix == ".gz" else path
        if text != path:
            text.write_bytes(b"".join(_lines(path)))
        try:
            fasta = pyfaidx.Fasta(str(text), indexname=str(Path(folder, "index.fai")), as_raw=True)
        except (pyfaidx.FastaIndexingError, OSError, ValueError) as error:
            raise InputError(f"{path}: no FASTA file with one record a probe ({error}); mend or replace it") from error
        with fasta:
            sequence_CL = encode_sequences([_cut(path, fasta, cpg, window) for cpg in cpgs])
    refuse_off_centre(path, cpgs, sequence_CL)
    return sequence_CL


def _cut(path: Path, fasta: pyfaidx.Fasta, cpg: str, window: int) -> str:
    if cpg not in fasta:
        raise InputError(f"{path}: no sequence of probe {cpg!r}; add it or remove the probe from the methylation table")
    start, odd = divmod(len(fasta[cpg]) - window, 2)
    if start < 0 or odd:
        raise InputError(f"{path}: {cpg!r} has {len(fasta[cpg])} bases; give an even number ≥ window, now {window}")
    return fasta[cpg][start : start + window]


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


def tcga_xena(
    store: str | Path,
    *,
    methylation: str | Path,
    expression: str | Path,
    probe_map: str | Path,
    genes: str | Path,
    sequences: str | Path | None = None,
    window: int = 800,
    cohort: str,
    assembly: str = "hg19",
    probe_map_base: int = 1,
    anchor: str = "tss",
    limit_bp: int = 100_000,
    units: str = "log2(norm+1)",
) -> None:
    """Write the store of a TCGA cohort from tables in the layout of UCSC Xena.

    Parameters
    ----------
    store
        File to write; nothing is written if an input is refused.
    methylation, expression
        TSV, CpGs or genes × barcodes, missing beta ``NA``; samples in both are kept, in the order of ``methylation``.
    probe_map
        TSV with columns id, chrom, chromStart: the C on the + strand, counted from ``probe_map_base`` (1 or 0).
    genes
        TSV with columns symbol, chr, start, end, strand and perhaps ensembl; see :func:`locate_genes`.
    sequences, window
        FASTA, one record a probe, its CG in the centre, of which ``window`` bases (even) are kept; without it only N.
    cohort, assembly, units, anchor, limit_bp
        Kept in the store; the last two are those of :func:`methyl_lightning.distances.gene_distances`.

    Raises
    ------
    InputError
        If an input is missing, damaged or contradicts another.
    """
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in locals().items() if k != "store"}
    if window < 2 or window % 2 or probe_map_base not in (0, 1):
        raise InputError(f"window={window} must be even and positive, probe_map_base={probe_map_base} must be 0 or 1")
    beta = set_barcodes(Path(methylation), read_beta(Path(methylation)))
    expressed = set_barcodes(Path(expression), read_numbers(Path(expression), "gene"))
    shared = [sample for sample in beta.columns.tolist() if sample in expressed]
    if not shared:
        raise InputError(f"{expression}: has no sample of {methylation} ({beta.columns[0]}, …); match the barcodes")
    cpgs = locate_cpgs(Path(probe_map), beta.index.tolist(), probe_map_base)
    gene_table = locate_genes(Path(genes), expressed.index.tolist())
    sequence_CL = np.full((len(beta), window), ALPHABET.index("N"), dtype=np.uint8)
    if sequences is not None:
        sequence_CL = read_sequences(Path(sequences), beta.index.tolist(), window)
    beta_CS = beta[shared].to_numpy()
    paths = [Path(file) for file in (methylation, expression, probe_map, genes, sequences) if file is not None]
    write_store(
        store,
        cpgs=cpgs,
        sequence_CL=sequence_CL,
        genes=gene_table,
        samples=sample_table(shared, cohort),
        distances=gene_distances(cpgs, gene_table, limit_bp, anchor),
        expression_SG=expressed[shared].to_numpy().T,
        beta_CS=beta_CS,
        units=units,
        assembly=assembly,
        provenance=provenance("tcga_xena", settings, paths, gene_table, beta_CS),
    )
