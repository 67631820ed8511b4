"""The four CSV files of the original authors → store.

Labels (CpG × sample), signed inverse distances (CpG × gene, 1/bp, 0 where there is none), expression (sample × gene)
and one-hot sequences (CpG × 5·L, letters in the order A C G T N). They name no positions: the distances stand for them.

Legend: C CpGs, S samples, G genes, L bases, A letters, N (CpG, gene) entries.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from methyl_lightning.data.store import ALPHABET, UNKNOWN_POSITION, Distances, write_store
from methyl_lightning.files import InputError
from methyl_lightning.prepare.provenance import provenance
from methyl_lightning.prepare.samples import sample_table
from methyl_lightning.prepare.windows import refuse_off_centre
from methyl_lightning.readers.matrices import checked_beta, read_all, text_matrix
from methyl_lightning.readers.text import refuse_cells

LARGEST_BP = np.iinfo(np.int32).max


def _require(path: Path, kind: str, wanted: pd.Index, names: pd.Index) -> None:
    absent = wanted[~wanted.isin(names)]
    if len(absent):
        raise InputError(f"{path}: no {kind} {absent[0]!r}; add it or remove it from the other files")


def read_distances(path: Path, cpgs: pd.Index, genes: pd.Index) -> Distances:
    """Turn signed inverse distances into base pairs, round(1/value), for these CpGs and genes; zeros are left out."""
    table = read_all(text_matrix(path, "CpG", dtype=np.float64))
    _require(path, "CpG", cpgs, table.index)
    _require(path, "gene", genes, table.columns)
    table = table.loc[cpgs, genes]
    inverse_CG = table.to_numpy()
    size_CG = np.abs(inverse_CG)
    bad_CG = (size_CG > 1) | ((size_CG > 0) & (size_CG < 1 / LARGEST_BP))
    refuse_cells(path, table, bad_CG, "put 1/bp of a whole number of base pairs there, or 0")
    cpg_N, gene_N = np.nonzero(inverse_CG)
    indptr_C = np.searchsorted(cpg_N, np.arange(len(cpgs) + 1))
    bp_N = np.rint(1 / inverse_CG[cpg_N, gene_N]).astype(np.int32)
    return Distances(indptr_C, gene_N.astype(np.int32), bp_N)


def read_one_hot(path: Path, cpgs: pd.Index) -> np.ndarray:
    """Decode the sequences of these CpGs, uint8 [C, L]; refuse a base that is not exactly one letter."""
    table = read_all(text_matrix(path, "CpG"))
    _require(path, "CpG", cpgs, table.index)
    n_cells = table.shape[1]
    if n_cells % (2 * len(ALPHABET)):
        raise InputError(f"{path}: {n_cells} one-hot columns; an even number of bases has {len(ALPHABET)} each")
    one_hot_CLA = table.loc[cpgs].to_numpy().reshape(len(cpgs), -1, len(ALPHABET))
    is_letter_CL = np.isin(one_hot_CLA, (0, 1)).all(axis=2) & (one_hot_CLA.sum(axis=2) == 1)
    if not is_letter_CL.all():
        c, base = np.argwhere(~is_letter_CL)[0]
        found = f"base {base} of {cpgs[c]!r} is {one_hot_CLA[c, base].tolist()}"
        raise InputError(f"{path}: {found}; exactly one of {', '.join(ALPHABET)} must be 1, the others 0")
    sequence_CL = one_hot_CLA.argmax(axis=2).astype(np.uint8)
    refuse_off_centre(path, cpgs.tolist(), sequence_CL)
    return sequence_CL


def upstream(
    store: str | Path,
    *,
    labels: str | Path,
    distances: str | Path,
    expression: str | Path,
    sequences: str | Path,
    cohort: str = "upstream",
    assembly: str = "unknown",
) -> None:
    """Write the store of a cohort from the CSV files of the original authors (plain or ``.gz``).

    CpGs and samples stand in the order of ``labels``, genes in that of ``expression``; the files are matched by name,
    and what the other files hold besides is left out.

    Parameters
    ----------
    store
        File to write; nothing is written if an input is refused.
    labels
        ``ch3_*``: CpG × sample, beta in 0…1, missing ``NA``.
    distances
        ``d_*``: CpG × gene, 1/(gene − CpG position in bp), 0 for a gene on another chromosome.
    expression
        ``e_*``: sample × gene, log2(norm+1).
    sequences
        ``probeToOneHotAll_*``: CpG × 5·L, the C of the CpG at L/2 − 1.
    cohort, assembly
        Names kept in the store.

    Raises
    ------
    InputError
        If an input is missing, damaged or contradicts another.
    """
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in locals().items() if k != "store"}
    measured = text_matrix(Path(labels), "CpG", missing=True)
    beta = read_all(measured._replace(chunks=partial(checked_beta, measured)))
    expressed = read_all(text_matrix(Path(expression), "sample"))
    _require(Path(expression), "sample", beta.columns, expressed.index)
    cpgs = pd.DataFrame({"id": beta.index, "chrom": "", "position": UNKNOWN_POSITION, "island": ""})
    names = expressed.columns
    genes = pd.DataFrame({"symbol": names, "id": names, "chrom": "", "start": -1, "end": -1, "strand": ""})
    paths = [Path(file) for file in (labels, distances, expression, sequences)]
    write_store(
        store,
        cpgs=cpgs,
        sequence_CL=read_one_hot(Path(sequences), beta.index),
        genes=genes,
        samples=sample_table(beta.columns.tolist(), cohort),
        distances=read_distances(Path(distances), beta.index, names),
        expression_SG=expressed.loc[beta.columns].to_numpy(),
        beta_CS=beta.to_numpy(),
        units="log2(norm+1)",
        assembly=assembly,
        provenance=provenance("upstream", settings, paths, genes, beta.shape, float(beta.isna().to_numpy().mean())),
    )
