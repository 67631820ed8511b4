"""A trained module on the test views: predictions, metrics with intervals, figures; and on diluted expression.

Legend: C CpGs, S samples.
"""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from methyl_lightning.command.run_folder import CONFIG, read_config
from methyl_lightning.command.settings import check_arguments
from methyl_lightning.data.distances import nearest_gene
from methyl_lightning.data.sealed import sealed_hdf5
from methyl_lightning.data.splits import HEADLINE, TEST_VIEWS, Split, beta_variance, load_split
from methyl_lightning.data.store import Store
from methyl_lightning.dilution.run import check_levels, dilution_test, summarise
from methyl_lightning.dilution.table import write_results
from methyl_lightning.evaluate import figures
from methyl_lightning.evaluate.comparisons import cells_key, save_bootstrap
from methyl_lightning.evaluate.strata import Stratum, strata, strata_table
from methyl_lightning.evaluate.table import DATA
from methyl_lightning.files import InputError, replacing
from methyl_lightning.metrics import scores as metrics
from methyl_lightning.metrics.bootstrap import bootstrap_grid, interval
from methyl_lightning.metrics.calls import bootstrap_calls
from methyl_lightning.metrics.table import write_csv
from methyl_lightning.model.checkpoint import load_checkpoint, on_fastest_device
from methyl_lightning.model.grid import describe_h5ad, predict_grid, to_anndata
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.prepare.ceiling import read_ceiling

Grids = dict[str, tuple[np.ndarray, np.ndarray]]  # view → measured and predicted beta [C, S]


class Tested(NamedTuple):
    """What a test has measured: the content of ``metrics.json``, and the views that it was taken from."""

    metrics: dict[str, Any]
    grids: Grids


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
    config = checkpoint.parent / CONFIG
    if not config.is_file():
        raise InputError(f"{config}: no such file; a checkpoint is tested in its run folder, beside config.yaml")
    run = read_config(config, ("data.store", "data.name", "model.network"))
    opened = Store(store or run.data.store)
    split = load_split(Path(split_file or checkpoint.parent / "split.json"), opened)
    return load_checkpoint(checkpoint), opened, split, run


def evaluate_model(
    module: MethylationModule, store: Store, split: Split, folder: Path, seed: int, checkpoint: str
) -> Tested | None:
    """Predict the three test views and write predictions, metrics (see below) and figures into the run folder.

    ``metrics.json`` has every metric with its intervals over patients and over CpGs, ``strata.csv`` those of parts of
    the views, ``bootstrap.npz`` what comparisons are made of; predictions carry the correlation of each CpG and sample.
    With several processes all predict; the first one writes and returns what it measured, the others None.
    """
    predicted = {view: predict_grid(module, store, *split.view(view)) for view in TEST_VIEWS}
    if module.global_rank > 0:
        return None
    grids = {view: (store.beta(*split.view(view)), predicted_CS) for view, predicted_CS in predicted.items()}
    results = _write_metrics(folder, store, split, grids, seed)
    for view, (measured_CS, predicted_CS) in grids.items():
        data = to_anndata(store, *split.view(view), predicted_CS, measured_CS, view=view, checkpoint=checkpoint)
        data.var["pearson"] = metrics.pearson_per_cpg(measured_CS, predicted_CS)
        data.obs["pearson"] = metrics.pearson_per_sample(measured_CS, predicted_CS)
        describe = partial(describe_h5ad, matrices=("X", "layers/measured"), obs=data.obs, var=data.var, uns=data.uns)
        with replacing(folder / f"predictions_{view}.h5ad", "predictions") as path, sealed_hdf5(path, describe) as file:
            file["X"][...], file["layers/measured"][...] = data.X, data.layers["measured"]
    title = f"{module.hparams['network']}, {', '.join(module.provenance['cohort'])}: unseen CpGs × unseen patients"
    figure = figures.predicted_against_measured(*grids[HEADLINE], title)
    save_figure(figure, folder / "figures" / f"predicted_against_measured_{HEADLINE}.png")
    return Tested(results, grids)


def evaluate_ceiling(store: Store, split: Split, folder: Path, seed: int) -> None:
    """Write the best attainable metrics of a simulated cohort; nothing where the truth is not known."""
    grids = {}
    for view in TEST_VIEWS:
        truth_CS = read_ceiling(store.path, *split.view(view), split.cpg["train"])
        if truth_CS is None:
            return
        grids[view] = store.beta(*split.view(view)), truth_CS
    _write_metrics(folder, store, split, grids, seed)


def evaluate_diluted(
    checkpoint: Path,
    folder: Path,
    seed: int,
    settings: DictConfig,
    store: str | None = None,
    split_file: str | None = None,
) -> pd.DataFrame:
    """Test a checkpoint on diluted expression as ``settings`` say, write everything into a folder, return the summary.

    Parameters are those of :func:`load_run` and :func:`methyl_lightning.dilution.run.dilution_test`.
    """
    own = dilution_settings(settings)
    module, opened, split, run = load_run(checkpoint, store, split_file)
    result = dilution_test(on_fastest_device(module), opened, split, seed=seed, **own)
    result.facts.update(cohort=run.data.name, checkpoint=str(checkpoint))
    write_results(result, folder)
    return summarise(result.repeats)


def dilution_settings(settings: DictConfig) -> dict[str, Any]:
    """Return the arguments of a dilution test, and refuse what it could not be made with.

    Raises
    ------
    InputError
        If a setting is of another type or out of its range.
    """
    own: dict[str, Any] = OmegaConf.to_container(settings, resolve=True)  # type: ignore[assignment]
    own.pop("train_retention", None)
    check_arguments(own, dilution_test, "dilution")
    check_levels(own["retention"], own["repeats"], own["method"], own["match"])
    return own


def _write_metrics(folder: Path, store: Store, split: Split, grids: Grids, seed: int) -> dict[str, Any]:
    """Write metrics, strata and bootstraps of measured and predicted views; return the content of ``metrics.json``."""
    results: dict[str, dict[str, Any]] = {}
    bootstraps, keys, tables = {}, {}, []
    for view, (measured_CS, predicted_CS) in grids.items():
        cpg_C, sample_S = split.view(view)
        patient_S = store.samples["patient"].to_numpy(str)[sample_S]
        results[view] = {
            "n_cpgs": len(cpg_C),
            "n_samples": len(sample_S),
            "n_pairs": int(np.isfinite(measured_CS).sum()),
        }
        bootstraps[view] = bootstrap_grid(measured_CS, predicted_CS, patient_S, seed)
        if store.has_reads:
            bootstraps[view] |= bootstrap_calls(measured_CS, predicted_CS, patient_S, seed)
        keys[view] = cells_key(measured_CS, patient_S, seed)
        for name, metric in bootstraps[view].items():
            results[view][name] = _finite(metric.value)
            for key, resampled_R in ((f"{name}_ci95", metric.patients_R), (f"{name}_ci95_cpgs", metric.cpgs_R)):
                results[view][key] = [_finite(bound) for bound in interval(metric.value, resampled_R)[1:]]
        table = strata_table(measured_CS, predicted_CS, patient_S, view_strata(store, split, view), seed)
        tables.append(table.assign(view=view)[["view", *table.columns]])
    save_bootstrap(folder, bootstraps, keys)
    write_csv(pd.concat(tables), folder / "strata.csv", "strata")
    with replacing(folder / "metrics.json", "metrics") as path:
        path.write_text(json.dumps(results, indent=1, allow_nan=False))
    return results


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
        save_figure(figures.training_curves({"validation": log}), folder / "figures" / "training_curves.png")


def save_data(store: Store, folder: Path) -> None:
    """Write what a run was made on into its folder: sizes, assembly, units and provenance of the store."""
    described = {
        "n_cpgs": len(store.cpgs),
        "n_samples": len(store.samples),
        "n_patients": int(store.samples["patient"].nunique()),
        "n_genes": len(store.genes),
        "cohorts": store.samples["cohort"].value_counts().to_dict(),
        "window": store.window,
        "assembly": store.attributes["assembly"],
        "units": store.attributes["units"],
        "provenance": store.attributes["provenance"],
    }
    with replacing(folder / DATA) as path:
        path.write_text(json.dumps(described, indent=1))
