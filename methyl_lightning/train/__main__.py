"""Train a network and test it: ``python -m methyl_lightning.train +experiment=reproduce``."""

import math
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from methyl_lightning.command import run_command
from methyl_lightning.data.splits import describe_split, save_split
from methyl_lightning.dilution.figures import level_name
from methyl_lightning.dilution.run import SCORES, dilution_test, summarise
from methyl_lightning.dilution.table import write_results
from methyl_lightning.evaluate.comparisons import compare_references, comparison_lines
from methyl_lightning.evaluate.evaluation import evaluate_ceiling, load_run, save_data
from methyl_lightning.evaluate.table import HEADLINE, print_table, results_table
from methyl_lightning.files import InputError
from methyl_lightning.model.checkpoint import check_resumable
from methyl_lightning.prepare.stores import ensure_store
from methyl_lightning.train.fit import build_datamodule, build_module, fit_and_test
from methyl_lightning.train.tracking import finish_wandb, log_run


def train(cfg: DictConfig) -> None:
    """Prepare if needed, fit the model and its references, test them on the same views, print the table."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    for name, least in (("seed", 0), ("patience", 1)):
        if not isinstance(cfg[name], int) or cfg[name] < least:
            raise InputError(f"{name}={cfg[name]}: must be a whole number of at least {least}")
    if not cfg.trainer.val_check_interval > 0:
        raise InputError(f"trainer.val_check_interval={cfg.trainer.val_check_interval}: must be above 0")
    if cfg.trainer.get("sync_batchnorm"):
        raise InputError("trainer.sync_batchnorm=true: statistics are those of each process's own block; leave it out")
    if cfg.ckpt_path and not is_zipfile(cfg.ckpt_path):  # what torch writes is a zip file, complete only with its end
        raise InputError(
            f"{cfg.ckpt_path}: no such checkpoint, or truncated; training writes last.ckpt into its folder"
        )
    if cfg.ckpt_path:
        check_resumable(cfg.ckpt_path)
    loggers = build_loggers(cfg.logger)
    if cfg.get("checkpoint"):
        trainer = instantiate(cfg.trainer, logger=False, enable_checkpointing=False, _convert_="all")
        try:
            test_diluted(cfg, Path(cfg.checkpoint), trainer.strategy.root_device, folder, loggers)
        finally:
            finish_wandb()
        return
    store = ensure_store(cfg.data)
    module = build_module(cfg.model, store, cfg.seed)
    datamodule = build_datamodule(cfg, module)
    if module.global_rank == 0:
        OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
        save_split(datamodule.split, store, folder / "split.json")
        print(describe_split(datamodule.split), flush=True)
        save_data(store, folder)
    try:
        fit_and_test(cfg, module, datamodule, folder, cfg.model.network, loggers, cfg.ckpt_path)
        if cfg.data.block == "auto" and module.global_rank == 0:
            cfg.data.block = list(datamodule.block)
            OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
        for name, model in cfg.references.items():
            reference = build_module(model, store, cfg.seed)
            fit_and_test(cfg, reference, datamodule, folder / "references" / name, name, [])
        if module.global_rank == 0:
            evaluate_ceiling(store, datamodule.split, folder / "references" / "ceiling", cfg.seed)
            print_table(results_table(folder, cfg.model.network, cfg.data.name), folder)
            for line in comparison_lines(compare_references(folder, cfg.model.network), HEADLINE):
                print(line)
            log_run(folder)
            if cfg.get("dilution"):
                test_diluted(cfg, folder / "best.ckpt", module.device, folder, loggers)
            else:
                print(f"run folder: {folder}")
    finally:
        finish_wandb()


def build_loggers(groups: DictConfig) -> list[Logger]:
    """Build the loggers; in a multirun those that know groups put all jobs into one."""
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        for logger in groups.values():
            if "group" in logger and logger.group is None:
                logger.group = hydra.sweep.dir
    return [instantiate(logger, _convert_="all") for logger in groups.values()]


def test_diluted(cfg: DictConfig, checkpoint: Path, device: torch.device, folder: Path, loggers: list[Logger]) -> None:
    """Test a checkpoint, on its own store and split, with diluted expression as ``cfg.dilution`` says."""
    module, store, split, run = load_run(checkpoint)
    settings: dict[str, Any] = OmegaConf.to_container(cfg.dilution, resolve=True)  # type: ignore[assignment]
    settings.pop("train_retention", None)
    result = dilution_test(module.to(device), store, split, seed=cfg.seed, **settings)
    result.facts.update(cohort=run.data.name, checkpoint=str(checkpoint))
    write_results(result, folder)
    for _, row in summarise(result.repeats).iterrows():
        values = {name: row[name] for name in SCORES if not math.isnan(row[name])}
        name = row["test"] if math.isnan(row["retention"]) else level_name(row["retention"])
        for logger in loggers:
            logger.log_metrics({f"dilution/{name}/{key}": value for key, value in values.items()})
    print(f"run folder: {folder}")


if __name__ == "__main__":
    run_command(train, "train")
