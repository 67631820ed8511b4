"""Interpret trainings of a real cohort over seeds, each with a split of its own, and say what they share.

usage: python -m experiments.interpretation.real RUNS … [--reference bilinear_ridge]

RUNS is the folder of a multirun over seeds; a reference is a model that was trained beside each of them.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

from methyl_lightning.interpret.interpretation import Trained, interpret_networks, load_trained
from methyl_lightning.interpret.selection import Settings
from methyl_lightning.model.checkpoint import load_checkpoint

READ = Settings(most_cpgs=300, most_samples=100, mutate=5, exact=50)
NAMED = ("NODAL", "HAND1")  # of the original work
TOP = 10


def load(runs: Path, reference: str | None) -> list[Trained]:
    """Load the trainings of a multirun, or a reference of each."""
    trained = [load_trained(checkpoint) for checkpoint in sorted(runs.glob("*/best.ckpt"))]
    if reference is None:
        return trained
    paths = [Path(one.name).parent / "references" / reference / "best.ckpt" for one in trained]
    return [one._replace(module=load_checkpoint(path)) for one, path in zip(trained, paths, strict=True)]


def rank_line(genes: pd.DataFrame, measures: list[str], name: str) -> str:
    """Say where a gene stands by each measure."""
    named = genes["symbol"] == name
    if not named.any():
        return f"{name}: not in the data"
    ranks = genes.loc[:, measures].rank(ascending=False)[named].iloc[0]
    best, worst = genes.loc[named, ["best_rank", "worst_rank"]].iloc[0]
    places = ", ".join(f"{rank:,.0f} by {measure}" for measure, rank in ranks.items())
    return f"{name}, of {len(genes):,}: {places} (knock-out from seed to seed: {best:,} to {worst:,})"


def main() -> None:
    """Print what is stable, the top genes and filters, and the ranks of genes that the original work names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--reference")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for runs in given.runs:
        trained = load(runs, given.reference)
        made = interpret_networks(trained, READ)
        genes = made.tables["genes"]
        network = type(trained[0].module.network).__name__
        print(f"## {trained[0].store.path.stem}, {network}, {len(trained)} seeds\n", *made.sentences, sep="\n")
        if "filters" in made.tables:
            print("filters:", made.tables["filters"].head(TOP).to_string(index=False), sep="\n")
        measures = made.tables["stability"]["measure"].tolist()
        for measure in measures:
            print(f"top by {measure}:", ", ".join(genes.nlargest(TOP, measure)["symbol"]))
        print(*(rank_line(genes, measures, name) for name in NAMED), sep="\n", end="\n\n", flush=True)


if __name__ == "__main__":
    main()
