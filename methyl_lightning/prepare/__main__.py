"""Turn raw files into a store, or say what a store holds: ``python -m methyl_lightning.prepare data=tcga_xena …``."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from methyl_lightning.command.run import run_command
from methyl_lightning.command.settings import Settings
from methyl_lightning.prepare.stores import check_store, download_files, prepare_store


class CohortSettings(Settings):
    """What a file of conf/data holds, as far as a store is made by it."""

    name: str
    store: str
    source: dict[str, Any]


class PrepareSettings(Settings):
    """What conf/prepare.yaml holds."""

    check: str | None
    download: bool
    data: CohortSettings


def prepare(cfg: DictConfig) -> None:
    """Prepare the store that the configuration describes, or look at the one that ``check`` names."""
    settings = PrepareSettings.of(cfg, HydraConfig.get().overrides.task)
    if settings.check is not None:
        check_store(settings.check)
        return
    if settings.download:
        download_files(cfg.data)
    prepare_store(cfg.data)


if __name__ == "__main__":
    run_command(prepare, "prepare")
