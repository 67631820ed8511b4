"""An interpretation → W&B: its sentences, tables and figures, and, as an artifact, all that was written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb
from omegaconf import DictConfig

from methyl_lightning.interpret.interpretation import Interpretation, Trained
from methyl_lightning.train.fit import build_loggers
from methyl_lightning.train.tracking import finish_wandb, run_of


def log_interpretation(
    chosen: DictConfig, made: Interpretation, folder: Path, trained: Sequence[Trained], settings: dict[str, Any]
) -> None:
    """Tell the loggers that were chosen what was written into a folder."""
    failed = True
    try:
        first, names = trained[0], [one.name for one in trained]
        tags = [first.store.path.stem, type(first.module.network).__name__]
        named = {"name": f"interpret {Path(first.name).parent.name}", "job_type": "interpret", "tags": tags}
        run = run_of(build_loggers(chosen, folder, named))
        if run is not None:
            run.config.update({"checkpoint": names, **settings})
            # the artifact has the rows that W&B would cut off with a warning
            tables = {name: table.head(wandb.Table.MAX_ROWS) for name, table in made.tables.items()}
            shown: dict[str, Any] = {name: wandb.Table(dataframe=table) for name, table in tables.items()}
            shown |= {f"figure_{name}": wandb.Image(str(folder / f"{name}.png")) for name in made.figures}
            shown["sentences"] = wandb.Table(columns=["sentence"], data=[[sentence] for sentence in made.sentences])
            run.log({f"interpretation/{name}": value for name, value in shown.items()})
            artifact = wandb.Artifact(f"interpretation-{run.id}", type="interpretation")
            for file in sorted(path for path in folder.iterdir() if path.is_file()):
                artifact.add_file(str(file), policy="immutable", skip_cache=True)
            run.log_artifact(artifact)
        failed = False
    finally:
        finish_wandb(failed)
