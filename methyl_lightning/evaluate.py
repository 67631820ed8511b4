"""Test a checkpoint again: ``python -m methyl_lightning.evaluate checkpoint=outputs/…/best.ckpt``."""

from pathlib import Path
from pickle import UnpicklingError

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from methyl_lightning.command import run_command
from methyl_lightning.evaluation import evaluate_ceiling, evaluate_model, print_table, results_table
from methyl_lightning.module import MethylationModule
from methyl_lightning.splits import load_split
from methyl_lightning.store import InputError, Store


def evaluate(cfg: DictConfig) -> None:
    """Predict the test views of the checkpoint's own split, write metrics and figures, print the table."""
    checkpoint = Path(cfg.checkpoint)
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: no such checkpoint; training writes best.ckpt into its run folder")
    config = checkpoint.parent / "config.yaml"
    if not config.is_file():
        raise InputError(f"{config}: no such file; a checkpoint is tested in its run folder, beside config.yaml")
    run = OmegaConf.load(config)
    store = Store(cfg.store or run.data.store)
    split = load_split(Path(cfg.split_file or checkpoint.parent / "split.json"), store)
    try:
        module = MethylationModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise InputError(f"{checkpoint}: truncated or not a checkpoint; take another one of the run") from error
    folder = Path(HydraConfig.get().runtime.output_dir)
    evaluate_model(module, store, split, folder, cfg.seed, str(checkpoint))
    evaluate_ceiling(store, split, folder / "references" / "ceiling", cfg.seed)
    print_table(results_table(folder, run.model.network, run.data.name), folder)
    print(f"run folder: {folder}")


if __name__ == "__main__":
    run_command(evaluate, "evaluate")
