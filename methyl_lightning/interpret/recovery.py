"""Truth first: on a simulated cohort drivers, motifs and near genes are planted, and every method is held against them.

Legend: C CpGs, S samples, G genes, L bases, D drivers, N things that are ranked.
"""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from methyl_lightning.data.store import Store
from methyl_lightning.interpret.cis import entries
from methyl_lightning.interpret.motifs import LEAST_SITES, Filter, one_hot, similarity
from methyl_lightning.interpret.mutagenesis import LETTERS, Track

CERTAIN, GOOD = 0.05, 0.9  # p below which a method beats chance, and AUROC from which it recovers
LEAST_WEIGHT = 0.1  # of the largest, of a planted near gene
N_DECOYS = 50


class Truth(NamedTuple):
    """What was planted.

    Attributes
    ----------
    driver_D, motif_D
        Driver genes, and the motif that makes a CpG follow each.
    motif_C
        The motif of each CpG of the store, −1 none.
    cis_N2, weight_N
        CpG and gene of each planted near gene, and its weight.
    """

    driver_D: np.ndarray
    motif_D: list[str]
    motif_C: np.ndarray
    cis_N2: np.ndarray
    weight_N: np.ndarray


def read_truth(store: Store) -> Truth | None:
    """Read the truth beside a simulated store; None where there is none, or it belongs to another store."""
    provenance = store.attributes["provenance"]
    if provenance.get("source") != "simulated" or "truth" not in provenance:
        return None
    path = store.path.with_name(provenance["truth"])
    if not path.is_file():
        return None
    with h5py.File(path, "r") as file:
        if json.loads(file.attrs["settings"]) != provenance["settings"]:
            return None
        return Truth(
            file["drivers/gene"][:],
            file["drivers/motif"].asstr()[:].tolist(),
            file["cpgs/motif"][:],
            np.stack([file["cis/cpg"][:], file["cis/gene"][:]], axis=1),
            file["cis/weight"][:],
        )


def recover_genes(truth: Truth, measures: Mapping[str, np.ndarray]) -> list[tuple]:
    """Rank all genes by each measure; the drivers should come first."""
    n_genes = len(next(iter(measures.values())))
    driver_G = np.isin(np.arange(n_genes), truth.driver_D)
    return [("drivers", name, *rank(driver_G, value_G)) for name, value_G in measures.items()]


def recover_effects(truth: Truth, store: Store, cpg_C: np.ndarray, effect_CG: np.ndarray) -> list[tuple]:
    """Rank CpGs by how much they follow each driver, and near genes by their effect on a CpG."""
    size_CD = np.abs(effect_CG[:, truth.driver_D])
    size_CD = size_CD / size_CD.mean(axis=0).clip(1e-12)
    follows_CD = truth.motif_C[cpg_C][:, None] == np.arange(len(truth.driver_D))
    rows = [("CpGs of a driver", "knock_out", *rank(follows_CD.ravel(), size_CD.ravel()))]
    cpg_N, gene_N, bp_N = entries(store.distances, cpg_C)
    n_genes = effect_CG.shape[1]
    strong = np.abs(truth.weight_N) >= LEAST_WEIGHT * np.abs(truth.weight_N).max(initial=0)
    planted = truth.cis_N2[strong] @ [n_genes, 1]
    near_N = np.isin(cpg_C[cpg_N].astype(np.int64) * n_genes + gene_N, planted)
    rows.append(("near genes of a CpG", "knock_out", *rank(near_N, np.abs(effect_CG[cpg_N, gene_N]))))
    rows.append(("near genes of a CpG", "distance alone", *rank(near_N, -np.abs(bp_N.astype(float)))))
    return rows


def recover_sites(truth: Truth, store: Store, cpg_C: np.ndarray, tracks: Sequence[Track]) -> list[tuple]:
    """Rank the bases of windows that hold a planted motif by what mutating them does."""
    planted: list[np.ndarray] = []
    found: dict[str, list[np.ndarray]] = {"change": [], "interaction": []}
    for c, track in zip(cpg_C, tracks, strict=True):
        if truth.motif_C[c] < 0:
            continue
        motif = truth.motif_D[truth.motif_C[c]]
        window = "".join((LETTERS + "N")[code] for code in store.sequence_CL[c])
        inside_L = np.full(len(window), False)
        at = window.find(motif)
        while at >= 0:
            inside_L[at : at + len(motif)] = True
            at = window.find(motif, at + 1)
        planted.append(inside_L)
        for what, values in found.items():
            values.append(np.abs(track.importance(what)))
    if not planted:
        return []
    inside_N = np.concatenate(planted)
    return [
        ("bases of motifs", f"mutagenesis ({what})", *rank(inside_N, np.concatenate(values)))
        for what, values in found.items()
    ]


def decoys(truth: Truth, seed: int) -> list[str]:
    """Draw motifs that were not planted: the letters of planted ones in another order, without CG as these."""
    rng, made = np.random.default_rng([seed, 8]), set[str]()
    for _ in range(100 * N_DECOYS):
        letters = list(truth.motif_D[int(rng.integers(len(truth.motif_D)))])
        motif = "".join(rng.permutation(letters))
        if "CG" not in motif and motif not in truth.motif_D:
            made.add(motif)
        if len(made) == N_DECOYS:
            break
    return sorted(made)


def recover_motifs(truth: Truth, motifs: Sequence[str], methods: Mapping[str, np.ndarray]) -> list[tuple]:
    """Rank planted motifs among decoys by what inserting them does, or how like a filter they are."""
    planted_N = np.isin(motifs, truth.motif_D)
    return [("motifs", name, *rank(planted_N, value_N)) for name, value_N in methods.items()]


def likeness(motifs: Sequence[str], filters: Sequence[Filter]) -> np.ndarray:
    """Compare each motif with the filter that is most like it."""
    frequencies = [one.frequency_WA for one in filters if one.sites >= LEAST_SITES]
    return np.array([max((similarity(one_hot(m), f_WA) for f_WA in frequencies), default=0.0) for m in motifs])


def rank(positive_N: np.ndarray, score_N: np.ndarray) -> tuple[int, int, float, float, float]:
    """Return how many are planted, of how many, AUROC, precision at the number planted, and the one-sided p."""
    n, of = int(positive_N.sum()), len(positive_N)
    if n in (0, of):
        return n, of, np.nan, np.nan, np.nan
    test = mannwhitneyu(score_N[positive_N], score_N[~positive_N], alternative="greater")
    first = np.argsort(-score_N, kind="stable")[:n]
    return n, of, float(test.statistic) / (n * (of - n)), float(positive_N[first].mean()), float(test.pvalue)


def recovery_table(rows: Sequence[tuple]) -> pd.DataFrame:
    """Lay the recoveries out, each with its verdict against chance."""
    table = pd.DataFrame(rows, columns=["planted", "method", "n", "of", "auroc", "precision", "p"])
    table["verdict"] = list(map(verdict, table["auroc"], table["p"] < CERTAIN))
    return table


def verdict(auroc: float, above_chance: bool, above_control: bool = True) -> str:
    """Say in words how a method recovers what was planted.

    Parameters
    ----------
    auroc
        NaN where nothing, or everything, was planted.
    above_chance
        Whether it certainly lies above 0.5.
    above_control
        Whether it certainly lies above that of a network trained on permuted labels, where there is such a control.
    """
    if np.isnan(auroc):
        return "cannot be told"
    if not above_chance:
        return "does not recover it: no better than chance"
    if not above_control:
        return "does not recover it: no better than of permuted labels"
    return "recovers it" if auroc >= GOOD else "better than chance, but ranks much else above it"
