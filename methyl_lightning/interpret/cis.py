"""Cis maps: what the expression of near genes does to a CpG, by signed distance and along the chromosome.

Legend: C CpGs, G genes, N (CpG, gene) entries.
"""

from itertools import pairwise

import numpy as np
import pandas as pd

from methyl_lightning.data.store import Distances, Store
from methyl_lightning.files import InputError

EDGES_BP = (0, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)


def entries(distances: Distances, cpg_C: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the entries of some CpGs: their place among these, gene and signed distance: [N] each."""
    rows = distances.rows(cpg_C)
    return np.repeat(np.arange(len(cpg_C)), np.diff(rows.indptr_C)), rows.gene_N, rows.bp_N


def by_distance(distances: Distances, cpg_C: np.ndarray, effect_CG: np.ndarray, seed: int) -> pd.DataFrame:
    """Average the effects of near genes by signed distance (gene − CpG), beside genes drawn at random for each entry.

    Returns
    -------
    pandas.DataFrame
        ``low_bp``, ``high_bp`` (NaN: a random gene), ``entries``, ``effect``, ``size`` (mean |effect|).
    """
    cpg_N, gene_N, bp_N = entries(distances, cpg_C)
    effect_N = effect_CG[cpg_N, gene_N]
    rows = []
    for side in (-1, 1):
        for low, high in pairwise(EDGES_BP):
            inside_N = (np.where(bp_N < 0, -1, 1) == side) & (np.abs(bp_N) >= low) & (np.abs(bp_N) < high)
            if inside_N.any():
                bounds = sorted((side * low, side * high))
                values_N = effect_N[inside_N]
                rows.append((*bounds, len(values_N), values_N.mean(), np.abs(values_N).mean()))
    random_N = effect_CG[cpg_N, np.random.default_rng([seed, 7]).integers(effect_CG.shape[1], size=len(cpg_N))]
    if len(random_N):
        rows.append((np.nan, np.nan, len(random_N), random_N.mean(), np.abs(random_N).mean()))
    return pd.DataFrame(rows, columns=["low_bp", "high_bp", "entries", "effect", "size"]).sort_values("low_bp")


def map_rows(store: Store, name: str) -> np.ndarray:
    """Return the rows of the CpGs that a map shows: the CpG named, or those near the gene named.

    Raises
    ------
    InputError
        If the store has no such CpG or gene, or lists no distance of it.
    """
    is_cpg_C = (store.cpgs["id"] == name).to_numpy()
    gene_G = np.flatnonzero(store.genes["symbol"] == name)
    if not is_cpg_C.any() and not len(gene_G):
        raise InputError(f"cis={name}: neither a CpG nor a gene of {store.path}; name one by its id or symbol")
    cpg_N = np.repeat(np.arange(len(store.cpgs)), np.diff(store.distances.indptr_C))
    chosen_N = is_cpg_C[cpg_N] if is_cpg_C.any() else np.isin(store.distances.gene_N, gene_G)
    if not chosen_N.any():
        raise InputError(f"cis={name}: has no gene or CpG near it in {store.path}; name another")
    return np.unique(cpg_N[chosen_N])


def cis_map(store: Store, name: str, cpg_C: np.ndarray, effect_CG: np.ndarray) -> pd.DataFrame:
    """Lay out a map along the chromosome: ``cpg``, ``gene``, ``position``, ``bp``, ``effect``, ``island``.

    ``position`` is that of the gene where the map is a CpG's, that of the CpG where it is a gene's.
    """
    cpg_N, gene_N, bp_N = entries(store.distances, cpg_C)
    cpgs, genes = store.cpgs.iloc[cpg_C[cpg_N]], store.genes.iloc[gene_N]
    of_cpg = (store.cpgs["id"] == name).any()
    chosen_N = (cpgs["id"].to_numpy() if of_cpg else genes["symbol"].to_numpy()) == name
    position_N = cpgs["position"].to_numpy()
    table = pd.DataFrame(
        {
            "cpg": cpgs["id"].to_numpy(),
            "gene": genes["symbol"].to_numpy(),
            "chrom": cpgs["chrom"].to_numpy(),
            "position": position_N + bp_N if of_cpg else position_N,
            "bp": bp_N,
            "effect": effect_CG[cpg_N, gene_N],
            "island": cpgs["island"].to_numpy(),
        }
    )
    return table[chosen_N].sort_values("position", ignore_index=True)
