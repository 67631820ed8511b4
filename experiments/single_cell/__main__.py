"""Cells with measured methylation: what their expression tells of it, in cross-validation over cells.

usage: python -m experiments.single_cell STORE [--within WORD] --output FOLDER

Five folds of cells (by donor) and of CpGs (whole chromosomes): fold f trains on the cells and CpGs outside it, and is
tested on the cells in it, on CpGs outside it (seen) and in it (unseen). All figures are of cells never trained on;
intervals (95 %) resample cells. Done for all cells, and again for those alone whose tissue_type is WORD.

Legend: C CpGs, S cells, R resamples.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from experiments.networks.cross_validate import cpg_groups, fold_rows, predictions
from experiments.single_cell.figure import draw_figure
from methyl_lightning.data.store import SAMPLE_COLUMNS, Store, write_store
from methyl_lightning.files import replacing
from methyl_lightning.metrics.bootstrap import draw, interval
from methyl_lightning.metrics.calls import weighted_auroc, weighted_mean_auroc_per_cpg, weighted_sample_mean_r

N_RESAMPLES, SEED = 500, 0
BLIND, ONE_NUMBER, BEST = "CpG mean (blind to cells)", "one number a cell", "methylation_factors"
NETWORKS = {
    BLIND: "CpgMean",
    ONE_NUMBER: "ExpressionOnly",
    "bilinear_ridge": "BilinearRidge",
    "own_label_ridge": "OwnLabelRidge",
    BEST: "MethylationFactors",
}
CEILING = "the cell's own mean of other CpGs, measured"
PERMUTED, PERMUTED_WITHIN = "cells permuted", "cells permuted within their tissue_type"
COLUMNS = {"auroc": "AUROC", "auroc_per_cpg": "AUROC, per CpG", "sample_mean_r": "r of cell means"}


class View(NamedTuple):
    """Held-out cells of all folds: the measured and predicted grid of each fold, and its cells."""

    folds: list[tuple[np.ndarray, np.ndarray]]
    cells: list[np.ndarray]

    def stacked(self) -> tuple[np.ndarray, np.ndarray]:
        """Set folds below each other, so that cells of one fold alone are compared at a CpG: [folds · C, S]."""
        n_cells = sum(map(len, self.cells))
        grids = []
        for part in (0, 1):
            rows = []
            for fold, cell_S in zip(self.folds, self.cells, strict=True):
                row_CS = np.full((len(fold[0]), n_cells), np.nan if part == 0 else 0, dtype=np.float32)
                row_CS[:, cell_S] = fold[part]
                rows.append(row_CS)
            grids.append(np.concatenate(rows))
        return grids[0], grids[1]

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of each cell, measured where something was read and predicted for all CpGs: [1, S]."""
        order_S = np.argsort(np.concatenate(self.cells))
        measured_S = np.concatenate([np.nanmean(measured_CS, axis=0) for measured_CS, _ in self.folds])
        predicted_S = np.concatenate([predicted_CS.mean(axis=0) for _, predicted_CS in self.folds])
        return measured_S[order_S][None], predicted_S[order_S][None]

    def scores(self, weight_RS: np.ndarray) -> dict[str, np.ndarray]:
        """Score each resample of cells: [R] a metric; a prediction that is blind to cells has no correlation."""
        grids = self.stacked()
        blind = all(np.ptp(predicted_CS, axis=1).max() < 1e-6 for _, predicted_CS in self.folds)
        nothing = np.full(len(weight_RS), np.nan)
        return {
            "auroc": weighted_auroc(*grids, weight_RS),
            "auroc_per_cpg": weighted_mean_auroc_per_cpg(*grids, weight_RS),
            "sample_mean_r": nothing if blind else weighted_sample_mean_r(*self.means(), weight_RS),
        }


def derived(store: Store, path: Path, cell_S: np.ndarray, expression_of_S: np.ndarray) -> Store:
    """Write a store of some cells, each with the expression of another or itself."""
    every_C = np.arange(len(store.cpgs))
    write_store(
        path,
        cpgs=store.cpgs,
        sequence_CL=store.sequence_CL,
        genes=store.genes,
        samples=store.samples.iloc[cell_S].reset_index(drop=True)[list(SAMPLE_COLUMNS)],
        distances=store.distances,
        expression_SG=np.asarray(store.expression_SG)[expression_of_S],
        beta_CS=store.beta(every_C, cell_S),
        units=store.attributes["units"],
        assembly=store.attributes["assembly"],
        provenance=store.attributes["provenance"],
        annotation_CP=store.annotation_CP,
    )
    return Store(path)


def cross_validate(store: Store, network: str) -> dict[str, View]:
    """Predict every cell by the fold that has not seen it, on seen and on unseen CpGs."""
    rng = np.random.default_rng(SEED)
    fold_rows(cpg_groups(store, "chromosome"), rng)  # as predictions() draws them
    fold_S = fold_rows(store.samples["patient"].to_numpy(str), rng)
    views = {part: View([], []) for part in ("seen", "unseen")}
    for part, measured_CS, predicted_CS, _ in predictions(store, network, "chromosome", SEED):
        view = views[part]
        view.cells.append(np.flatnonzero(fold_S == len(view.cells)))
        view.folds.append((measured_CS, predicted_CS.clip(0, 1)))
    return views


def ceiling(views: dict[str, View]) -> dict[str, View]:
    """Predict every CpG by what is measured of the cell's CpGs in the other view."""
    found = {}
    for part, other in (("seen", "unseen"), ("unseen", "seen")):
        pairs = zip(views[part].folds, views[other].folds, strict=True)
        folds = [
            (measured_CS, np.tile(np.nanmean(others_CS, axis=0), (len(measured_CS), 1)))
            for (measured_CS, _), (others_CS, _) in pairs
        ]
        found[part] = views[part]._replace(folds=folds)
    return found


def permuted(store: Store, groups: np.ndarray) -> np.ndarray:
    """Exchange cells at random within groups: [S]."""
    rng = np.random.default_rng(SEED)
    other_S = np.arange(len(groups))
    for name in np.unique(groups):
        own = np.flatnonzero(groups == name)
        other_S[own] = rng.permutation(own)
    return other_S


def compare(store: Store, cells: str, folder: Path) -> tuple[list[dict[str, object]], dict[str, View]]:
    """Score all models on one set of cells: a row a model and view, and the views of the best."""
    n_cells = len(store.samples)
    detected_S = (np.asarray(store.expression_SG) > 0).sum(axis=1)
    mean_S = np.nanmean(store.beta(np.arange(len(store.cpgs)), np.arange(n_cells)), axis=0)
    print(f"{cells}: measured mean and number of detected genes, r {np.corrcoef(detected_S, mean_S)[0, 1]:.2f}")
    unit_S = np.unique(store.samples["patient"], return_inverse=True)[1]
    weight_RS = draw(unit_S, N_RESAMPLES, np.random.default_rng(SEED))
    weight_RS = np.concatenate([np.ones_like(weight_RS[:1]), weight_RS])
    models = {label: cross_validate(store, name) for label, name in NETWORKS.items()}
    kinds = {PERMUTED: np.zeros(n_cells), PERMUTED_WITHIN: store.samples["tissue_type"].to_numpy(str)}
    if len(np.unique(kinds[PERMUTED_WITHIN])) == 1:
        del kinds[PERMUTED_WITHIN]
    for label, groups in kinds.items():
        exchanged = derived(store, folder / "permuted.h5", np.arange(n_cells), permuted(store, groups))
        models[f"{BEST}, {label}"] = cross_validate(exchanged, NETWORKS[BEST])
    models[CEILING] = ceiling(models[BLIND])
    rows: list[dict[str, object]] = []
    reference = {}
    for label, views in models.items():
        for part, view in views.items():
            scores = view.scores(weight_RS)
            if label == ONE_NUMBER:
                reference[part] = scores["auroc_per_cpg"]
            row: dict[str, object] = {"cells": f"{cells} ({n_cells})", "CpGs": part, "model": label}
            if part in reference:
                scores["more"] = scores["auroc_per_cpg"] - reference[part]
            for name, value_R in scores.items():
                row[name], row[f"{name}_low"], row[f"{name}_high"] = interval(float(value_R[0]), value_R[1:])
            rows.append(row)
        print(f"{cells}: {label}", flush=True)
    return rows, models[BEST]


def cell(row: pd.Series, name: str, form: str = ".3f") -> str:
    """Write a value and its interval."""
    if name not in row or np.isnan(row[name]):
        return "–"
    return f"{row[name]:{form}} ({row[f'{name}_low']:{form}} to {row[f'{name}_high']:{form}})"


def main() -> None:
    """Print the table, and write it and the figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("--within")
    parser.add_argument("--output", type=Path, required=True)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(settings.store)
    rows: list[dict[str, object]] = []
    with TemporaryDirectory() as folder:
        kind_S = store.samples["tissue_type"].to_numpy(str)
        found, best = compare(store, "all", Path(folder))
        rows += found
        if settings.within is not None:
            own_S = np.flatnonzero(kind_S == settings.within)
            within = derived(store, Path(folder) / "within.h5", own_S, own_S)
            rows += compare(within, settings.within, Path(folder))[0]
    table = pd.DataFrame(rows)
    with replacing(settings.output / "scores.csv", "table") as path:
        table.to_csv(path, index=False, float_format="%.4g")
    with replacing(settings.output / "cells.png", "figure") as path:
        draw_figure(table, best["unseen"].means(), kind_S).savefig(path, dpi=110, format="png")
    header = ["cells", "CpGs", "model", *COLUMNS.values(), "AUROC per CpG above one number a cell"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for _, row in table.iterrows():
        values = [*(cell(row, name) for name in COLUMNS), cell(row, "more", "+.3f")]
        print(f"| {' | '.join([row['cells'], row['CpGs'], row['model'], *values])} |")


if __name__ == "__main__":
    main()
