"""Weights averaged over the last part of training: validated, tested and saved instead of those of the step."""

from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from methyl_lightning.model.module import MethylationModule


class RunAveraging(WeightAveraging):
    """Keeps the running mean of weights and buffers, and has every checkpoint hold it.

    Lightning leaves checkpoints of weights alone to the weights of the step; here they hold the mean, too.

    Parameters
    ----------
    decay
        Share of the mean that stays at each step; less in the first steps, (1 + t) / (10 + t).
    """

    def __init__(self, decay: float):
        def mix(mean: Tensor, current: Tensor, n_averaged: Tensor) -> Tensor:
            if not mean.is_floating_point():  # counts and indices have no mean
                return current
            return torch.lerp(current, mean, min(decay, (1 + int(n_averaged)) / (10 + int(n_averaged))))

        super().__init__(avg_fn=mix)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the module, and tell it what its checkpoints hold."""
        super().setup(trainer, pl_module, stage)
        cast(MethylationModule, pl_module).saved_weights = self._mean

    def _mean(self) -> dict[str, Any]:
        assert self._average_model is not None
        return self._average_model.module.state_dict()
