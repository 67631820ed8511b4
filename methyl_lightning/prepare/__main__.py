"""Turn raw files into a store, or say what a store holds: ``python -m methyl_lightning.prepare data=tcga_xena …``."""

from omegaconf import DictConfig

from methyl_lightning.command.run import run_command
from methyl_lightning.prepare.stores import check_store, download_files, prepare_store


def prepare(cfg: DictConfig) -> None:
    """Prepare the store that the configuration describes, or look at the one that ``check`` names."""
    if cfg.check is not None:
        check_store(str(cfg.check))
        return
    if cfg.download:
        download_files(cfg.data)
    prepare_store(cfg.data)


if __name__ == "__main__":
    run_command(prepare, "prepare")
