"""Train a network and test it: ``python -m methyl_lightning.train +experiment=reproduce``."""

import json
import math
import resource
import time
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import DictConfig, OmegaConf

from methyl_lightning.auto_block import AutoBlock
from methyl_lightning.card import calibrate_module, coverage_line, make_card
from methyl_lightning.checkpoint import StreamedCheckpoints, check_resumable, complete_checkpoint, load_checkpoint
from methyl_lightning.command import ensure_store, run_command
from methyl_lightning.comparisons import compare_references, comparison_lines
from methyl_lightning.datamodule import GridDataModule
from methyl_lightning.dilution import SCORES, dilution_test, summarise
from methyl_lightning.dilution_figures import level_name
from methyl_lightning.dilution_report import write_results
from methyl_lightning.evaluation import (
    HEADLINE,
    evaluate_ceiling,
    evaluate_model,
    load_run,
    print_table,
    read_test,
    results_table,
    save_training_curves,
)
from methyl_lightning.memory import return_freed_memory
from methyl_lightning.module import MethylationModule
from methyl_lightning.progress import StepProgress
from methyl_lightning.reporting.runs import save_data
from methyl_lightning.splits import describe_split, save_split
from methyl_lightning.store import InputError, Store
from methyl_lightning.tracking import finish_wandb, log_run


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
    """Fit one model into its folder and test the checkpoint with the best validation Spearman."""
    checkpoints = ModelCheckpoint(
        folder, "best", "val/score", mode="max", save_weights_only=True, enable_version_counter=False
    )
    latest = ModelCheckpoint(folder, "last", enable_version_counter=False)  # save_last would skip what isn't the best
    stopping = EarlyStopping("val/score", patience=cfg.patience, mode="max", check_finite=False)
    trainer = instantiate(
        cfg.trainer,
        callbacks=[checkpoints, latest, stopping, AutoBlock(), StepProgress(label)],
        logger=[CSVLogger(folder, "log", str(len(list(folder.glob("log/*"))))), *loggers],
        default_root_dir=str(folder),
        plugins=[StreamedCheckpoints()],
        _convert_="all",
    )
    start = time.perf_counter()
    if list(module.parameters()):
        trainer.fit(module, datamodule, ckpt_path=ckpt_path, weights_only=True)
    else:  # in closed form: nothing to iterate, the checkpoint is all that is wanted of the trainer
        module.fit_statistics(datamodule)
        trainer.strategy.connect(module)
        checkpoints.best_model_path = str(folder / "best.ckpt")
        trainer.save_checkpoint(checkpoints.best_model_path)
    seconds = time.perf_counter() - start
    if not checkpoints.best_model_path:
        raise InputError(
            f"trainer.val_check_interval={cfg.trainer.val_check_interval}: training ended at step "
            f"{trainer.global_step}, before its first validation; lower it, or raise trainer.max_steps"
        )
    module.zero_grad()  # gradients and moments are three times the weights, and testing needs neither
    trainer.strategy.optimizers = []
    return_freed_memory()
    best = load_checkpoint(checkpoints.best_model_path)
    best.trainer = trainer
    evaluate_model(
        best.to(trainer.strategy.root_device),  # after fit the module itself is back on the CPU
        datamodule.store,
        datamodule.split,
        folder,
        cfg.seed,
        "best.ckpt",
    )
    calibration = calibrate_module(best, datamodule.store, datamodule.split)
    if trainer.is_global_zero:
        card = make_card(calibration, *read_test(folder))
        complete_checkpoint(Path(checkpoints.best_model_path), card)
        print(f"{label}: {coverage_line(card)}", flush=True)
    if trainer.is_global_zero:
        save_training_curves(folder)
        usage = {
            "steps": trainer.global_step,
            "train_seconds": round(seconds, 1),
            "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        }
        (folder / "usage.json").write_text(json.dumps(usage))
        print(f"{label}: {usage['steps']} steps in {seconds:.0f} s, peak memory {usage['peak_rss_gb']} GB", flush=True)


if __name__ == "__main__":
    run_command(train, "train")
