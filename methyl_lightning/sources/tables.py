"""UCSC Xena tables of one cohort → store, and the reading of numbers that the other sources share.

Every reader names the file, the row or column and the remedy in one line (`InputError`) before anything is written.
Legend: C CpGs, S samples, G genes, L bases; R rows and K columns of a table as it stands in its file.
"""

import hashlib
import re
from csv import QUOTE_NONE
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from methyl_lightning.distances import gene_distances
from methyl_lightning.sources.annotation import locate_cpgs
from methyl_lightning.sources.genes import locate_genes
from methyl_lightning.sources.genome import read_sequences
from methyl_lightning.sources.text import MISSING, header_and_rows, refuse_cells, refuse_repeats, split_cells
from methyl_lightning.store import ALPHABET, UNKNOWN_POSITION, InputError, write_store

BARCODE = re.compile(r"^(?P<patient>TCGA-\w\w-\w{4})-(?P<tissue>\d\d)[A-Z]?(?:-[\w-]+)?$")
TISSUE_TYPES = {"01": "Primary Tumor", "06": "Metastatic", "11": "Solid Tissue Normal"}


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


def read_numbers(
    path: Path, kind: str, *, separator: str = "\t", dtype: type[np.floating] = np.float32, missing: bool = False
) -> pd.DataFrame:
    """Read numbers whose first line and first column are names; ``kind`` is what a row is called in messages.

    Cells must be finite numbers; ``NA``, ``NaN`` or nothing gives NaN where ``missing`` is allowed.
    """
    header, rows = header_and_rows(path, separator)
    names = [split_cells(row.partition(separator.encode())[0], separator)[0] for row in rows]
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
