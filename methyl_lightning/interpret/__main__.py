"""Interpret trained networks: ``python -m methyl_lightning.interpret checkpoint=RUN/best.ckpt``."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from methyl_lightning.command.run import run_command
from methyl_lightning.command.settings import check_arguments, check_whole_number
from methyl_lightning.interpret.interpretation import (
    interpret_networks,
    load_trained,
    write_interpretation,
)
from methyl_lightning.interpret.logged import log_interpretation
from methyl_lightning.interpret.selection import Settings
from methyl_lightning.report.runs import INTERPRETATION

PLACES = ("checkpoint", "store", "split_file", "output")
LEAST = {"most_cpgs": 2, "most_samples": 2, "exact": 0, "top": 1, "seed": 0}


def interpret(cfg: DictConfig) -> None:
    """Write tables, figures and sentences about what checkpoints of one cohort go by."""
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    del settings["logger"]  # of the group
    checkpoint, store, split_file, output = (settings.pop(name) for name in PLACES)
    check_arguments(settings, Settings, "interpret")
    for name, least in LEAST.items():
        check_whole_number(name, settings[name], least)
    checkpoints = [Path(one) for one in (checkpoint if isinstance(checkpoint, list) else [checkpoint])]
    trained = [load_trained(one, store, split_file) for one in checkpoints]
    made = interpret_networks(trained, Settings(**settings))
    folder = Path(output) if output else checkpoints[0].parent / INTERPRETATION
    write_interpretation(made, folder, [one.name for one in trained])
    print("\n".join([*made.sentences, f"interpretation: {folder}"]))
    log_interpretation(cfg.logger, made, folder, trained, settings)


if __name__ == "__main__":
    run_command(interpret, "interpret")
