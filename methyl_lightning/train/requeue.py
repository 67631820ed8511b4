"""A job that is put back into its queue saves at the end of its step, finds its run folder again, and goes on."""

import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
from hydra.experimental.callback import Callback as HydraCallback
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, open_dict

from methyl_lightning.train.resume import BEST

# a job keeps its number when it is put back; submitit's jobs on this machine run once but for that
JOB, RESTARTS, LOCAL_JOB = "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SUBMITIT_LOCAL_JOB_ID"
SAVED = ("hpc_ckpt_*.ckpt", "last.ckpt")  # at the signal by Lightning, and at each validation


class RequeuedRun(HydraCallback):
    """Hydra's callback that lets a single run go on where it was put back; train itself does so for a sweep's job."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Name the folder, and the checkpoint to go on from."""
        folders = Path(config.hydra.run.dir).absolute().parent.glob("*")
        found = [path for path in map(requeued_checkpoint, folders) if path is not None]
        if found:
            with open_dict(config):
                config.ckpt_path = str(max(found, key=_age))
                config.hydra.run.dir = str(Path(config.ckpt_path).parent)


class SaveAtStep(Callback):
    """Lets SLURM's signal wait for the end of a step: what is saved in the middle of one would repeat a part of it."""

    def __init__(self) -> None:
        self._asked = False
        self._save: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stand before Lightning's handler, which saves and asks SLURM to put the job back."""
        if SLURMEnvironment.detect():
            number = SLURMEnvironment().requeue_signal or signal.SIGUSR1
            self._save = signal.getsignal(number)
            signal.signal(number, self._ask)

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Save, but not before a validation: a run that goes on from there would leave it out."""
        interval = trainer.val_check_batch  # of steps
        if interval is None or (trainer.fit_loop.epoch_loop.total_batch_idx + 1) % interval:
            self._save_if_asked(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what has been trained to its end."""
        self._save_if_asked(trainer)

    def _save_if_asked(self, trainer: L.Trainer) -> None:
        # any process may have been asked, all take part
        if callable(self._save) and trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            self._asked = False
            self._save(signal.SIGUSR1, None)


def mark_job(folder: Path) -> None:
    """Write into a run folder which job it is, if any."""
    if (mark := _mark(folder)) is not None:
        mark.touch()


def was_here(folder: Path) -> bool:
    """Tell whether a folder is of this job before it was put back into the queue."""
    mark = _mark(folder)
    again = JOB not in os.environ or int(os.environ.get(RESTARTS, "0")) > 0
    return mark is not None and again and mark.is_file()


def requeued_checkpoint(folder: Path) -> Path | None:
    """Find what this job goes on from; None where it was not put back, or was before its first validation."""
    saved = [path for pattern in SAVED for path in folder.glob(pattern)]
    return max(saved, key=_age) if saved and (folder / BEST).is_file() and was_here(folder) else None


def remove_saved(folder: Path) -> None:
    """Remove what was saved at signals, once the training has ended."""
    for path in folder.glob(SAVED[0]):
        path.unlink()


def _mark(folder: Path) -> Path | None:
    for name, kind in ((JOB, "slurm"), (LOCAL_JOB, "local")):
        if name in os.environ:
            return folder / f".{kind}_{os.environ[name]}"
    return None


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns
