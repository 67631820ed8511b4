"""Accuracy against time by kind of batch: ``python -m experiments.benchmarks.accuracy stores/simulated.h5 …``.

Every setting trains from the same weights for the same processor time on one thread. Processor time stands for time on
an idle core: on a shared machine the wall clock would measure the neighbours.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import lightning as L
import matplotlib.pyplot as plt
import pandas as pd
import torch

from experiments.trainer import quiet_trainer
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.metrics import scores as metrics
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.model.module import MethylationModule

FOLDER = Path(__file__).parent
SETTINGS: dict[str, dict[str, Any]] = {
    "pairs 512": {"sampling": "pairs", "batch_pairs": 512},
    "grid 64 × 64": {"block": 64},
    "grid 64 × 256": {"block": (64, 256)},
    "grid 128 × 128": {"block": 128},
    "grid 256 × 256": {"block": 256},
}


class ByTime(L.Callback):
    """Validates every few seconds of training and stops at the end of the budget."""

    def __init__(self, budget: float, interval: float):
        self.budget, self.interval = budget, interval
        self.spent, self.due = 0.0, interval
        self.rows: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Start the clock; what lies between batches (reading the next one) is counted in the datamodule's favour."""
        self.start = time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, module: MethylationModule, *args: Any) -> None:  # type: ignore[override]
        """Stop the clock and validate where it is time."""
        self.spent += time.process_time() - self.start
        if self.spent < self.due:
            return
        self.due += self.interval
        data: GridDataModule = trainer.datamodule  # type: ignore[attr-defined]
        measured_CS = data.store.beta(data.val_cpg_C, data.val_sample_S)
        predicted_CS = predict_grid(module, data.store, data.val_cpg_C, data.val_sample_S)
        module.train()
        scores = {
            "mae": metrics.mae(measured_CS, predicted_CS),
            "spearman": metrics.spearman(measured_CS, predicted_CS),
        }
        self.rows.append({"step": trainer.global_step, "seconds": self.spent, **scores})
        trainer.should_stop = self.spent >= self.budget


def run(store: str, settings: dict[str, Any], budget: float, points: int) -> pd.DataFrame:
    """Train once: step, seconds, mae, spearman."""
    data = GridDataModule(store, **settings)
    L.seed_everything(0, verbose=False)
    module = MethylationModule("LevyJurgenson", len(data.store.genes), data.store.window)
    clock = ByTime(budget, budget / points)
    quiet_trainer(10**6, callbacks=[clock]).fit(module, data)
    return pd.DataFrame(clock.rows)


def draw(runs: pd.DataFrame, path: Path) -> None:
    """Draw both scores against seconds, one line a setting, told apart in grey by their marks."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for (setting, rows), marker in zip(runs.groupby("setting", sort=False), "os^Dv", strict=False):
        for ax, score in zip(axes, ("mae", "spearman"), strict=True):
            ax.plot(rows["seconds"], rows[score], marker=marker, markersize=3, linewidth=1.2, label=setting)
    for ax, label in zip(axes, ("validation MAE (beta)", "validation Spearman, pooled"), strict=True):
        ax.set(xlabel="training, seconds of one core", ylabel=label)
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SETTINGS), frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run every setting on every store, a table and a figure a store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="+")
    parser.add_argument("--seconds", type=float, default=100, help="of one core, each run")
    parser.add_argument("--points", type=int, default=20, help="validations each run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for store in arguments.stores:
        cohort, runs = Path(store).stem, pd.DataFrame()
        for name, settings in SETTINGS.items():
            rows = run(store, settings, arguments.seconds, arguments.points)
            rows.insert(0, "setting", name)
            runs = pd.concat([runs, rows])
            runs.round(4).to_csv(FOLDER / f"accuracy_{cohort}.csv", index=False)
            draw(runs, FOLDER / f"accuracy_{cohort}.png")
            print(f"{cohort}, {name}: {rows.iloc[-1].to_dict()}", flush=True)


if __name__ == "__main__":
    main()
