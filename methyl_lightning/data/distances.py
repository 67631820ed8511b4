"""Gene distances: which genes lie near a CpG, and what a distance weighs.

The store keeps signed base pairs; every weighting is a view of the same numbers. Legend: C CpGs, N (CpG, gene) entries.
"""

import numpy as np
import pandas as pd

from methyl_lightning.data.store import UNKNOWN_POSITION, Distances


def gene_position(genes: pd.DataFrame, anchor: str) -> np.ndarray:
    """Place each gene at one base.

    Parameters
    ----------
    genes
        Gene table of the store (start, end, strand; 0-based, half-open; start −1 where unknown).
    anchor
        ``start`` (lowest coordinate, as upstream) or ``tss`` (transcription start, by strand).

    Returns
    -------
    numpy.ndarray
        int64 [G], −1 where the gene has no coordinates.
    """
    if anchor not in ("tss", "start"):
        raise ValueError(f"anchor={anchor!r}: must be 'tss' or 'start'")
    start = genes["start"].to_numpy(np.int64)
    if anchor == "start":
        return start
    on_minus = (genes["strand"] == "-").to_numpy() & (start != UNKNOWN_POSITION)
    return np.where(on_minus, genes["end"].to_numpy(np.int64) - 1, start)


def gene_distances(cpgs: pd.DataFrame, genes: pd.DataFrame, limit_bp: int, anchor: str = "tss") -> Distances:
    """List the genes within ``limit_bp`` of each CpG on its chromosome, nearest coordinate first.

    Parameters
    ----------
    cpgs, genes
        Tables of the store; rows without coordinates get no distances.
    limit_bp
        Largest absolute distance kept.
    anchor
        See :func:`gene_position`.

    Returns
    -------
    Distances
        bp = gene position − CpG position.
    """
    position_G = gene_position(genes, anchor)
    position_C = cpgs["position"].to_numpy(np.int64)
    first_C = np.zeros(len(cpgs), dtype=np.int64)
    count_C = np.zeros(len(cpgs), dtype=np.int64)
    order_G = np.lexsort((position_G, genes["chrom"].to_numpy()))
    sorted_chrom = genes["chrom"].to_numpy()[order_G]
    for chrom, rows in cpgs[position_C != UNKNOWN_POSITION].groupby("chrom").indices.items():
        c = np.flatnonzero(position_C != UNKNOWN_POSITION)[rows]
        on_chrom = np.flatnonzero((sorted_chrom == chrom) & (position_G[order_G] != UNKNOWN_POSITION))
        if not len(on_chrom):
            continue
        coordinates = position_G[order_G[on_chrom]]
        low = np.searchsorted(coordinates, position_C[c] - limit_bp, side="left")
        high = np.searchsorted(coordinates, position_C[c] + limit_bp, side="right")
        first_C[c], count_C[c] = on_chrom[0] + low, high - low
    indptr_C = np.concatenate([[0], np.cumsum(count_C)])
    entry_N = np.repeat(first_C - indptr_C[:-1], count_C) + np.arange(indptr_C[-1])
    gene_N = order_G[entry_N]
    bp_N = position_G[gene_N] - np.repeat(position_C, count_C)
    return Distances(indptr_C, gene_N.astype(np.int32), bp_N.astype(np.int32))


def within(distances: Distances, limit_bp: int) -> np.ndarray:
    """Tell for each CpG whether any gene lies within ``limit_bp`` (bool [C])."""
    near_N = np.abs(distances.bp_N) <= limit_bp
    counts = np.concatenate([[0], np.cumsum(near_N)])
    return np.diff(counts[distances.indptr_C]) > 0


def nearest_gene(distances: Distances) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest listed gene of each CpG.

    Returns
    -------
    tuple
        int64 [C] index of the gene, −1 where none is listed, and int64 [C] its signed distance, 0 there.
    """
    cpg_N = np.repeat(np.arange(len(distances.indptr_C) - 1), np.diff(distances.indptr_C))
    order_N = np.lexsort((np.abs(distances.bp_N), cpg_N))
    near_C, first_C = np.unique(cpg_N[order_N], return_index=True)
    gene_C = np.full(len(distances.indptr_C) - 1, -1, dtype=np.int64)
    bp_C = np.zeros(len(gene_C), dtype=np.int64)
    gene_C[near_C], bp_C[near_C] = distances.gene_N[order_N][first_C], distances.bp_N[order_N][first_C]
    return gene_C, bp_C
