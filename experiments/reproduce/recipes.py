"""Compare recipes of training the paper's network on validation views: what each does to the score, and to chance.

usage: python -m experiments.reproduce.recipes STORE TABLE [--cpg-split blocks] [--splits 0 1] [--seeds 0 1 2]
       python -m experiments.reproduce.recipes --print TABLE …

A run watches its validation view every so many steps, with the weights of the step and with their running mean. The
step is chosen by Spearman on one half of the validation CpGs and scored on the other, then the other way round; the
score is the mean of both. At the same steps training CpGs × validation patients are scored. Test views are never read.

Legend: C CpGs, S samples.
"""

import argparse
import itertools
import logging
import warnings
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import pandas as pd
import torch

from experiments.trainer import quiet_trainer
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.data.store import Store
from methyl_lightning.metrics.scores import mae, mas_pcc, spearman
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.train.averaging import RunAveraging

FRACTIONS, DECAY, WINDOW = (0.6, 0.3, 0.1), 0.98, 3  # more validation CpGs than usual, as they are halved
METRICS = {"spearman": spearman, "mae": mae, "mas_pcc": mas_pcc}
SEEN, N_SEEN = "seen_spearman", 300  # training CpGs that are scored, too
RUN, RECIPE = ["cohort", "split", "seed"], ["scaling", "schedule", "weights", "window"]


class Watch(RunAveraging):
    """Scores both halves of the validation view every so many steps, with the step's weights and with their mean."""

    def __init__(self, datamodule: GridDataModule, every: int):
        super().__init__(DECAY)
        self.store, self.every = datamodule.store, every
        cpg_C, self.sample_S = (parts["val"] for parts in (datamodule.split.cpg, datamodule.split.sample))
        rng = np.random.default_rng([datamodule.split_seed, 4])
        self.n_val = len(cpg_C)
        self.cpg_C = np.concatenate([rng.permutation(cpg_C), rng.permutation(datamodule.split.cpg["train"])[:N_SEEN]])
        self.measured_CS = self.store.beta(self.cpg_C, self.sample_S)
        self.rows: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Score where it is time."""
        super().on_train_batch_end(trainer, pl_module, *args)
        if trainer.global_step % self.every == 0:
            self._score(pl_module, trainer.global_step, "step")
            self._swap_models(pl_module)
            self._score(pl_module, trainer.global_step, "mean")
            self._swap_models(pl_module)
            pl_module.train()

    def _score(self, module: L.LightningModule, step: int, weights: str) -> None:
        predicted_CS = predict_grid(cast(MethylationModule, module), self.store, self.cpg_C, self.sample_S).clip(0, 1)
        middle, seen = self.n_val // 2, slice(self.n_val, None)
        of_seen = spearman(self.measured_CS[seen], predicted_CS[seen])
        for half, rows in enumerate((slice(middle), slice(middle, self.n_val))):
            scores = {name: metric(self.measured_CS[rows], predicted_CS[rows]) for name, metric in METRICS.items()}
            self.rows.append({"weights": weights, "step": step, "half": half, **scores, SEEN: of_seen})


def run(
    store: Path, cpg_split: str, split_seed: int, seed: int, scaling: str, schedule: str, steps: int, every: int
) -> pd.DataFrame:
    """Train once; return a row for every time, half and kind of weights."""
    L.seed_everything(seed, verbose=False)
    datamodule = GridDataModule(str(store), fractions=FRACTIONS, cpg_split=cpg_split, split_seed=split_seed, seed=seed)
    sizes = {"n_genes": len(datamodule.store.genes), "window": datamodule.store.window}
    module = MethylationModule("LevyJurgenson", **sizes, expression_scaling=scaling, schedule=schedule)
    watch = Watch(datamodule, every)
    quiet_trainer(steps, callbacks=[watch]).fit(module, datamodule)
    cohort = Store(store).path.stem + (f", {cpg_split}" if cpg_split != "random" else "")
    told = {"cohort": cohort, "split": split_seed, "seed": seed, "scaling": scaling, "schedule": schedule}
    return pd.DataFrame(watch.rows).assign(**told)


def choose(table: pd.DataFrame) -> pd.DataFrame:
    """Choose the step of each run on one half, and score it on the other: a row a run and recipe, mean of both ways."""
    rows = []
    for key, of_run in table.groupby([*RUN, *RECIPE[:3]], sort=False):
        halves = [half.set_index("step").sort_index() for _, half in of_run.groupby("half")]
        for window in (1, WINDOW):
            scores = []
            for chosen_on, scored_on in (halves, halves[::-1]):
                # a half on which the prediction does not differ has no Spearman yet
                smooth = chosen_on["spearman"].fillna(-1).rolling(window, min_periods=1).mean()
                scores.append(scored_on.loc[smooth.idxmax(), [*METRICS, SEEN]])
            rows.append(dict(zip([*RUN, *RECIPE], (*key, window), strict=True)) | dict(sum(scores) / 2))
    return pd.DataFrame(rows)


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Of each recipe: mean over runs, sd over the seeds of a split, and gain over the paper's in the same runs."""
    plain = runs[(runs[RECIPE] == ["minmax", "constant", "step", 1]).all(axis=1)].set_index(RUN)
    rows = []
    for key, of_recipe in runs.groupby(["cohort", *RECIPE], sort=False):
        of_recipe = of_recipe.set_index(RUN)
        row: dict[str, Any] = dict(zip(["cohort", *RECIPE], key, strict=True))
        for name in (*METRICS, SEEN):
            sd = np.sqrt(of_recipe.groupby(level=["cohort", "split"])[name].var().mean())
            gain = of_recipe[name] - plain.loc[of_recipe.index, name]
            row |= {name: of_recipe[name].mean(), f"{name}_sd": sd, f"{name}_gain": gain.mean()}
            row |= {f"{name}_gain_se": gain.std() / len(gain) ** 0.5}
        rows.append(row)
    return pd.DataFrame(rows)


def print_summary(table: pd.DataFrame) -> None:
    """Print the table: value ± sd over seeds, and gain ± its standard error."""
    titles = "Spearman ± sd | gain | MAE ± sd | MAS-PCC ± sd | Spearman of seen CpGs ± sd"
    print(f"| cohort | expression | rate | weights | score | {titles} |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in summary(choose(table)).to_dict("records"):
        values = [f"{row[name]:.3f} ± {row[f'{name}_sd']:.3f}" for name in (*METRICS, SEEN)]
        gain = f"{row['spearman_gain']:+.3f} ± {row['spearman_gain_se']:.3f}"
        score = "one" if row["window"] == 1 else f"mean of {row['window']}"
        recipe = [row["cohort"], row["scaling"], row["schedule"], row["weights"], score]
        print(f"| {' | '.join([*recipe, values[0], gain, *values[1:]])} |")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--print", action="store_true")
    parser.add_argument("--cpg-split", default="random")
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--schedules", nargs="+", default=["constant", "cosine"])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("paths", type=Path, nargs="+")
    settings = parser.parse_args()
    if settings.print:
        return print_summary(pd.concat([pd.read_csv(path) for path in settings.paths]))
    store, path = settings.paths
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    tables = [pd.read_csv(path)] if path.exists() else []
    recipes = itertools.product(("minmax", "zscore"), settings.schedules)
    for split_seed, seed, (scaling, schedule) in itertools.product(settings.splits, settings.seeds, recipes):
        how = (scaling, schedule, settings.steps, settings.every)
        tables.append(run(store, settings.cpg_split, split_seed, seed, *how))
        pd.concat(tables).to_csv(path, index=False, float_format="%.4f")
    return print_summary(pd.concat(tables))


if __name__ == "__main__":
    main()
