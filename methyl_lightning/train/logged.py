"""What a test has found → loggers, so that a sweep sorts and draws itself.

W&B gets test metrics as scalars of the summary, the dilution over ``dilution/retention``, figures, tables and charts of
its own, and, as artifacts, the report and the model, made from the store.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from lightning.pytorch.loggers import Logger, WandbLogger

from methyl_lightning.data.splits import HEADLINE
from methyl_lightning.dilution.run import DILUTED
from methyl_lightning.files import replacing
from methyl_lightning.metrics.names import HEADINGS, MAIN
from methyl_lightning.model.card import describe
from methyl_lightning.model.checkpoint import load_checkpoint
from methyl_lightning.report.page import Results, extremes, gather, write_report
from methyl_lightning.report.scalars import dilution_levels, dilution_scores, short_name, summary_scalars
from methyl_lightning.train.tracking import run_of


def log_test(loggers: list[Logger], folder: Path) -> None:
    """Log what a run's test has found: scalars of the summary, tables, figures, the report and the model."""
    run = run_of(loggers)
    if run is None:
        return
    run.summary.update(summary_scalars(folder))
    page = folder / "report.html"
    figures = write_report(str(folder), page)
    shown: dict[str, Any] = {f"report/{p.stem.rpartition('_')[2]}": wandb.Image(str(p)) for p in figures.glob("*.png")}
    for results in gather(str(folder)):
        shown |= {f"report/{name}": value for name, value in (*_tables(results), *_charts(results))}
    run.log(shown)
    _use_store(run)
    card = folder / "card.txt"
    with replacing(card, "card") as temporary:
        temporary.write_text(describe(load_checkpoint(folder / "best.ckpt")) + "\n")
    for kind, files in (("report", [page]), ("model", [folder / "best.ckpt", card, folder / "metrics.json"])):
        artifact = wandb.Artifact(f"{kind}-{run.id}", type=kind, metadata={"provenance": run.config["provenance"]})
        for file in files:
            artifact.add_file(str(file), policy="immutable", skip_cache=True)
        run.log_artifact(artifact)


def _tables(results: Results) -> Iterator[tuple[str, wandb.Table]]:
    tables = {"results": results.scores, "strata": results.strata, "comparisons": results.comparisons}
    tables["best_and_worst_cpgs"] = extremes(results, results.test_set.models[0].label)
    yield from ((name, wandb.Table(dataframe=table)) for name, table in tables.items() if len(table))


def _charts(results: Results) -> Iterator[tuple[str, Any]]:
    """Give charts that W&B draws itself: the models side by side, and the own model's correlation CpG by CpG."""
    headline = results.scores[results.scores["view"] == HEADLINE]
    for metric in MAIN:
        rows = headline.loc[headline["metric"] == metric, ["model", "value"]].dropna()
        if len(rows):
            title = f"{HEADINGS[metric]}, {short_name(HEADLINE)}"
            yield f"{metric}_of_models", wandb.plot.bar(wandb.Table(dataframe=rows), "model", "value", title)
    correlations = results.cpgs[results.test_set.models[0].label][["pearson"]].dropna()
    if len(correlations):
        table = wandb.Table(dataframe=correlations)
        yield "correlation_of_cpgs", wandb.plot.histogram(table, "pearson", "correlation across samples, by CpG")


def _use_store(run: Any) -> None:
    """Name the store as the run's input: an artifact with its provenance, the same for all runs on the same store."""
    provenance = dict(run.config["provenance"])
    provenance.pop("split")  # the run's own
    store = wandb.Artifact(f"store-{run.config['data']['name']}", type="store", metadata=provenance)
    with store.new_file("provenance.json") as file:
        json.dump(provenance, file, indent=1, sort_keys=True)
    if run.offline:  # use_artifact refuses, though what it calls is kept and sent by wandb sync
        run._log_artifact(store, is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(store)


def log_dilution(loggers: list[Logger], summary: pd.DataFrame, folder: Path) -> None:
    """Log a dilution test, as :func:`methyl_lightning.dilution.run.summarise` returns it, over the level."""
    run = run_of(loggers)
    for step, level in enumerate(dilution_levels(summary)):
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.log(level)
            else:
                logger.log_metrics(level, step=step)
    if run is not None:
        for _, row in summary[summary["test"] != DILUTED].iterrows():
            name = f"dilution_{row['test'].replace(' ', '_')}"
            run.summary.update({f"{name}/{key}": value for key, value in dilution_scores(row).items()})
        figures = (folder / "figures").glob("dilution_*.png")
        shown: dict[str, Any] = {f"report/{path.stem}": wandb.Image(str(path)) for path in figures}
        run.log(shown | {"report/dilution": wandb.Table(dataframe=summary)})
