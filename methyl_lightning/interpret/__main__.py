"""Interpret trained networks: ``python -m methyl_lightning.interpret checkpoint=RUN/best.ckpt``."""

from pathlib import Path
from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from methyl_lightning.command.run import run_command
from methyl_lightning.command.settings import check_whole_number, typed_settings
from methyl_lightning.interpret.interpretation import (
    interpret_networks,
    load_trained,
    write_interpretation,
)
from methyl_lightning.interpret.logged import log_interpretation
from methyl_lightning.interpret.selection import Settings
from methyl_lightning.report.runs import INTERPRETATION

LEAST = {"most_cpgs": 2, "most_samples": 2, "exact": 0, "top": 1, "seed": 0}


class Places(NamedTuple):
    """What conf/interpret.yaml holds beside :class:`Settings`."""

    checkpoint: str | list[str]
    store: str | None
    split_file: str | None
    output: str | None


def interpret(cfg: DictConfig) -> None:
    """Write tables, figures and sentences about what checkpoints of one cohort go by."""
    typed = HydraConfig.get().overrides.task
    checkpoint, store, split_file, output = typed_settings(cfg, Places, typed)
    settings = typed_settings(cfg, Settings, typed)
    for name, least in LEAST.items():
        check_whole_number(name, getattr(settings, name), least)
    checkpoints = [Path(one) for one in (checkpoint if isinstance(checkpoint, list) else [checkpoint])]
    trained = [load_trained(one, store, split_file) for one in checkpoints]
    made = interpret_networks(trained, settings)
    folder = Path(output) if output else checkpoints[0].parent / INTERPRETATION
    write_interpretation(made, folder, [one.name for one in trained])
    print("\n".join([*made.sentences, f"interpretation: {folder}"]))
    log_interpretation(cfg.logger, made, folder, trained, settings._asdict())


if __name__ == "__main__":
    run_command(interpret, "interpret")
