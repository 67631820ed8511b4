"""Weights & Biases: online with a key, offline without, and one run a job even in a multirun."""

import os
from pathlib import Path

import wandb
from lightning.pytorch.loggers import WandbLogger

from methyl_lightning.report.page import draw, extremes, gather


def wandb_logger(project: str, folder: str, name: str | None = None, group: str | None = None) -> WandbLogger:
    """Make a W&B logger that needs no key.

    Parameters
    ----------
    project
        W&B project.
    folder
        Where the run's files are kept.
    name, group
        Of the run.
    """
    offline = os.environ.get("WANDB_MODE") == "offline" or not wandb.login(prompt=False)
    # the logger's own offline=True sets a mode that newer wandb no longer takes for offline
    return WandbLogger(
        project=project, save_dir=folder, name=name, group=group, mode="offline" if offline else "online"
    )


def log_run(folder: Path) -> None:
    """Log the tables and figures of a finished run's report to the job's W&B run, where there is one."""
    if wandb.run is None:
        return
    for found in gather(str(folder)):
        tables = {"results": found.scores, "strata": found.strata, "comparisons": found.comparisons}
        tables["best_and_worst_cpgs"] = extremes(found, found.test_set.models[0].label)
        shown = {f"report/{name}": wandb.Table(dataframe=table) for name, table in tables.items() if len(table)}
        wandb.run.log(shown | {f"report/{name}": wandb.Image(figure) for name, figure in draw(found).items()})


def finish_wandb() -> None:
    """End the job's run, so that the next job of a multirun gets its own, and say how to upload an offline one."""
    if wandb.run is None:
        return
    folder = Path(wandb.run.dir).parent
    offline = wandb.run.settings._offline
    wandb.finish()
    if offline:
        print(f"W&B ran offline; upload the run with: wandb sync {folder}")
