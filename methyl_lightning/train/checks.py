"""Settings of a training that are refused before its first step."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import lightning as L
from omegaconf import DictConfig, OmegaConf

from methyl_lightning import networks
from methyl_lightning.command.settings import check_arguments, check_whole_number, typed_settings
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.evaluate.evaluation import dilution_settings
from methyl_lightning.files import InputError
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.prepare.stores import check_cohort

LONGEST_KMER = 6  # there are 4^k k-mers, each a feature
PRECISIONS = ("32-true", "32", 32, "bf16-mixed", "16-mixed")
# options of Lightning that go against something here, and what to do instead
UNSUPPORTED = {
    "sync_batchnorm": "statistics are those of each process's own block; leave it out",
    "overfit_batches": "which block comes when follows from the step; take a small data.most_variable instead",
    "limit_val_batches": "the best checkpoint is chosen by validation; lower data.val_cpgs for a quick one",
}
NOT_OF_THE_DATA_MODULE = ("_target_", "name", "source", "download", "split_file")


class TrainSettings(NamedTuple):
    """What conf/train.yaml holds; what the groups hold are arguments of what they name."""

    name: str
    model: dict[str, Any]
    trainer: dict[str, Any]
    logger: dict[str, dict[str, Any]]
    references: dict[str, dict[str, Any]]
    ckpt_path: str | None
    average_decay: float | None


def check_settings(cfg: DictConfig, typed: Iterable[str] = ()) -> None:
    """Refuse settings that a training would take, or find wrong only when it has run.

    Raises
    ------
    InputError
        If a setting is of another type or out of its range.
    """
    _check_trainer(typed_settings(cfg, TrainSettings, typed).trainer)
    check_cohort(cfg.data)
    check_whole_number("seed", cfg.seed, 0)
    check_whole_number("patience", cfg.patience, 1)
    check_whole_number("score_window", cfg.score_window, 1)
    if cfg.average_decay is not None and not 0 < cfg.average_decay < 1:
        raise InputError(f"average_decay={cfg.average_decay}: must lie between 0 and 1, or be null for no mean")
    scheduled = [
        model for model in (cfg.model, *cfg.references.values()) if model.get("schedule", "constant") != "constant"
    ]
    if scheduled and not cfg.trainer.max_steps > 0:
        raise InputError(f"trainer.max_steps={cfg.trainer.max_steps}: a schedule needs a number of steps")
    given: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    check_arguments({k: v for k, v in given["data"].items() if k not in NOT_OF_THE_DATA_MODULE}, GridDataModule, "data")
    check_whole_number("data.num_workers", cfg.data.num_workers, 0)
    _check_model(given["model"], "model")
    for name, model in given["references"].items():
        _check_model(model, f"references.{name}")
    if "dilution" in cfg:
        dilution_settings(cfg.dilution)


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuse what is of another type, and what Lightning would take and this package doesn't do."""
    interval = trainer["val_check_interval"]
    if not isinstance(interval, int | float) or not interval > 0:
        raise InputError(f"trainer.val_check_interval={interval}: must be above 0")
    if trainer["precision"] not in PRECISIONS:
        raise InputError(
            f"trainer.precision={trainer['precision']}: not supported, weights and scores are float32; take 32-true, "
            "or bf16-mixed for faster products"
        )
    for name, remedy in UNSUPPORTED.items():
        value = trainer.get(name)
        if value == 0 if name == "limit_val_batches" else value:
            raise InputError(f"trainer.{name}={str(value).lower()}: not supported, {remedy}")
    check_arguments(dict(trainer), L.Trainer, "trainer")


def _check_model(model: Mapping[str, Any], group: str) -> None:
    check_arguments(dict(model), MethylationModule, group)
    network = getattr(networks, model["network"], None)
    if network is not None:  # what there is not, the module refuses
        check_arguments(dict(model), network, group)
    if not 1 <= model.get("longest_kmer", 1) <= LONGEST_KMER:
        raise InputError(f"{group}.longest_kmer={model['longest_kmer']}: must be 1 … {LONGEST_KMER}")
