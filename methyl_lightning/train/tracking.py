"""What goes to loggers; Weights & Biases online with a key, offline without, one run a job even in a multirun."""

import math
import os
from pathlib import Path

import pandas as pd
import wandb
from lightning.pytorch.loggers import Logger, WandbLogger

from methyl_lightning.dilution.figures import level_name
from methyl_lightning.dilution.run import SCORES
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
    for run in gather(str(folder)):
        tables = {"results": run.scores, "strata": run.strata, "comparisons": run.comparisons}
        tables["best_and_worst_cpgs"] = extremes(run, run.test_set.models[0].label)
        shown = {f"report/{name}": wandb.Table(dataframe=table) for name, table in tables.items() if len(table)}
        wandb.run.log(shown | {f"report/{name}": wandb.Image(figure) for name, figure in draw(run).items()})


def log_dilution(loggers: list[Logger], summary: pd.DataFrame) -> None:
    """Log the mean scores of a dilution test, as :func:`methyl_lightning.dilution.run.summarise` returns them."""
    for _, row in summary.iterrows():
        name = row["test"] if math.isnan(row["retention"]) else level_name(row["retention"])
        values = {f"dilution/{name}/{key}": row[key] for key in SCORES if not math.isnan(row[key])}
        for logger in loggers:
            logger.log_metrics(values)


def finish_wandb() -> None:
    """End the job's run, so that the next job of a multirun gets its own, and say how to upload an offline one."""
    if wandb.run is None:
        return
    folder = Path(wandb.run.dir).parent
    offline = wandb.run.settings._offline
    wandb.finish()
    if offline:
        print(f"W&B ran offline; upload the run with: wandb sync {folder}")
