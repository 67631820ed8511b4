"""Gather a dilution sweep: ``python -m methyl_lightning.report sweep=multirun/dilution/…``."""

from pathlib import Path

from omegaconf import DictConfig

from methyl_lightning.command import run_command
from methyl_lightning.dilution_report import read_sweep, write_results


def report(cfg: DictConfig) -> None:
    """Write the table and the figures of all jobs into the sweep's folder."""
    sweep = Path(cfg.sweep)
    write_results(read_sweep(sweep), sweep)
    print(f"sweep folder: {sweep}")


if __name__ == "__main__":
    run_command(report, "report")
