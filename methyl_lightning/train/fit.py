"""One model: built, fitted into its folder, and tested."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import instantiate
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from omegaconf import DictConfig

from methyl_lightning.command.run import stop
from methyl_lightning.command.settings import as_argument
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.data.store import Store
from methyl_lightning.evaluate.evaluation import evaluate_model, save_training_curves
from methyl_lightning.files import InputError, replacing
from methyl_lightning.model.card import calibrate_depths, calibrate_module, coverage_line, make_card
from methyl_lightning.model.checkpoint import StreamedCheckpoints, complete_checkpoint, load_checkpoint
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.train.averaging import RunAveraging
from methyl_lightning.train.divergence import Divergence
from methyl_lightning.train.pace import Pace, peak_memory
from methyl_lightning.train.progress import StepProgress
from methyl_lightning.train.requeue import SaveAtStep, remove_saved
from methyl_lightning.train.resume import RunCheckpoint, RunStopping

LOST = re.compile(r"gloo|NCCL|ProcessGroup|reset by peer|closed by peer", re.IGNORECASE)  # of another process
DEAD_S = 1.0  # after which a process that another misses counts as running


def build_loggers(loggers: DictConfig, folder: Path, named: dict[str, Any]) -> list[Logger]:
    """Build the loggers of a group; what they write goes into the folder, and they get the names that they lack."""
    for logger in loggers.values():
        if "folder" in logger:
            logger.folder = str(folder)
        for key, value in named.items():
            if key in logger and logger[key] is None:
                logger[key] = value
    return [instantiate(logger, _convert_="all") for logger in loggers.values()]


def build_module(model: DictConfig, store: Store, seed: int) -> MethylationModule:
    """Build a model for the store's sizes; its initial weights depend on the seed alone."""
    L.seed_everything(seed, verbose=False)
    return instantiate(model, n_genes=len(store.genes), window=store.window, _convert_="all")


def build_datamodule(cfg: DictConfig, module: MethylationModule) -> GridDataModule:
    """Build the views; the network says which CpGs it is defined on unless ``data.gene_within_bp`` does."""
    settings = {key: value for key, value in cfg.data.items() if key not in ("source", "name", "download")}
    if settings["gene_within_bp"] is None:
        settings["gene_within_bp"] = module.network.gene_within_bp
    if cfg.ckpt_path and settings["split_file"] is None:
        settings["split_file"] = str(Path(cfg.ckpt_path).parent / "split.json")
    return instantiate(settings, seed=cfg.seed, _convert_="all")


def fit_and_test(
    cfg: DictConfig,
    module: MethylationModule,
    datamodule: GridDataModule,
    folder: Path,
    label: str,
    loggers: list[Logger],
    ckpt_path: str | None = None,
) -> None:
    """Fit one model into its folder, test the checkpoint with the best validation score, and complete it."""
    checkpoints = RunCheckpoint(
        folder, "best", "val/score", mode="max", save_weights_only=True, enable_version_counter=False
    )
    latest = RunCheckpoint(folder, "last", enable_version_counter=False)  # save_last would skip what isn't the best
    stopping = RunStopping("val/score", patience=cfg.patience, mode="max", check_finite=False)
    averaging = [] if cfg.average_decay is None else [RunAveraging(cfg.average_decay)]
    module.score_window = cfg.score_window
    trainer = instantiate(
        cfg.trainer,
        callbacks=[
            checkpoints,
            latest,
            stopping,
            *averaging,
            Divergence(label),
            Pace(),
            SaveAtStep(),
            StepProgress(label),
        ],
        logger=[CSVLogger(folder, "log", str(len(list(folder.glob("log/*"))))), *loggers],
        default_root_dir=str(folder),
        plugins=[StreamedCheckpoints()],
        _convert_="all",
    )
    start = time.perf_counter()
    if module.network.closed_form:
        module.fit_statistics(datamodule)
        trainer.strategy.connect(module)
    else:
        _fit(trainer, module, datamodule, folder, ckpt_path)
    seconds = time.perf_counter() - start
    if trainer.fast_dev_run:
        print(f"{label}: fast_dev_run has trained and validated on {trainer.max_steps} block(s); nothing is kept")
        return
    best = module if module.network.closed_form else _best(module, trainer, checkpoints.best_model_path)
    best.trainer = trainer
    best.to(trainer.strategy.root_device)  # after fit a module is on the CPU
    tested = evaluate_model(best, datamodule.store, datamodule.split, folder, datamodule.split_seed, "best.ckpt")
    calibrations = calibrate_module(best, datamodule.store, datamodule.split)
    if tested is not None:
        depths = calibrate_depths(best, datamodule.store, datamodule.split)
        best.card = make_card(calibrations, depths, *tested)
    if module.network.closed_form:
        trainer.save_checkpoint(folder / "best.ckpt")
    elif trainer.is_global_zero:
        complete_checkpoint(Path(checkpoints.best_model_path), best.card)
    if trainer.is_global_zero:
        print(f"{label}: {coverage_line(best.card)}", flush=True)
        remove_saved(folder)
        save_training_curves(folder)
        usage = {
            "steps": trainer.global_step,
            "train_seconds": round(seconds, 1),
            **peak_memory(),
        }
        with replacing(folder / "usage.json") as path:
            path.write_text(json.dumps(usage))
        print(f"{label}: {usage['steps']} steps in {seconds:.0f} s, peak memory {usage['peak_rss_gb']} GB", flush=True)


def _fit(
    trainer: L.Trainer, module: MethylationModule, datamodule: GridDataModule, folder: Path, ckpt_path: str | None
) -> None:
    """Fit, and end the run's other processes with this one; they would wait for it in vain."""
    if not SLURMEnvironment.detect():  # which puts a run back into its queue
        # Lightning's own handler asks the other processes, and waits for ever when they are in the middle of a step
        handler = LambdaCallback(on_train_start=lambda *_: signal.signal(signal.SIGTERM, stop))
        trainer.callbacks.append(handler)  # type: ignore[attr-defined]
    try:
        trainer.fit(module, datamodule, ckpt_path=ckpt_path, weights_only=True)
    except BaseException as error:
        launcher = trainer.strategy.launcher
        dead = None
        if isinstance(launcher, _SubprocessScriptLauncher):
            dead = _dead(launcher.procs)
            launcher.kill(signal.SIGKILL)
        if isinstance(error, RuntimeError) and trainer.world_size > 1 and (dead or LOST.search(str(error))):
            again = as_argument("ckpt_path", str(folder / "last.ckpt"))
            which = f"process {dead[0]} of {trainer.world_size} ended ({dead[1]})" if dead else "a process has ended"
            raise InputError(
                f"{which} at step {trainer.global_step}, and the run of {trainer.world_size} with it; go on from its "
                f"last validation with: python -m methyl_lightning.train {again}"
            ) from error
        raise


def _dead(processes: list[subprocess.Popen[bytes]]) -> tuple[int, str] | None:
    """Name the first of a run's other processes that has ended, and how; this one may notice it before the system."""
    for rank, process in enumerate(processes, 1):
        try:
            code = process.wait(DEAD_S)
        except subprocess.TimeoutExpired:
            continue
        return rank, signal.Signals(-code).name if code < 0 else f"status {code}"
    return None


def _best(module: MethylationModule, trainer: L.Trainer, path: str) -> MethylationModule:
    """Load the best checkpoint of a fit, and let go of what only the fit needed."""
    if not path:
        raise InputError(
            f"trainer.val_check_interval={trainer.val_check_interval}: training ended at step "
            f"{trainer.global_step}, before its first validation; lower it, or raise trainer.max_steps"
        )
    module.zero_grad()  # gradients and moments are three times the weights, and testing needs neither
    trainer.strategy.optimizers = []
    module.to("meta")  # nor does it need the last weights, which would stay in memory beside the best
    return load_checkpoint(path)
