"""``data.block=auto``: a probe of speed and memory before training chooses the size of a block.

Legend: C CpGs, S samples.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor

from methyl_lightning.data.datamodule import Block, GridBatch, GridDataModule, GridDataset
from methyl_lightning.model.memory import free_bytes
from methyl_lightning.model.module import MethylationModule

Size = tuple[int, int]
Precision = Callable[[], AbstractContextManager]
# in ascending order; fewer samples cost accuracy on a real cohort (experiments/benchmarks/README.md)
CANDIDATES: tuple[Size, ...] = ((64, 256), (128, 256), (256, 256))
SHARE = 0.75  # of the best pairs a second: what a larger block gains beyond is not worth its fewer steps
REPEATS, ENOUGH_SECONDS, FIRST_CALL = 3, 0.5, (8, 8)
IDLE_MACHINE = 0.9  # with less, other processes had the cores for a part of the time


class Trial(NamedTuple):
    """What a training step on a block costs, without the optimiser."""

    block: Size
    seconds: float
    saved_bytes: int
    busy: float  # share of the threads' time that they had a core

    @property
    def pairs_per_s(self) -> float:
        """Cells of the grid a second."""
        return self.block[0] * self.block[1] / self.seconds


class AutoBlock(L.Callback):
    """Chooses the block of a data module with ``block="auto"`` at the start of fit, and prints what and why.

    What is fitted later with the same data module keeps the block, and so does a resumed run (from the checkpoint).
    With several devices nothing is measured and the standard block stays, as every process must choose alike.
    """

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose where nothing has been chosen yet."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        if not datamodule.auto_block or trainer.world_size > 1:
            return
        assert isinstance(pl_module, MethylationModule)
        precision = trainer.precision_plugin.train_step_context
        trials = probe(pl_module, datamodule, precision)
        datamodule.block, datamodule.auto_block = choose(trials), False
        print(explain(trials, datamodule.block), flush=True)
        chosen = next(trial for trial in trials if trial.block == datamodule.block)
        threads = torch.get_num_threads()
        if pl_module.device.type == "cpu" and threads > 1 and chosen.busy < IDLE_MACHINE:
            with _untouched(pl_module):
                torch.set_num_threads(1)
                alone = _trial(pl_module, _batch(pl_module, datamodule, chosen.block), precision)
                torch.set_num_threads(threads)
            if alone.seconds < chosen.seconds:
                print(
                    f"{threads} threads take {chosen.seconds:.2f} s a step, one takes {alone.seconds:.2f} s: other "
                    "processes use the cores, OMP_NUM_THREADS=1 is faster here"
                )


def choose(trials: list[Trial]) -> Size:
    """Take the smallest block that reaches ``SHARE`` of the best pairs a second."""
    best = max(trial.pairs_per_s for trial in trials)
    return next(trial.block for trial in trials if trial.pairs_per_s >= SHARE * best)


def explain(trials: list[Trial], chosen: Size) -> str:
    """Say in one line what was measured and chosen."""
    measured = ", ".join(
        f"{trial.block[0]} × {trial.block[1]}: {trial.pairs_per_s:,.0f} pairs/s and {trial.saved_bytes / 1e6:,.0f} MB"
        for trial in trials
    )
    why = f"the smallest block with {SHARE:.0%} of the best speed"
    return f"data.block=auto: {chosen[0]} CpGs × {chosen[1]} samples, {why} ({measured})"


def probe(module: MethylationModule, datamodule: GridDataModule, precision: Precision) -> list[Trial]:
    """Run forward and backward of each candidate that fits into memory; the module is left as it was."""
    trials: list[Trial] = []
    # gradients and the two moments of Adam are still to come
    room = free_bytes(module.device) - 3 * sum(parameter.nbytes for parameter in module.parameters())
    with _untouched(module):
        for candidate in CANDIDATES:
            limits = (len(datamodule.split.cpg["train"]), len(datamodule.split.sample["train"]))
            block = (min(candidate[0], limits[0]), min(candidate[1], limits[1]))
            if trials:
                growth = block[0] * block[1] / (trials[-1].block[0] * trials[-1].block[1])
                if growth == 1 or 2 * growth * trials[-1].saved_bytes > room:
                    continue
            if not trials:
                _trial(module, _batch(module, datamodule, FIRST_CALL), precision)  # what only a first call costs
            batch = _batch(module, datamodule, block)
            trials.append(_trial(module, batch, precision))
            for _ in range(REPEATS - 1):
                if trials[-1].seconds < ENOUGH_SECONDS:
                    trials[-1] = min(trials[-1], _trial(module, batch, precision), key=lambda trial: trial.seconds)
    return trials


@contextmanager
def _untouched(module: MethylationModule) -> Iterator[None]:
    """Restore what training steps without an optimiser change: running statistics and gradients."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    was_training = module.training
    module.train()
    yield
    for name, buffer in module.named_buffers():
        buffer.copy_(buffers[name])
    module.zero_grad()
    module.train(was_training)


def _batch(module: MethylationModule, datamodule: GridDataModule, block: Size) -> GridBatch:
    cpg_C, sample_S = datamodule.split.view("train_cpg-train_sample")
    batch = GridDataset(datamodule.store)[Block(cpg_C[: block[0]], sample_S[: block[1]])]
    return module.transfer_batch_to_device(batch, module.device, 0)


def _trial(module: MethylationModule, batch: GridBatch, precision: Precision) -> Trial:
    """Time forward and backward, and count the bytes that forward keeps for backward."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    start, start_busy = time.perf_counter(), time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), precision():
        loss = (module(batch) - batch.beta_CS).nan_to_num().abs().mean()
    loss.backward()
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    seconds = time.perf_counter() - start
    busy = (time.process_time() - start_busy) / (seconds * torch.get_num_threads())
    kept = sum(size for pointer, size in saved.items() if pointer not in parameters)
    n_cpgs, n_samples = batch.beta_CS.shape
    return Trial((n_cpgs, n_samples), seconds, kept, busy)
