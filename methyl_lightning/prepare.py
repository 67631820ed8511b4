"""Turn raw files into a store: ``python -m methyl_lightning.prepare data=tcga_xena …``."""

from omegaconf import DictConfig

from methyl_lightning.command import prepare_store, run_command


def prepare(cfg: DictConfig) -> None:
    """Prepare the store that the configuration describes."""
    prepare_store(cfg.data)


if __name__ == "__main__":
    run_command(prepare, "prepare")
