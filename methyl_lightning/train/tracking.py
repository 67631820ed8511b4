"""Weights & Biases online with a key and a way to the server, offline without; one run a job, named and configured."""

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, ListConfig, OmegaConf

from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.dilution.run import MATCHES, SCORES
from methyl_lightning.report.scalars import RETENTION, SIDES
from methyl_lightning.report.server import NO_KEY, refusal

PROGRAMS = ("methyl_lightning", "torch", "lightning", "wandb", "numpy")
STEP = "trainer/global_step"
BEST = {"train/mae": "min", "val/mae": "min", "val/spearman": "max"}  # the summary has it beside the last
UNNAMED = ("data.source.", "data.store", "trainer.", "logger.", "ckpt_path")  # how and where, not what


def wandb_logger(
    project: str,
    folder: str,
    name: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: list[str] | None = None,
) -> WandbLogger:
    """Make a W&B logger that needs neither a key nor a server.

    Parameters
    ----------
    project
        W&B project.
    folder
        Where the run's files are kept.
    name, group, job_type, tags
        Of the run.
    """
    # the logger's own offline=True sets a mode that newer wandb no longer takes for offline
    return WandbLogger(
        project=project, save_dir=folder, name=name, group=group, job_type=job_type, tags=tags, mode=_mode()
    )


def _mode() -> str:
    """Choose how W&B runs: as the environment says, or by whether there is a key and a server that takes it."""
    if (mode := os.environ.get("WANDB_MODE")) in ("offline", "disabled"):
        return mode
    reason = refusal()
    if reason and not reason.endswith(NO_KEY):
        print(f"W&B: {reason}; this run is logged offline", file=sys.stderr)
    return "offline" if reason else "online"


def name_run(settings: DictConfig, choices: Mapping[str, Any], typed: list[str], sweep: Path | None) -> dict[str, Any]:
    """Say what a W&B run is called: by its model and what was typed, or, in a sweep, by what differs in it.

    Parameters
    ----------
    settings, choices
        Of the run; the choice of each group.
    typed
        Typed settings of the job.
    sweep
        Folder of the sweep that the job belongs to.
    """
    shared = _typed_for_all(sweep) if sweep else set()
    parts = {"seed": f"seed={settings.seed}"}
    for override in typed:
        key, _, value = override.lstrip("+").partition("=")
        if override not in shared and key not in choices and not key.startswith(UNNAMED):
            parts[key] = f"{key.rpartition('.')[2]}={value}"
    parts["seed"] = parts.pop("seed")  # last
    return {
        "name": " ".join([str(choices["model"]), *parts.values()]),
        "group": str(sweep) if sweep else None,
        "job_type": str(choices.get("experiment") or "train"),
        "tags": [str(settings.data.name), str(choices["model"])],
    }


def _typed_for_all(sweep: Path) -> set[str]:
    file = sweep / "multirun.yaml"  # Hydra writes it before the first job
    overrides = OmegaConf.load(file).hydra.overrides.task if file.is_file() else ListConfig([])
    return {str(override) for override in overrides}


def start_wandb(loggers: list[Logger], settings: DictConfig, datamodule: GridDataModule) -> None:
    """Give the W&B run its config, and say which metric is drawn over which."""
    run = run_of(loggers)
    if run is None:
        return
    data = datamodule.provenance()
    config: dict[str, Any] = OmegaConf.to_container(settings, resolve=True)  # type: ignore[assignment]
    config |= {"split": data.pop("sizes"), "provenance": data, "versions": {name: version(name) for name in PROGRAMS}}
    run.config.update(config | {"git_commit": _commit()}, allow_val_change=True)
    for name, best in BEST.items():
        run.define_metric(name, step_metric=STEP, summary=best)
    run.define_metric(RETENTION, hidden=True)
    for score in SCORES:
        for side in SIDES:
            run.define_metric(f"dilution/{score}{side}", step_metric=RETENTION)
    for match in MATCHES:  # where several are tested
        run.define_metric(f"dilution/{match}/*", step_metric=RETENTION)


def finish_wandb(failed: bool) -> None:
    """End the job's run, so that the next job of a multirun gets its own, and say how to upload an offline one."""
    if wandb.run is None:
        return
    folder = Path(wandb.run.dir).parent
    offline = wandb.run.settings.mode == "offline"
    wandb.finish(exit_code=int(failed))
    if offline:
        print(f"W&B ran offline; upload the run with: wandb sync {folder}")


def run_of(loggers: list[Logger]) -> Any:
    """Return the W&B run of the loggers, or None where there is none."""
    return next((logger.experiment for logger in loggers if isinstance(logger, WandbLogger)), None)


def _commit() -> str | None:
    """Find the commit of this package, where it lies in a checkout of its own."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=False)
        done = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:  # no git
        return None
    return done.stdout.strip() or None if tracked.returncode == 0 else None
