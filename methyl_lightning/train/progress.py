"""What a person sees while training: steps, rate, time left, and the two validation metrics."""

import math
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class StepProgress(ProgressBar):
    """A bar over all training steps on a terminal; one line a validation where the output is not a terminal."""

    def __init__(self, description: str):
        super().__init__()
        self._description = description
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._enabled = True
        self._start = 0.0
        self._first_step = 0
        self._total: int | None = None

    def disable(self) -> None:
        """Show nothing (Lightning calls this on all ranks but the first)."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock and the bar."""
        self._start, self._first_step = time.perf_counter(), trainer.global_step
        steps = trainer.estimated_stepping_batches  # of max_steps or max_epochs, whichever ends first
        self._total = int(steps) if steps < math.inf else None
        if self._enabled and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}"),
                console=self._console,
            )
            self._bar.add_task(self._description, total=self._total, completed=trainer.global_step, rate="", metrics="")
            self._bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=trainer.global_step, rate=self._rate(trainer)[1])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the two metrics."""
        if not self._enabled or trainer.sanity_checking:
            return
        values = trainer.callback_metrics
        shown = f"val MAE {float(values['val/mae']):.4f}, Spearman {float(values['val/spearman']):.4f}"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], metrics=shown)
            return
        rate, text = self._rate(trainer)
        left = f"{(self._total - trainer.global_step) / rate:.0f} s left" if rate and self._total else "…"
        steps = f"step {trainer.global_step}/{self._total or '…'}"
        self._console.print(f"{self._description}: {steps}, {text}, {left}, {shown}", soft_wrap=True)

    def _rate(self, trainer: L.Trainer) -> tuple[float, str]:
        rate = (trainer.global_step - self._first_step) / (time.perf_counter() - self._start)
        return rate, f"{rate:.2f} steps/s"

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
