"""Cross-validate networks that are fitted in closed form on the same folds.

usage: python -m experiments.networks.cross_validate STORE NETWORK … [--by chromosome|block|random] [--seeds 1]

Five folds of patients and of CpGs; fold f trains on the CpGs and the patients outside it, and tests on the patients in
it and the CpGs in it (unseen) or outside it (seen). All networks see the same folds. No test view of a split is looked
at. Values are over all divisions into folds; intervals (95 %) are bootstraps over patients and over CpGs of the first
division, as those of several would count a CpG more than once. Legend: C CpGs, S samples, R resamples.
"""

import argparse
import resource
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from methyl_lightning import networks
from methyl_lightning.data.datamodule import read_cpgs, read_expression, read_genes
from methyl_lightning.data.store import Store
from methyl_lightning.metrics.scores import mae, spearman, weighted_pearson

N_FOLDS, N_RESAMPLES, BLOCK_BP, CPGS_AT_ONCE = 5, 200, 4_000_000, 512


def fold_rows(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put whole groups into folds of about one size: the fold of each row."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(sizes))
    fold, filled = np.zeros(len(sizes), dtype=int), np.zeros(N_FOLDS)
    for i in order[np.argsort(-sizes[order], kind="stable")]:
        fold[i] = filled.argmin()
        filled[fold[i]] += sizes[i]
    return fold[group]


def cpg_groups(store: Store, by: str) -> np.ndarray:
    """Name what may not be torn apart: the chromosome, a block of 4 Mb, or nothing but the CpG itself."""
    chrom_C = store.cpgs["chrom"].to_numpy(str)
    if by == "chromosome":
        return chrom_C
    if by == "block":
        return np.char.add(np.char.add(chrom_C, ":"), (store.position_C // BLOCK_BP).astype(str))
    return np.arange(len(chrom_C))


def predictions(store: Store, name: str, by: str, seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray, float]]:
    """Fit and test a network on each fold: view, measured and predicted [C, S], seconds of the fit."""
    rng = np.random.default_rng(seed)
    cpg_fold_C = fold_rows(cpg_groups(store, by), rng)
    patient_fold_S = fold_rows(store.samples["patient"].to_numpy(str), rng)
    for fold in range(N_FOLDS):
        (seen_C, unseen_C), (train_S, test_S) = (
            (np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for folds in (cpg_fold_C, patient_fold_S)
        )
        network_class = getattr(networks, name)
        taken = {"n_genes": len(store.genes), "window": store.window}
        network = network_class(**{key: taken[key] for key in taken if key in network_class.__init__.__annotations__})
        beta_CS = torch.from_numpy(store.beta(seen_C, train_S))
        view = networks.TrainingView(
            read_cpgs(store, seen_C), read_expression(store, train_S), beta_CS, read_genes(store)
        )
        start = time.process_time()
        network.fit_statistics(networks.TrainingData(partial(tuple, view.cpgs[1:3]), partial(_whole, view)))
        seconds = time.process_time() - start
        network.eval()
        with torch.inference_mode():
            samples = network.encode_samples(read_expression(store, test_S))
            for part, cpg_C in (("unseen", unseen_C), ("seen", seen_C)):
                blocks = [cpg_C[first : first + CPGS_AT_ONCE] for first in range(0, len(cpg_C), CPGS_AT_ONCE)]
                rows = [network.combine(network.encode_cpgs(read_cpgs(store, block)), samples) for block in blocks]
                yield part, store.beta(cpg_C, test_S), torch.cat(rows).float().numpy(), seconds


def _whole(view: networks.TrainingView, most_cells: int) -> networks.TrainingView:
    return view


def centred(beta_CS: np.ndarray, known_CS: np.ndarray) -> np.ndarray:
    """Take each sample's mean over its measured CpGs out; what is not measured stays NaN."""
    known_CS = np.where(known_CS, beta_CS.astype(np.float64), np.nan)
    return known_CS - np.nanmean(known_CS, axis=0)


def score(parts: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator) -> dict[str, list[float]]:
    """MAS-PCC as it is and without shift with both intervals, MAE and Spearman, of all folds together."""
    correlations: dict[str, list[np.ndarray]] = {"MAS-PCC": [], "without shift": []}
    for measured_CS, predicted_CS in parts:
        n_samples = measured_CS.shape[1]
        weight_RS = rng.multinomial(n_samples, np.full(n_samples, 1 / n_samples), size=N_RESAMPLES)
        weight_RS = np.concatenate([np.ones((1, n_samples), dtype=int), weight_RS])
        known_CS = ~np.isnan(measured_CS)
        clipped_CS = predicted_CS.clip(0, 1)
        correlations["MAS-PCC"].append(weighted_pearson(measured_CS, clipped_CS, weight_RS))
        shifted = centred(measured_CS, known_CS), np.nan_to_num(centred(clipped_CS, known_CS))
        correlations["without shift"].append(weighted_pearson(*shifted, weight_RS))
    scores = {}
    for name, values in correlations.items():
        of_all_C, value_CR = np.concatenate([part[:, 0] for part in values]), np.concatenate(values[:N_FOLDS])
        if np.isnan(of_all_C).mean() > 0.5:
            scores[name] = [np.nan] * 5
            continue
        rows = rng.integers(len(value_CR), size=(N_RESAMPLES, len(value_CR)))
        over_cpgs, over_patients = np.nanmedian(value_CR[rows, 0], axis=1), np.nanmedian(value_CR[:, 1:], axis=0)
        bounds = [*np.quantile(over_patients, (0.025, 0.975)), *np.quantile(over_cpgs, (0.025, 0.975))]
        scores[name] = [float(np.nanmedian(of_all_C)), *bounds]
    for name, metric in (("MAE", mae), ("Spearman", spearman)):
        scores[name] = [float(np.mean([metric(measured, predicted.clip(0, 1)) for measured, predicted in parts]))]
    return scores


def shown(values: list[float]) -> str:
    """Write a value and its two intervals, over patients and over CpGs."""
    if np.isnan(values[0]):
        return "–"
    bounds = f" ({values[1]:.3f}–{values[2]:.3f}; {values[3]:.3f}–{values[4]:.3f})" if len(values) > 1 else ""
    return f"{values[0]:.3f}{bounds}"


def main() -> None:
    """Print one row a network and view."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--by", choices=("chromosome", "block", "random"), default="chromosome")
    parser.add_argument("--seeds", type=int, default=1)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(settings.store)
    print("| network | view | MAS-PCC (patients; CpGs) | without shift | MAE | Spearman | fit, s |")
    print("|---|---|---|---|---|---|---|")
    for name in settings.networks:
        parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"unseen": [], "seen": []}
        seconds = []
        for seed in range(settings.seeds):
            for part, measured_CS, predicted_CS, took in predictions(store, name, settings.by, seed):
                parts[part].append((measured_CS, predicted_CS))
                seconds.append(took)
        for part, of_part in parts.items():
            scores = score(of_part, np.random.default_rng(0))
            row = [shown(scores[key]) for key in ("MAS-PCC", "without shift", "MAE", "Spearman")]
            print(f"| {name} | {part} | {' | '.join(row)} | {np.mean(seconds):.1f} |", flush=True)
    print(f"\n{store.path.name}, by {settings.by}, {settings.seeds} divisions into {N_FOLDS} folds; ", end="")
    print(f"largest memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")


if __name__ == "__main__":
    main()
