"""Training and prediction on a GPU at the size of the published work, as a user runs them: blocks read from the store.

``python -m experiments.benchmarks.accelerator full.h5`` writes a store of random numbers, unless it is there, and
prints a row for each block and precision: pairs a second of training with Lightning and reading, of its steps alone on
a block that is on the GPU already, the time of one epoch, and the GPU's peak memory; then prediction, and how far it is
from the processor's. Without a GPU it measures the processor.
"""

import argparse
import logging
import time
from pathlib import Path
from statistics import mean, median

import lightning as L
import numpy as np
import torch

from experiments.benchmarks.full_store import write_random_store
from experiments.trainer import quiet_trainer
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.model.checkpoint import on_fastest_device
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.model.module import MethylationModule

BLOCKS = ((64, 256), (256, 256), (512, 512))  # CpGs and samples
PRECISIONS = {"float32": ("highest", "32-true"), "TF32": ("high", "32-true"), "bf16": ("highest", "bf16-mixed")}
WARM_UP = 5  # steps
PREDICTED_CPGS, COMPARED = 8192, (64, 32)


def wait() -> float:
    """Wait until the GPU has done all that it was asked for, and look at the clock."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(L.Callback):
    """Times the steps as they come, then the same step again and again on the block of the last."""

    def __init__(self, steps: int):
        self.steps, self.start, self.whole_s, self.step_s = steps, 0.0, 0.0, 0.0
        self.cells: list[int] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch, i) -> None:
        """Start behind the first steps, and stop at the last."""
        if trainer.global_step == WARM_UP:
            self.start = wait()
        elif trainer.global_step > WARM_UP:
            self.cells.append(batch.beta_CS.numel())
        if trainer.global_step < WARM_UP + self.steps:
            return
        self.whole_s = (wait() - self.start) / self.steps
        pl_module.log = lambda *args, **settings: None  # type: ignore[method-assign]
        optimizer, took = trainer.optimizers[0], []
        for _ in range(self.steps):
            start = wait()
            optimizer.zero_grad()
            with trainer.precision_plugin.train_step_context():
                loss = pl_module.training_step(batch, 0)
            loss.backward()
            optimizer.step()
            took.append(wait() - start)
        self.step_s = median(took)


def train(store: Path, block: tuple[int, int], precision: str, steps: int, workers: int) -> str:
    """Train for some steps; return a row of the table."""
    multiplication, kind = PRECISIONS[precision]
    torch.set_float32_matmul_precision(multiplication)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    L.seed_everything(0, verbose=False)
    data, clock = GridDataModule(str(store), block=block, num_workers=workers), Clock(steps)
    module = MethylationModule("LevyJurgenson", len(data.store.genes), data.store.window)
    quiet_trainer(WARM_UP + steps, precision=kind, callbacks=[clock]).fit(module, data)
    cpg_C, sample_S = data.split.view("train_cpg-train_sample")
    whole, alone = mean(clock.cells) / clock.whole_s, clock.cells[-1] / clock.step_s
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GB" if torch.cuda.is_available() else "–"
    size = f"{block[0]} × {block[1]}, {precision}" + f", {workers} readers" * (workers > 0)
    epoch_s = len(cpg_C) * len(sample_S) / whole
    return (
        f"| {size} | {whole:,.0f} | {alone:,.0f} | {1000 * clock.whole_s:.1f} ms | {epoch_s / 60:.1f} min | {memory} |"
    )


def predict(store: Path, n_cpgs: int) -> str:
    """Predict all samples on some CpGs; return rates and the distance from the processor's values as a line."""
    torch.set_float32_matmul_precision("highest")
    data = GridDataModule(str(store))
    torch.manual_seed(0)
    module = MethylationModule("LevyJurgenson", len(data.store.genes), data.store.window, expression_scaling="none")
    cpg_C, sample_S = np.arange(min(n_cpgs, len(data.store.cpgs))), np.arange(len(data.store.samples))
    few = cpg_C[: COMPARED[0]], sample_S[: COMPARED[1]]
    here_CS = predict_grid(module, data.store, *few)
    module = on_fastest_device(module)
    distance = np.abs(predict_grid(module, data.store, *few) - here_CS).max() / np.abs(here_CS).max()
    start = wait()
    predict_grid(module, data.store, cpg_C, sample_S)
    rate = len(cpg_C) * len(sample_S) / (wait() - start)
    size = f"{len(cpg_C):,} × {len(sample_S):,}"
    return f"prediction of {size}: {rate:,.0f} pairs/s; largest relative distance {distance:.1e}"


def main() -> None:
    """Write a store, measure, and print each row when it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--cpgs", type=int, default=485_512)
    parser.add_argument("--samples", type=int, default=1_350)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=[*PRECISIONS])
    parser.add_argument("--workers", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if not given.store.exists():
        write_random_store(given.store, given.cpgs, given.samples, given.genes)
    print("| block | pairs/s, with reading | pairs/s, steps alone | step | epoch | peak memory of the GPU |")
    print("|---|---|---|---|---|---|")
    for workers in given.workers:
        for block in BLOCKS:
            for precision in given.precisions:
                print(train(given.store, block, precision, given.steps, workers), flush=True)
    print(predict(given.store, PREDICTED_CPGS))


if __name__ == "__main__":
    main()
