"""Predict methylation from expression: ``python -m methyl_lightning.predict checkpoint=… expression=… output=…``."""

from typing import Annotated, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pydantic import Field

from methyl_lightning.command.run import run_command
from methyl_lightning.command.settings import typed_settings
from methyl_lightning.files import InputError
from methyl_lightning.model.card import describe
from methyl_lightning.model.checkpoint import export_folder, load_checkpoint
from methyl_lightning.predict.output import predict_to_file

NEEDED = ("checkpoint", "expression", "output")


class PredictSettings(NamedTuple):
    """What conf/predict.yaml holds."""

    checkpoint: str | None
    expression: str | None
    output: str | None
    cpgs: str | list[str]
    genome: str | None
    layer: str | None
    genes: str | None
    units: str | None
    match: str | None
    label: str | None
    groupby: str | None
    describe: str | None
    export: str | None
    aggregate: str
    raw: bool
    skip_empty: bool
    intervals: bool
    min_coverage: Annotated[float, Field(ge=0, le=1)]
    k: Annotated[int, Field(ge=1)]


def predict(cfg: DictConfig) -> None:
    """Predict into a file, or print the card of a checkpoint, or export it."""
    settings = typed_settings(cfg, PredictSettings, HydraConfig.get().overrides.task)._asdict()
    describe_path, folder = settings.pop("describe"), settings.pop("export")
    if describe_path is not None:
        print(describe(load_checkpoint(describe_path)))
        return
    if folder is not None and settings["checkpoint"] is not None:
        export_folder(settings["checkpoint"], folder)
        print(f"exported: {folder}")
        return
    for name in NEEDED:
        if settings[name] is None:
            raise InputError(f"{name}=: is not given; needed are {'=, '.join(NEEDED)}= (see --help)")
    inputs = [settings.pop(name) for name in ("output", "checkpoint", "expression", "cpgs")]
    print("\n".join(predict_to_file(*inputs, **settings)))


if __name__ == "__main__":
    run_command(predict, "predict")
