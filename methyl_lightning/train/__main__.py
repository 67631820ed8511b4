"""Train a network and test it: ``python -m methyl_lightning.train +experiment=reproduce``."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from methyl_lightning.command import Stopped, run_command
from methyl_lightning.data.splits import HEADLINE, describe_split, save_split
from methyl_lightning.evaluate.comparisons import compare_references, comparison_lines
from methyl_lightning.evaluate.evaluation import evaluate_ceiling, evaluate_diluted, save_data
from methyl_lightning.evaluate.table import print_table, results_table
from methyl_lightning.prepare.stores import ensure_store
from methyl_lightning.run_folder import is_first_process, save_config, take_job_folder
from methyl_lightning.settings import as_argument
from methyl_lightning.train.checks import check_settings
from methyl_lightning.train.fit import build_datamodule, build_module, fit_and_test
from methyl_lightning.train.resume import CHOICES, check_same_store, continue_in, resumed
from methyl_lightning.train.tracking import finish_wandb, log_dilution, log_run


def train(cfg: DictConfig) -> None:
    """Prepare if needed, fit the model and its references, test them on the same views, print the table."""
    hydra = HydraConfig.get()
    folder, checkpoint = Path(hydra.runtime.output_dir), cfg.ckpt_path and Path(str(cfg.ckpt_path))
    choices = {group: choice for group, choice in hydra.runtime.choices.items() if not group.startswith("hydra/")}
    if checkpoint:
        cfg = resumed(cfg, list(hydra.overrides.task), choices)
    else:
        OmegaConf.update(cfg, CHOICES, choices, force_add=True)
    check_settings(cfg)
    take_job_folder(folder, goes_on=checkpoint is not None)
    loggers = build_loggers(cfg.logger)
    store = ensure_store(cfg.data)
    if checkpoint:
        check_same_store(store, checkpoint)
    module = build_module(cfg.model, store, cfg.seed)
    datamodule = build_datamodule(cfg, module)
    if is_first_process():
        if checkpoint:
            continue_in(folder, checkpoint)
        save_config(cfg, folder)
        save_split(datamodule.split, store, folder / "split.json")
        print(describe_split(datamodule.split), flush=True)
        save_data(store, folder)
    try:
        fit_and_test(cfg, module, datamodule, folder, cfg.model.network, loggers, cfg.ckpt_path)
        for name, model in cfg.references.items():
            reference = build_module(model, store, cfg.seed)
            fit_and_test(cfg, reference, datamodule, folder / "references" / name, name, [])
        if module.global_rank == 0:
            evaluate_ceiling(store, datamodule.split, folder / "references" / "ceiling", datamodule.split_seed)
            print_table(results_table(folder, cfg.model.network, cfg.data.name), folder)
            for line in comparison_lines(compare_references(folder, cfg.model.network), HEADLINE):
                print(line)
            log_run(folder)
            if "dilution" in cfg:
                log_dilution(loggers, evaluate_diluted(folder / "best.ckpt", folder, cfg.seed, cfg.dilution))
            print(f"run folder: {folder}")
    except Stopped as stop:
        if (folder / "last.ckpt").is_file():
            again = as_argument("ckpt_path", str(folder / "last.ckpt"))
            stop.advice = f"go on with: python -m methyl_lightning.train {again}"
        raise
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


if __name__ == "__main__":
    run_command(train, "train")
