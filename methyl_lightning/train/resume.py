"""A run that goes on: with the settings that it has, but for its length, its machine and its loggers."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile, copytree
from typing import Any
from zipfile import is_zipfile

import lightning as L
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from omegaconf import DictConfig, OmegaConf, open_dict

from methyl_lightning.command.run import conf_folder
from methyl_lightning.command.run_folder import CONFIG, read_config
from methyl_lightning.data.store import Store
from methyl_lightning.data.texts import SUMS
from methyl_lightning.files import InputError, replacing
from methyl_lightning.model.checkpoint import read_resumable

CHOICES = "choices"  # of the settings' groups, kept in config.yaml
FREE_GROUPS = ("trainer", "logger")
FREE = ("ckpt_path", "patience", "data.store", "data.num_workers")
BEST, LOGS = "best.ckpt", "log"


def resumed(cfg: DictConfig, typed: list[str], choices: dict[str, Any]) -> DictConfig:
    """Return the settings of the run whose ``ckpt_path`` goes on, with what may be changed as it was typed now.

    Parameters
    ----------
    cfg
        What the typed settings compose to.
    typed
        The typed settings themselves.
    choices
        The choice of each group that they make.

    Raises
    ------
    InputError
        If there is nothing to go on from, or a typed setting differs from the run's.
    """
    checkpoint = Path(str(cfg.ckpt_path))
    if not is_zipfile(checkpoint):  # what torch writes is a zip file, complete only with its end
        raise InputError(f"{checkpoint}: no such checkpoint, or truncated; training writes last.ckpt into its folder")
    read_resumable(checkpoint)
    run = _read_config(checkpoint.parent / CONFIG)
    had = run.trainer.max_steps
    for override in OverridesParser.create().parse_overrides(typed):
        _apply(run, cfg, override, choices)
    if had != run.trainer.max_steps and run.model.get("schedule", "constant") != "constant":
        _refuse(run, f"trainer.max_steps={run.trainer.max_steps}", f"max_steps={had}, where its schedule ends")
    run.ckpt_path = str(checkpoint)
    return run


def continue_in(folder: Path, checkpoint: Path) -> None:
    """Bring what a run has so far into the folder in which it goes on, where that is another.

    Raises
    ------
    InputError
        If the best checkpoint so far is missing beside the last.
    """
    if not (checkpoint.parent / BEST).is_file():
        raise InputError(f"{checkpoint.parent / BEST}: missing; a run goes on from last.ckpt with {BEST} beside it")
    (folder / SUMS).unlink(missing_ok=True)  # from now on its files change
    if folder.resolve() != checkpoint.parent.resolve():
        with replacing(folder / BEST, "checkpoint") as temporary:
            copyfile(checkpoint.parent / BEST, temporary)
        if (checkpoint.parent / LOGS).is_dir():
            copytree(checkpoint.parent / LOGS, folder / LOGS, dirs_exist_ok=True)


def check_same_store(store: Store, checkpoint: Path) -> None:
    """Refuse to go on with other data.

    Raises
    ------
    InputError
        If the store is not the one that the checkpoint was trained on, or a copy.
    """
    had = read_resumable(checkpoint)["methyl_lightning"]["provenance"]["source"]
    if had != store.attributes["provenance"]:
        raise InputError(f"{store.path}: is not the store of this run; name its store with data.store=FILE")


class RunCheckpoint(ModelCheckpoint):
    """Keeps its scores when the run folder has been renamed or copied."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back the scores; paths are those of this folder."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        moved = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        scores = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": scores, "dirpath": self.dirpath})


class RunStopping(EarlyStopping):
    """Early stopping of a run that may go on: one that had stopped does not train on, unless patience is raised."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back the course so far, with the patience of now."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the fit before its first step where it had ended."""
        trainer.should_stop = self.wait_count >= self.patience


def _read_config(path: Path) -> DictConfig:
    """Read the settings of a run, which must call nothing but what this package does."""
    run = read_config(path, (CHOICES, "trainer.max_steps", "data.store", "data.name", "model.network"))
    known = {
        str(target) for file in conf_folder().rglob("*.yaml") for target in _targets(yaml.safe_load(file.read_text()))
    }
    for target in _targets(OmegaConf.to_container(run)):
        if target not in known and not str(target).startswith("lightning.pytorch.loggers."):
            raise InputError(f"{path}: names {target!r}, which no setting of this package does; it is not called")
    return run


def _targets(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from (item for key, item in value.items() if key == "_target_")
        for item in value.values():
            yield from _targets(item)
    elif isinstance(value, list):
        for item in value:
            yield from _targets(item)


def _apply(run: DictConfig, cfg: DictConfig, override: Override, choices: dict[str, Any]) -> None:
    """Take one typed setting over into the run's, or refuse it."""
    key = override.key_or_group
    if (conf_folder() / key).is_dir():
        group = f"{key}@{override.package}" if override.package else key
        if group == "logger":
            run.logger = cfg.logger
        elif group == "trainer":
            run.trainer = OmegaConf.merge(run.trainer, _own_settings(key, choices[group]))
        elif override.is_delete() or run[CHOICES].get(group) != choices.get(group):
            _refuse(run, f"{group}={choices.get(group)}", run[CHOICES].get(group))
        run[CHOICES][group] = choices.get(group)
        return
    had, now = (_plain(settings, key) for settings in (run, cfg))
    if had == now:
        return
    if key.split(".")[0] not in FREE_GROUPS and key not in FREE:
        _refuse(run, f"{key}={'(left out)' if override.is_delete() else now}", had)
    with open_dict(run):
        if override.is_delete():
            parent, _, name = key.rpartition(".")
            OmegaConf.select(run, parent).pop(name, None)
        else:
            OmegaConf.update(run, key, now, force_add=True)


def _own_settings(group: str, choice: str) -> dict[str, Any]:
    settings = yaml.safe_load((conf_folder() / group / f"{choice}.yaml").read_text())
    settings.pop("defaults", None)
    return settings


def _plain(settings: DictConfig, key: str) -> Any:
    value = OmegaConf.select(settings, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _refuse(run: DictConfig, typed: str, had: Any) -> None:
    may = ", ".join([*(f"{group}.*" for group in FREE_GROUPS), *FREE[1:]])
    raise InputError(f"{typed}: the run has {had}, and goes on as it began; only {may} may change, or start a new run")
