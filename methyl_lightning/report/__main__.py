"""Draw the report of runs, or gather a dilution sweep: ``python -m methyl_lightning.report runs=outputs/…``."""

import os
from pathlib import Path
from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from methyl_lightning.command.run import run_command
from methyl_lightning.command.settings import typed_settings
from methyl_lightning.dilution.table import read_sweep, write_results
from methyl_lightning.files import InputError
from methyl_lightning.report.dashboard import save_view
from methyl_lightning.report.page import write_report
from methyl_lightning.report.picture import save_picture
from methyl_lightning.report.runs import find_runs


class ReportSettings(NamedTuple):
    """What conf/report.yaml holds."""

    runs: str | list[str] | None
    output: str | None
    sweep: str | None
    dashboard: str | None


def report(cfg: DictConfig) -> None:
    """Write one page about runs, the table and figures of a sweep, or the dashboard: W&B's view, or its picture."""
    settings = typed_settings(cfg, ReportSettings, HydraConfig.get().overrides.task)
    if settings.dashboard is not None and settings.runs is None and settings.sweep is None:
        print(f"dashboard: {save_view(settings.dashboard)}")
        return
    if (settings.runs is None) == (settings.sweep is None):
        raise InputError("name either runs=FOLDER (one page about runs) or sweep=FOLDER (a dilution sweep), not both")
    if settings.sweep is not None:
        sweep = Path(settings.sweep)
        write_results(read_sweep(sweep), sweep)
        print(f"sweep folder: {sweep}")
        return
    places = settings.runs if isinstance(settings.runs, list) else [str(settings.runs)]
    if settings.dashboard is not None:
        save_picture(places, Path(settings.dashboard))
        print(f"dashboard: {settings.dashboard}")
        return
    output = Path(settings.output) if settings.output else beside(places)
    figures = write_report(places, output)
    print(f"report: {output}\nfigures: {figures}")


def beside(places: list[str]) -> Path:
    """Name the page in the folder that was named, or in the one that holds all runs."""
    if len(places) == 1 and Path(places[0]).is_dir():
        return Path(places[0]) / "report.html"
    parents = [str(folder.parent) for folder in find_runs(places)]
    return Path(os.path.commonpath(parents)) / "report.html"


if __name__ == "__main__":
    run_command(report, "report")
