"""Score networks against the number of training CpGs: one row of a table a run, and the figure.

usage: python -m experiments.networks.curve STORE TABLE MODEL … [--cpgs 1000 5000 20000] [--seeds 0] [--part test]
       python -m experiments.networks.curve --draw FIGURE TABLE …

MODEL is a file of conf/model, with settings or without: ``levy_jurgenson:steps=200,learning_rate=1e-3``. A seed has a
split of its own: blocks of 200 kb, their neighbours left out. Training CpGs are drawn from the training blocks, the
fewer among the more; all are tested on the same unseen CpGs × unseen patients. What is trained takes so many steps and
ends with its last weights, so no part is looked at in training.

Legend: C CpGs.
"""

import argparse
import json
import logging
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import yaml

from experiments.trainer import quiet_trainer
from methyl_lightning.command.run import conf_folder
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.data.splits import Split, make_split, save_split
from methyl_lightning.data.store import Store
from methyl_lightning.metrics.scores import mae, mas_pcc, mas_pcc_centred, spearman
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.prepare.ceiling import read_ceiling

FRACTIONS, BLOCK_BP = (0.8, 0.1, 0.1), 200_000
TRAINING = {"steps": 500, "block_cpgs": 64, "block_samples": 256}
DRAWN = {
    "mas_pcc": "MAS-PCC",
    "mas_pcc_centred": "MAS-PCC without shift",
    "spearman": "Spearman",
    "mae": "MAE",
    "fit_s": "seconds of the fit",
}
METRICS = {"mas_pcc": mas_pcc, "mas_pcc_centred": mas_pcc_centred, "spearman": spearman, "mae": mae}


def read_model(text: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a model's file and the settings given with it: arguments of the module, and of the training."""
    name, _, given = text.partition(":")
    settings = yaml.safe_load((conf_folder() / "model" / f"{name}.yaml").read_text()) | TRAINING
    settings |= {key: yaml.safe_load(value) for key, value in (pair.split("=") for pair in given.split(",") if pair)}
    del settings["_target_"]
    settings = {key: seed if value == "${seed}" else value for key, value in settings.items()}
    settings = {key: float(value) if key == "learning_rate" else value for key, value in settings.items()}
    return {key: settings[key] for key in settings if key not in TRAINING}, {key: settings[key] for key in TRAINING}


def run(store: Store, split: Split, text: str, seed: int, part: str) -> dict[str, Any]:
    """Fit one model and score it on the unseen CpGs × unseen patients of a part."""
    arguments, training = read_model(text, seed)
    L.seed_everything(seed, verbose=False)
    with TemporaryDirectory() as folder:
        save_split(split, store, Path(folder, "split.json"))
        block = (training["block_cpgs"], training["block_samples"])
        datamodule = GridDataModule(
            str(store.path), split_file=str(Path(folder, "split.json")), block=block, seed=seed, split_seed=seed
        )
    module = MethylationModule(n_genes=len(store.genes), window=store.window, **arguments)
    start, steps = time.process_time(), 0
    if module.network.closed_form:
        module.fit_statistics(datamodule)
    else:
        steps = training["steps"]
        quiet_trainer(steps).fit(module, datamodule)
    fitted = time.process_time()
    cpg_C, sample_S = split.cpg[part], split.sample[part]
    predicted_CS = predict_grid(module, store, cpg_C, sample_S).clip(0, 1)
    cost = {"steps": steps, "fit_s": fitted - start, "predict_s": time.process_time() - fitted}
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return score(store.beta(cpg_C, sample_S), predicted_CS) | cost | {"parameters": parameters}


def score(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> dict[str, float]:
    """Score a grid by every metric."""
    return {name: metric(measured_CS, predicted_CS) for name, metric in METRICS.items()}


def write_table(settings: argparse.Namespace) -> None:
    """Add a row a run to the table, and print it."""
    store = Store(settings.store)
    for seed in settings.seeds:
        split = make_split(store, FRACTIONS, seed, cpg_split="blocks", block_bp=BLOCK_BP)
        order_C = np.random.default_rng([seed, 5]).permutation(split.cpg["train"])
        for n_cpgs in settings.cpgs:
            train_C = np.sort(order_C[:n_cpgs])
            of_size = split._replace(cpg=split.cpg | {"train": train_C})
            for text in settings.models:
                row = {"cohort": store.path.stem, "model": text, "seed": seed, "cpgs": len(train_C)}
                if text == "ceiling":
                    cpg_C, sample_S = split.cpg[settings.part], split.sample[settings.part]
                    best_CS = read_ceiling(store.path, cpg_C, sample_S, train_C)
                    assert best_CS is not None, "only simulated cohorts have a ceiling"
                    row |= score(store.beta(cpg_C, sample_S), best_CS)
                else:
                    row |= run(store, of_size, text, seed, settings.part)
                print(json.dumps(row), flush=True)
                before = [pd.read_csv(settings.table)] if settings.table.exists() else []
                pd.concat([*before, pd.DataFrame([row])]).to_csv(settings.table, index=False, float_format="%.4f")


def draw(tables: list[Path], path: Path) -> None:
    """Draw scores and seconds against the number of training CpGs, mean and range over seeds, one row a cohort."""
    table = pd.concat([pd.read_csv(each) for each in tables])
    name, steps = table["model"].str.partition(":")[0], table["steps"].fillna(0).astype(int)
    table["model"] = name.where(steps == 0, name + steps.map(", {:,} steps".format))
    sizes = table.groupby("cohort", sort=False)["cpgs"].nunique()
    cohorts = sizes.index[sizes > 1]  # one number of CpGs is no curve
    figure, axes = plt.subplots(
        len(cohorts), len(DRAWN), figsize=(18, 3.4 * len(cohorts)), squeeze=False, layout="constrained", sharex=True
    )
    for row, cohort in zip(axes, cohorts, strict=True):
        for axis, (column, title) in zip(row, DRAWN.items(), strict=True):
            for model, of_model in table[table["cohort"] == cohort].groupby("model", sort=False):
                seeds = of_model.groupby("cpgs")[column]
                mean, ls = seeds.mean(), ":" if model == "ceiling" else "-"
                bars = [mean - seeds.min(), seeds.max() - mean]
                axis.errorbar(mean.index, mean, bars, marker="o", markersize=4, label=model, ls=ls)
            axis.set(xscale="log", xlabel="training CpGs", ylabel=title, title=cohort if len(cohorts) > 1 else "")
        row[-1].set_yscale("log")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draw", type=Path)
    parser.add_argument("--cpgs", type=int, nargs="+", default=[1_000, 5_000, 20_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--part", choices=("val", "test"), default="test")
    parser.add_argument("paths", type=Path, nargs="+")
    settings, models = parser.parse_known_args()
    if settings.draw:
        return draw(settings.paths, settings.draw)
    settings.store, settings.table, *more = settings.paths
    settings.models = [*map(str, more), *models]
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    write_table(settings)
    return None


if __name__ == "__main__":
    main()
