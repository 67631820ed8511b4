"""Train a network and test it: ``python -m methyl_lightning.train +experiment=reproduce``."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from torch import distributed

from methyl_lightning.command.run import Stopped, run_command
from methyl_lightning.command.run_folder import is_first_process, save_config, take_job_folder
from methyl_lightning.command.settings import as_argument
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.data.splits import HEADLINE, describe_split, save_split
from methyl_lightning.data.store import Store
from methyl_lightning.data.texts import seal_texts
from methyl_lightning.evaluate.comparisons import compare_references, comparison_lines
from methyl_lightning.evaluate.evaluation import evaluate_ceiling, evaluate_diluted, save_data
from methyl_lightning.evaluate.table import print_table, results_table
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.prepare.stores import ensure_store
from methyl_lightning.train.checks import check_settings
from methyl_lightning.train.fit import build_datamodule, build_loggers, build_module, fit_and_test
from methyl_lightning.train.logged import log_dilution, log_test
from methyl_lightning.train.once import fingerprint, note_training, refuse_processes, take_training, trained_once
from methyl_lightning.train.requeue import mark_job, requeued_checkpoint, was_here
from methyl_lightning.train.resume import CHOICES, check_same_store, continue_in, resumed
from methyl_lightning.train.tracking import finish_wandb, name_run, start_wandb


def train(cfg: DictConfig) -> None:
    """Prepare if needed, fit the model and its references, test them on the same views, print the table."""
    folder, sweep = Path(HydraConfig.get().runtime.output_dir), sweep_folder()
    requeued = requeued_checkpoint(folder)
    if requeued is not None:
        cfg.ckpt_path = str(requeued)
    cfg = settings_of_run(cfg)
    check_settings(cfg, HydraConfig.get().overrides.task)
    if sweep is not None:
        refuse_processes(cfg)
    take_job_folder(folder, goes_on=cfg.ckpt_path is not None or was_here(folder))
    store = ensure_store(cfg.data)
    if cfg.ckpt_path:
        check_same_store(store, Path(cfg.ckpt_path))
    module = build_module(cfg.model, store, cfg.seed)
    datamodule = build_datamodule(cfg, module)
    if is_first_process():
        if cfg.ckpt_path:
            continue_in(folder, Path(cfg.ckpt_path))
        save_config(cfg, folder)
        mark_job(folder)
        save_split(datamodule.split, store, folder / "split.json")
        print(describe_split(datamodule.split), flush=True)
        save_data(store, folder)
    failed = True
    try:
        typed = list(HydraConfig.get().overrides.task)
        loggers = build_loggers(cfg.logger, folder, name_run(cfg, cfg[CHOICES], typed, sweep))
        if is_first_process():
            start_wandb(loggers, cfg, datamodule)
        key = fingerprint(cfg, store, requeued is not None)
        if sweep is None:
            former = None
            fit_all(cfg, module, datamodule, folder, loggers)
        else:
            with trained_once(sweep, key, folder) as former:
                if former is None:
                    fit_all(cfg, module, datamodule, folder, loggers)
                else:
                    take_training(former, folder)
        if is_first_process() and not cfg.trainer.get("fast_dev_run"):
            note_training(folder, former, key)
            tell(cfg, folder, loggers)
        failed = False
    except Stopped as stop:
        if (folder / "last.ckpt").is_file():
            again = as_argument("ckpt_path", str(folder / "last.ckpt"))
            stop.advice = f"go on with: python -m methyl_lightning.train {again}"
        raise
    finally:
        finish_wandb(failed)


def settings_of_run(cfg: DictConfig) -> DictConfig:
    """Return the settings with the choice of each group, or, of a run that goes on, its own."""
    hydra = HydraConfig.get()
    choices = {group: choice for group, choice in hydra.runtime.choices.items() if not group.startswith("hydra/")}
    if cfg.ckpt_path:
        return resumed(cfg, list(hydra.overrides.task), choices)
    OmegaConf.update(cfg, CHOICES, choices, force_add=True)
    return cfg


def sweep_folder() -> Path | None:
    """Return the folder of the sweep that this job belongs to, or None."""
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None


def fit_all(
    cfg: DictConfig, module: MethylationModule, datamodule: GridDataModule, folder: Path, loggers: list[Logger]
) -> None:
    """Fit and test the model and its references, each in its folder, and find the ceiling where the truth is known."""
    store: Store = datamodule.store
    fit_and_test(cfg, module, datamodule, folder, cfg.model.network, loggers, cfg.ckpt_path)
    for name, model in cfg.references.items():
        reference = build_module(model, store, cfg.seed)
        fit_and_test(cfg, reference, datamodule, folder / "references" / name, name, [])
    if distributed.is_initialized():
        distributed.destroy_process_group()  # threads of gloo that are left to the end of Python may abort it
    if is_first_process() and not cfg.trainer.get("fast_dev_run"):
        evaluate_ceiling(store, datamodule.split, folder / "references" / "ceiling", datamodule.split_seed)


def tell(cfg: DictConfig, folder: Path, loggers: list[Logger]) -> None:
    """Print the table, compare with the references, test on diluted expression if asked for, and log all that."""
    print_table(results_table(folder, cfg.model.network, cfg.data.name), folder)
    for line in comparison_lines(compare_references(folder, cfg.model.network), HEADLINE):
        print(line)
    log_test(loggers, folder)
    if "dilution" in cfg:
        log_dilution(loggers, evaluate_diluted(folder / "best.ckpt", folder, cfg.seed, cfg.dilution), folder)
    seal_texts(folder)
    print(f"run folder: {folder}")


if __name__ == "__main__":
    run_command(train, "train")
