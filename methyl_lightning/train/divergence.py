"""A training that diverges ends with the step at which it did, before its weights become anyone's best."""

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from methyl_lightning.files import InputError

LIMIT = 1e4  # mean absolute error of values between 0 and 1
STEPS = 10  # looked at together, as each look waits for the device


class Divergence(Callback):
    """Looks at the loss of every step, a few at a time and before each validation."""

    def __init__(self, label: str):
        self._label = label
        self._losses: list[tuple[int, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        """Keep the loss of a step."""
        self._losses.append((trainer.global_step, outputs["loss"].detach()))
        if len(self._losses) >= STEPS:
            self._look(pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the rest, and at the weights that the last step has left."""
        self._look(pl_module)
        finite = [parameter.isfinite().all() for parameter in pl_module.parameters()]
        if finite and not torch.stack(finite).all():
            self._end(pl_module, trainer.global_step, math.nan)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the predictions of the validation part, before a checkpoint is written."""
        error = float(trainer.callback_metrics.get("val/mae", 0.0))
        if not error < LIMIT:
            self._end(pl_module, trainer.global_step, error)

    def _look(self, module: L.LightningModule) -> None:
        if self._losses:
            values = torch.stack([loss for _, loss in self._losses]).tolist()
            for (step, _), value in zip(self._losses, values, strict=True):
                if not value < LIMIT:
                    self._end(module, step, value)
        self._losses.clear()

    def _end(self, module: L.LightningModule, step: int, error: float) -> None:
        raise InputError(
            f"{self._label}: diverged at step {step}, with a mean absolute error of {error:.3g} on the block of this "
            f"step; start again with a learning_rate below {module.hparams['learning_rate']:g}"
        )
