"""Predict methylation from expression: ``python -m methyl_lightning.predict checkpoint=… expression=… output=…``."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from methyl_lightning.command.run import run_command
from methyl_lightning.command.settings import check_arguments
from methyl_lightning.files import InputError
from methyl_lightning.model.card import describe
from methyl_lightning.model.checkpoint import export_folder, load_checkpoint
from methyl_lightning.predict.output import predict_to_file
from methyl_lightning.predict.prediction import prepared

NEEDED = ("checkpoint", "expression", "output")


def predict(cfg: DictConfig) -> None:
    """Predict into a file, or print the card of a checkpoint, or export it."""
    if cfg.describe is not None:
        print(describe(load_checkpoint(cfg.describe)))
        return
    if cfg.export is not None and cfg.checkpoint is not None:
        export_folder(cfg.checkpoint, cfg.export)
        print(f"exported: {cfg.export}")
        return
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    for name in ("describe", "export"):
        settings.pop(name)
    for name in NEEDED:
        if settings[name] is None:
            raise InputError(f"{name}=: is not given; needed are {'=, '.join(NEEDED)}= (see --help)")
    for called in (predict_to_file, prepared):
        check_arguments(settings, called, "", HydraConfig.get().overrides.task)
    inputs = [settings.pop(name) for name in ("output", "checkpoint", "expression", "cpgs")]
    print("\n".join(predict_to_file(*inputs, **settings)))


if __name__ == "__main__":
    run_command(predict, "predict")
