"""Test a checkpoint again: ``python -m methyl_lightning.evaluate checkpoint=RUN/best.ckpt [+experiment=dilution]``."""

from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from methyl_lightning.command.run import run_command
from methyl_lightning.command.run_folder import save_config, take_job_folder
from methyl_lightning.command.settings import check_whole_number, typed_settings
from methyl_lightning.data.splits import save_split
from methyl_lightning.data.texts import seal_texts
from methyl_lightning.evaluate.evaluation import (
    evaluate_ceiling,
    evaluate_diluted,
    evaluate_model,
    load_run,
    save_data,
)
from methyl_lightning.evaluate.table import print_table, results_table
from methyl_lightning.files import InputError
from methyl_lightning.model.checkpoint import on_fastest_device


class EvaluateSettings(NamedTuple):
    """What conf/evaluate.yaml and its experiment hold."""

    checkpoint: str
    store: str | None
    split_file: str | None
    dilution: dict[str, Any] | None = None


def evaluate(cfg: DictConfig) -> None:
    """Test a checkpoint on its own test views, or on diluted expression; write the results and print the table."""
    hydra = HydraConfig.get()
    settings = typed_settings(cfg, EvaluateSettings, hydra.overrides.task)
    checkpoint = Path(settings.checkpoint)
    folder = Path(hydra.runtime.output_dir)
    experiment = hydra.runtime.choices.get("experiment")
    check_whole_number("seed", cfg.seed, 0)
    take_job_folder(folder)
    if "dilution" in cfg:
        evaluate_diluted(checkpoint, folder, cfg.seed, cfg.dilution, settings.store, settings.split_file)
    elif experiment is not None:
        raise InputError(f"experiment={experiment}: is for training; a checkpoint is tested with +experiment=dilution")
    else:
        module, store, split, run = load_run(checkpoint, settings.store, settings.split_file)
        save_config(run, folder)
        save_split(split, store, folder / "split.json")
        save_data(store, folder)
        evaluate_model(on_fastest_device(module), store, split, folder, cfg.seed, str(checkpoint))
        evaluate_ceiling(store, split, folder / "references" / "ceiling", cfg.seed)
        print_table(results_table(folder, run.model.network, run.data.name), folder)
    seal_texts(folder)
    print(f"run folder: {folder}")


if __name__ == "__main__":
    run_command(evaluate, "evaluate")
