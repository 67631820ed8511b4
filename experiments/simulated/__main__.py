"""Compare the simulated cohort with real ones: ``python -m experiments.simulated STORE …`` prints one column a store.

What models say is cross-validated on folds of patients and of CpGs, drawn at random. A cell says what was not there to
be measured by "–". Legend: C CpGs, S samples, G genes, P pairs, N (CpG, gene) entries.
"""

import argparse
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from experiments.networks.cross_validate import predictions
from methyl_lightning.data.store import ALPHABET, Store, write_store
from methyl_lightning.metrics.scores import correlation_per_row, mas_pcc, spearman

N_PAIRS, FEWEST = 2_000, 20
LEVELS = ((0, 0.05), (0.05, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 0.9), (0.9, 1))
NEIGHBOURS_BP = (1, 100, 200, 400, 1_000, 2_000, 5_000, 20_000, 100_000)
CIS_BP = (-100_000, -20_000, -5_000, -1_500, -500, 0, 500, 1_500, 5_000, 20_000, 100_000)
LEAST_SD = 0.05  # of a gene's expression
LEAST_KNOWN = 0.5  # of the CpGs, with a sequence
SMALL = {"cpgs": 1_116, "window": 122}  # as chr17: what k-mers tell depends on both

Rows = Iterator[tuple[str, str]]


def neighbours(store: Store, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Name each range of distances, and draw pairs of CpGs that lie so far apart [P, 2]."""
    chrom_C = np.unique(store.cpgs["chrom"].to_numpy(str), return_inverse=True)[1]
    order = np.lexsort((store.position_C, chrom_C))
    order = order[store.position_C[order] >= 0]
    place = chrom_C[order] * 10**10 + store.position_C[order]
    for low, high in pairwise(NEIGHBOURS_BP):
        first, last = np.searchsorted(place, place + low), np.searchsorted(place, place + high)
        left_P = np.repeat(np.arange(len(order)), last - first)
        right_P = np.repeat(last - np.cumsum(last - first), last - first) + np.arange(len(left_P))
        drawn_P = rng.permutation(len(left_P))[:N_PAIRS]
        yield f"{low:,} to {high:,} bp", np.stack([order[left_P[drawn_P]], order[right_P[drawn_P]]], axis=1)
    yield "anywhere", rng.integers(len(chrom_C), size=(N_PAIRS, 2))


def cis_pairs(store: Store, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Name each range of places, and draw pairs of a CpG that lies there and the gene [P, 2]."""
    distances, minus_G = store.distances, (store.genes["strand"] == "-").to_numpy()
    varies_G = store.expression_SG.std(axis=0) > LEAST_SD
    cpg_N = np.repeat(np.arange(len(store.cpgs)), np.diff(distances.indptr_C))
    along_N = np.where(minus_G[distances.gene_N], distances.bp_N, -distances.bp_N)
    for low, high in pairwise(CIS_BP):
        entry_P = np.flatnonzero((along_N >= low) & (along_N < high) & varies_G[distances.gene_N])
        entry_P = rng.permutation(entry_P)[:N_PAIRS]
        yield f"{low:,} to {high:,} bp", np.stack([cpg_N[entry_P], distances.gene_N[entry_P]], axis=1)
    anywhere = rng.integers(len(store.cpgs), size=N_PAIRS), rng.choice(np.flatnonzero(varies_G), N_PAIRS)
    yield "anywhere", np.stack(anywhere, axis=1)


def write_small(store: Store, path: Path, rng: np.random.Generator) -> None:
    """Write a store of the CpGs that have a sequence, as many and with windows as wide as on chr17 at most."""
    known_C = (store.sequence_CL != ALPHABET.index("N")).any(axis=1)
    cpg_C = np.sort(rng.permutation(np.flatnonzero(known_C))[: SMALL["cpgs"]])
    middle, half = store.window // 2, min(store.window, SMALL["window"]) // 2
    write_store(
        path,
        cpgs=store.cpgs.iloc[cpg_C].reset_index(drop=True),
        sequence_CL=store.sequence_CL[cpg_C, middle - half : middle + half],
        genes=store.genes,
        samples=store.samples,
        distances=store.distances.rows(cpg_C),
        expression_SG=store.expression_SG,
        beta_CS=store.beta_steps_CS[cpg_C],
        units=store.attributes["units"],
        assembly=store.attributes["assembly"],
        provenance=store.attributes["provenance"],
    )


def cross_validated(store: Store, network: str, view: str, metric: Callable[..., float]) -> float:
    """Score a network on the folds of seen or unseen CpGs, mean over the folds."""
    parts = [part for part in predictions(store, network, "random", 0) if part[0] == view]
    return float(np.mean([metric(measured_CS, predicted_CS) for _, measured_CS, predicted_CS, _ in parts]))


def kmer_mean(store: Store, rng: np.random.Generator) -> str:
    """Score the mean that k-mers predict on as many CpGs, and windows as wide, as those of chr17."""
    if (store.sequence_CL != ALPHABET.index("N")).any(axis=1).mean() < LEAST_KNOWN:
        return "–"
    with TemporaryDirectory() as folder:
        write_small(store, Path(folder, "small.h5"), rng)
        return f"{cross_validated(Store(Path(folder, 'small.h5')), 'CpgMean', 'unseen', spearman):.2f}"


def by_distance(pairs: Iterator[tuple[str, np.ndarray]], measure: Callable[[np.ndarray], str]) -> Rows:
    """Measure the pairs of each range of distances, where there are enough."""
    for name, pair_P2 in pairs:
        yield name, measure(pair_P2) if len(pair_P2) >= FEWEST else "–"


def facts(store: Store) -> Rows:
    """Measure one store: name and value of each row."""
    rng = np.random.default_rng(0)
    beta_CS = store.beta(np.arange(len(store.cpgs)), np.arange(len(store.samples))).astype(np.float64)
    mean_C, sd_C = np.nanmean(beta_CS, axis=1), np.nanstd(beta_CS, axis=1)
    expression_GS = np.array(store.expression_SG.T, dtype=np.float64)

    def of_neighbours(pair_P2: np.ndarray) -> str:
        left_PS, right_PS = beta_CS[pair_P2[:, 0]], beta_CS[pair_P2[:, 1]]
        r_P = correlation_per_row(np.where(np.isnan(right_PS), np.nan, left_PS), np.nan_to_num(right_PS))
        return f"{np.nanmean(r_P):.2f} ± {np.nanstd(r_P):.2f}; {np.corrcoef(mean_C[pair_P2.T])[0, 1]:.2f}"

    def of_cis(pair_P2: np.ndarray) -> str:
        r_P = correlation_per_row(beta_CS[pair_P2[:, 0]], expression_GS[pair_P2[:, 1]])
        levels = np.corrcoef(mean_C[pair_P2[:, 0]], expression_GS.mean(axis=1)[pair_P2[:, 1]])[0, 1]
        return f"{np.nanmean(r_P):.2f} ± {np.nanstd(r_P):.2f}; {levels:.2f}"

    yield "CpGs × samples", f"{beta_CS.shape[0]:,} × {beta_CS.shape[1]:,}"
    yield "between-CpG share of the variance", f"{np.nanvar(mean_C) / np.nanvar(beta_CS):.2f}"
    yield "CpGs with a mean below .2", f"{(mean_C < 0.2).mean():.2f}"
    yield "CpGs with a mean above .8", f"{(mean_C > 0.8).mean():.2f}"
    yield "**sd over samples** by mean: 10th, 50th, 90th percentile", ""
    for low, high in LEVELS:
        sd = sd_C[(mean_C >= low) & (mean_C < high)]
        yield f"{low} to {high}", ", ".join(f"{value:.3f}" for value in np.quantile(sd, [0.1, 0.5, 0.9]))
    yield "**two CpGs** by distance: r over samples ± sd over pairs; r of means", ""
    yield from by_distance(neighbours(store, rng), of_neighbours)
    yield "**CpG and gene** by the CpG's place from the start: r over samples ± sd over pairs; r of means", ""
    yield from by_distance(cis_pairs(store, rng), of_cis)
    yield "**cross-validated**", ""
    one = cross_validated(store, "ExpressionOnly", "unseen", mas_pcc)
    yield "MAS-PCC of one number a sample (`expression_only`), unseen CpGs", f"{one:.2f}"
    own = cross_validated(store, "OwnLabelRidge", "seen", mas_pcc)
    yield "MAS-PCC of own labels (`own_label_ridge`), seen CpGs", f"{own:.2f}"
    yield "Spearman of the k-mer mean (`cpg_mean`), unseen CpGs", kmer_mean(store, rng)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("stores", nargs="+", type=Path)
    torch.set_num_threads(1)
    stores = [Store(path) for path in parser.parse_args().stores]
    print(f"| | {' | '.join(store.path.stem for store in stores)} |")
    print("|---" * (len(stores) + 1) + "|")
    for rows in zip(*(facts(store) for store in stores), strict=True):
        print(f"| {rows[0][0]} | {' | '.join(value for _, value in rows)} |", flush=True)
