"""Turn raw files into a store, or say what a store holds: ``python -m methyl_lightning.prepare data=tcga_xena …``."""

from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from methyl_lightning.command.run import run_command
from methyl_lightning.command.settings import typed_settings
from methyl_lightning.prepare.stores import check_cohort, check_store, download_files, prepare_store


class PrepareSettings(NamedTuple):
    """What conf/prepare.yaml holds beside the cohort."""

    check: str | None
    download: bool


def prepare(cfg: DictConfig) -> None:
    """Prepare the store that the configuration describes, or look at the one that ``check`` names."""
    settings = typed_settings(cfg, PrepareSettings, HydraConfig.get().overrides.task)
    if settings.check is not None:
        check_store(settings.check)
        return
    check_cohort(cfg.data)
    if settings.download:
        download_files(cfg.data)
    prepare_store(cfg.data)


if __name__ == "__main__":
    run_command(prepare, "prepare")
