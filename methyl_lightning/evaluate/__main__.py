"""Test a checkpoint again: ``python -m methyl_lightning.evaluate checkpoint=outputs/…/best.ckpt``."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from methyl_lightning.command import run_command
from methyl_lightning.data.splits import save_split
from methyl_lightning.evaluate.evaluation import evaluate_ceiling, evaluate_model, load_run, save_data
from methyl_lightning.evaluate.table import print_table, results_table


def evaluate(cfg: DictConfig) -> None:
    """Predict the test views of the checkpoint's own split, write metrics and figures, print the table."""
    checkpoint = Path(cfg.checkpoint)
    module, store, split, run = load_run(checkpoint, cfg.store, cfg.split_file)
    folder = Path(HydraConfig.get().runtime.output_dir)
    OmegaConf.save(run, folder / "config.yaml", resolve=True)
    save_split(split, store, folder / "split.json")
    save_data(store, folder)
    evaluate_model(module, store, split, folder, cfg.seed, str(checkpoint))
    evaluate_ceiling(store, split, folder / "references" / "ceiling", cfg.seed)
    print_table(results_table(folder, run.model.network, run.data.name), folder)
    print(f"run folder: {folder}")


if __name__ == "__main__":
    run_command(evaluate, "evaluate")
