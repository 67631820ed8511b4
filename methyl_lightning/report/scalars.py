"""What a run has found, under the names that W&B has it by, such as ``test/unseen_unseen/mas_pcc``."""

import math
from pathlib import Path

import pandas as pd

from methyl_lightning.data.texts import read_json
from methyl_lightning.dilution.run import DILUTED, SCORES
from methyl_lightning.evaluate.table import read_metrics, references
from methyl_lightning.metrics.names import MAIN

SEEN = {"train": "seen", "test": "unseen"}
SIDES = ("", "_low", "_high")
RETENTION = "dilution/retention"


def short_name(view: str) -> str:
    """Name a view as in ``unseen_unseen``: CpGs, then patients."""
    cpgs, samples = (part.split("_")[0] for part in view.split("-"))
    return f"{SEEN[cpgs]}_{SEEN[samples]}"


def summary_scalars(folder: Path) -> dict[str, float]:
    """Read the test of a run and of its references, with both ends of each interval, and what training took."""
    usage = folder / "usage.json"
    found = {f"cost/{name}": value for name, value in (read_json(usage) if usage.is_file() else {}).items()}
    for path in (folder, *references(folder)):
        group = "test" if path == folder else f"references/{path.name}"
        for view, metrics in read_metrics(path).items():
            for metric in MAIN:
                values = (metrics[metric], *metrics[f"{metric}_ci95"])
                names = (f"{group}/{short_name(view)}/{metric}{side}" for side in SIDES)
                found |= {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return found


def dilution_levels(summary: pd.DataFrame) -> list[dict[str, float]]:
    """Give each diluted row of a summary, as :func:`methyl_lightning.dilution.run.summarise` returns it.

    The first way of matching has the plain names, so that runs with one way and with several are drawn together.
    """
    diluted = summary[summary["test"] == DILUTED]
    ways = list(diluted["match"].unique())
    rows = []
    for _, row in diluted.iterrows():
        names = ["dilution"] * (row["match"] == ways[0]) + [f"dilution/{row['match']}"] * (len(ways) > 1)
        level = {RETENTION: float(row["retention"])}
        rows.append(level | {f"{name}/{key}": value for name in names for key, value in dilution_scores(row).items()})
    return rows


def dilution_scores(row: pd.Series) -> dict[str, float]:
    """Give the scores of a row of the summary and both ends of their intervals, where they are defined."""
    values = {f"{key}{side}": float(row[f"{key}{side}"]) for key in SCORES for side in SIDES}
    return {name: value for name, value in values.items() if not math.isnan(value)}
