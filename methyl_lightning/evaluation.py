"""A trained module on the test views: predictions, metrics with intervals, figures, one table.

Legend: C CpGs, S samples.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from methyl_lightning import figures, metrics
from methyl_lightning.checkpoint import load_checkpoint
from methyl_lightning.comparisons import cells_key, save_bootstrap
from methyl_lightning.distances import nearest_gene
from methyl_lightning.intervals import bootstrap_grid, interval
from methyl_lightning.module import MethylationModule
from methyl_lightning.predictions import predict_grid, to_anndata
from methyl_lightning.sources.simulated import read_ceiling
from methyl_lightning.splits import TEST_VIEWS, Split, beta_variance, load_split
from methyl_lightning.store import InputError, Store, replacing
from methyl_lightning.strata import Stratum, strata, strata_table

HEADLINE = "test_cpg-test_sample"
COLUMNS = {
    "mae": "MAE",
    "spearman": "Spearman",
    "spearman_batch50": "Spearman, by 50",
    "pearson": "Pearson",
    "mas_pcc": "MAS-PCC",
    "mac_pcc": "MAC-PCC",
}
PUBLISHED = (
    ("paper (TensorFlow)", "TCGA BRCA + LUAD, private build", 0.14, 0.80),
    ("TensorFlow on rebuilt data", "TCGA BRCA + LUAD, rebuilt", 0.173, 0.740),
    ("PyTorch port on rebuilt data", "TCGA BRCA + LUAD, rebuilt", 0.167, 0.742),
)


def load_run(
    checkpoint: Path, store: str | None = None, split_file: str | None = None
) -> tuple[MethylationModule, Store, Split, Any]:
    """Load a checkpoint, and beside it the run's store, split and configuration.

    Raises
    ------
    InputError
        If the checkpoint, its configuration or its split is missing or broken.
    """
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: no such checkpoint; training writes best.ckpt into its run folder")
    config = checkpoint.parent / "config.yaml"
    if not config.is_file():
        raise InputError(f"{config}: no such file; a checkpoint is tested in its run folder, beside config.yaml")
    run = OmegaConf.load(config)
    opened = Store(store or run.data.store)
    split = load_split(Path(split_file or checkpoint.parent / "split.json"), opened)
    return load_checkpoint(checkpoint), opened, split, run


def evaluate_model(
    module: MethylationModule, store: Store, split: Split, folder: Path, seed: int, checkpoint: str
) -> None:
    """Predict the three test views and write predictions, metrics (see below) and figures into the run folder.

    ``metrics.json`` has every metric with its intervals over patients and over CpGs, ``strata.csv`` those of parts of
    the views, ``bootstrap.npz`` what comparisons are made of; predictions carry the correlation of each CpG and sample.
    With several processes all predict and the first one writes.
    """
    predicted = {view: predict_grid(module, store, *split.view(view)) for view in TEST_VIEWS}
    if module.global_rank == 0:
        _write_metrics(folder, store, split, predicted.__getitem__, seed)
        for view, predicted_CS in predicted.items():
            measured_CS = store.beta(*split.view(view))
            data = to_anndata(store, *split.view(view), predicted_CS, measured_CS, view=view, checkpoint=checkpoint)
            data.var["pearson"] = metrics.pearson_per_cpg(measured_CS, predicted_CS)
            data.obs["pearson"] = metrics.pearson_per_sample(measured_CS, predicted_CS)
            with replacing(folder / f"predictions_{view}.h5ad", "predictions") as path:
                data.write_h5ad(path)
        title = f"{module.hparams['network']}, {', '.join(module.provenance['cohort'])}: unseen CpGs × unseen patients"
        figure = figures.predicted_against_measured(store.beta(*split.view(HEADLINE)), predicted[HEADLINE], title)
        save_figure(figure, folder / "figures" / f"predicted_against_measured_{HEADLINE}.png")


def read_test(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Read the metrics of a run folder, and measured and predicted beta of each of its test views."""
    views = {view: anndata.read_h5ad(folder / f"predictions_{view}.h5ad") for view in TEST_VIEWS}
    grids = {view: (np.asarray(data.layers["measured"]), np.asarray(data.X)) for view, data in views.items()}
    return json.loads((folder / "metrics.json").read_text()), grids


def evaluate_ceiling(store: Store, split: Split, folder: Path, seed: int) -> bool:
    """Write the best attainable metrics of a simulated cohort; False where the truth is not known."""
    if read_ceiling(store.path, *split.view(HEADLINE), cpg_seen=False) is None:
        return False

    def ceiling(view: str) -> np.ndarray:
        truth_CS = read_ceiling(store.path, *split.view(view), cpg_seen=view.startswith("train_cpg"))
        assert truth_CS is not None
        return truth_CS

    _write_metrics(folder, store, split, ceiling, seed)
    return True


def _write_metrics(folder: Path, store: Store, split: Split, predict: Callable[[str], np.ndarray], seed: int) -> None:
    results: dict[str, dict[str, Any]] = {}
    bootstraps, keys, tables = {}, {}, []
    for view in TEST_VIEWS:
        cpg_C, sample_S = split.view(view)
        measured_CS, predicted_CS = store.beta(cpg_C, sample_S), predict(view)
        patient_S = store.samples["patient"].to_numpy(str)[sample_S]
        results[view] = {
            "n_cpgs": len(cpg_C),
            "n_samples": len(sample_S),
            "n_pairs": int(np.isfinite(measured_CS).sum()),
        }
        bootstraps[view] = bootstrap_grid(measured_CS, predicted_CS, patient_S, seed)
        keys[view] = cells_key(measured_CS, patient_S, seed)
        for name, found in bootstraps[view].items():
            results[view][name] = _finite(found.value)
            for key, resampled_R in ((f"{name}_ci95", found.patients_R), (f"{name}_ci95_cpgs", found.cpgs_R)):
                results[view][key] = [_finite(bound) for bound in interval(found.value, resampled_R)[1:]]
        table = strata_table(measured_CS, predicted_CS, patient_S, view_strata(store, split, view), seed)
        tables.append(table.assign(view=view)[["view", *table.columns]])
    save_bootstrap(folder, bootstraps, keys)
    with replacing(folder / "strata.csv", "strata") as path:
        pd.concat(tables).to_csv(path, index=False)
    with replacing(folder / "metrics.json", "metrics") as path:
        path.write_text(json.dumps(results, indent=1, allow_nan=False))


def view_strata(store: Store, split: Split, view: str) -> list[Stratum]:
    """Divide a view by distance to the nearest gene, island, variance over the training samples, and cohort.

    For CpGs that are not trained on, too, the variance is that of their beta in training samples, which no model saw.
    """
    cpg_C, sample_S = split.view(view)
    gene_C, bp_C = nearest_gene(store.distances.rows(cpg_C))
    return strata(
        np.where(gene_C < 0, np.nan, bp_C),
        store.cpgs["island"].to_numpy(str)[cpg_C],
        beta_variance(store, cpg_C, split.sample["train"]),
        store.samples["cohort"].to_numpy(str)[sample_S],
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, or nothing."""
    with replacing(path, "figure") as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def save_training_curves(folder: Path) -> None:
    """Draw the run's CSV log, where there is one, into its figures."""
    logs = sorted(folder.glob("log/*/metrics.csv"))  # a run that was continued has several
    if logs:
        log = pd.concat([pd.read_csv(path) for path in logs])
        save_figure(figures.training_curves(log), folder / "figures" / "training_curves.png")


def results_table(folder: Path, label: str, cohort: str) -> list[list[str]]:
    """Gather this run, the references trained beside it and the published figures into rows of text.

    Parameters
    ----------
    folder
        Run folder with ``metrics.json`` and, perhaps, ``references/*/metrics.json``.
    label
        What to call the run's model.
    cohort
        The cohort that it was tested on.
    """
    references = sorted(folder.glob("references/*"), key=lambda path: (path.name == "ceiling", path.name))
    runs = {label: folder} | {path.name: path for path in references}
    metrics_of = {name: json.loads((path / "metrics.json").read_text()) for name, path in runs.items()}
    rows = []
    for view in reversed(TEST_VIEWS):
        for name, result in metrics_of.items():
            cells = [_cell(result[view][key], result[view][f"{key}_ci95"]) for key in COLUMNS]
            rows.append([view, name, cohort, *cells])
    for name, where, mae, spearman in PUBLISHED:
        rows.append(["published", name, where, f"{mae:g}", f"{spearman:g}", *["–"] * (len(COLUMNS) - 2)])
    return rows


def _cell(value: float | None, interval: list[float | None]) -> str:
    if value is None:
        return "–"
    low, high = interval
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f}–{high:.3f})"


TABLE_WIDTH = 212
HEADER = ("view", "model", "cohort", *COLUMNS.values())


def print_table(rows: list[list[str]], folder: Path) -> None:
    """Print the table and write it as ``table.md``; a terminal too narrow for the intervals shows values only."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEADER, ["---"] * len(HEADER), *rows)]
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    narrow = console.width < TABLE_WIDTH
    intervals = f"intervals in {folder / 'table.md'}" if narrow else "95 % interval over patients"
    title = f"Test views: value ({intervals}); Spearman pooled, and averaged over batches of 50 cells; Pearson pooled"
    table = Table(title=title, title_justify="left", padding=(0, 0 if narrow else 1))
    for i, name in enumerate(HEADER):
        table.add_column(name, no_wrap=i != HEADER.index("cohort"))
    for previous, row in zip([None, *rows], rows, strict=False):
        if previous is not None and previous[0] != row[0]:
            table.add_section()
        first = HEADER.index("MAE")
        table.add_row(*row[:first], *(cell.partition(" (")[0] if narrow else cell for cell in row[first:]))
    console.print(table)
