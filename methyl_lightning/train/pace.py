"""How a training goes, beside its loss: gradient norm, learning rate, cells seen and their rate, memory."""

import resource
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from methyl_lightning.data.batches import GridBatch, PairBatch


def peak_memory() -> dict[str, float]:
    """Return the peak memory of this process in GB, and of its GPU where it has used one."""
    found = {"peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        found["peak_cuda_gb"] = torch.cuda.max_memory_allocated() / 2**30
    return {name: round(value, 2) for name, value in found.items()}


class Pace(Callback):
    """Logs them at the steps whose loss is logged; at the others it only counts."""

    def __init__(self) -> None:
        self.pairs = 0  # of all processes, those of former parts of the run included
        self._pairs_before, self._since = 0, 0.0
        self._norm: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Keep the number of cells seen."""
        return {"pairs": self.pairs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.pairs = state_dict["pairs"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._restart()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave validation out of the rate."""
        self._restart()

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Take the norm of all gradients; a look at it would wait for the device, so it stays there."""
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            gradients = [value.grad for value in pl_module.parameters() if value.grad is not None]
            self._norm = torch.nn.utils.get_total_norm(gradients)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: GridBatch | PairBatch, *_: Any
    ) -> None:
        """Count the cells of the block, and log."""
        beta = batch.beta_N if isinstance(batch, PairBatch) else batch.beta_CS
        self.pairs += beta.numel() * trainer.world_size  # blocks of the others have as many, give or take a row
        if self._norm is None:
            return
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        values: dict[str, float] = {"learning_rate": rate, "pairs": self.pairs, **peak_memory()}
        if self.pairs > self._pairs_before:
            values["pairs_per_second"] = (self.pairs - self._pairs_before) / (time.perf_counter() - self._since)
        # as float64, on the CPU: Lightning would make them float32, which counts to 16 million
        logged = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
        logged["gradient_norm"] = self._norm
        pl_module.log_dict({f"train/{name}": value for name, value in logged.items()}, on_step=True, on_epoch=False)
        self._norm = None
        self._restart()

    def _restart(self) -> None:
        self._pairs_before, self._since = self.pairs, time.perf_counter()
