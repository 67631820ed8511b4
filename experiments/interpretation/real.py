"""Interpret networks of a real cohort over seeds, each with a split of its own, and say what they share.

usage: python -m experiments.interpretation.real STORE … [--networks BilinearRidge …] [--seeds 3] [--steps 150]
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

from experiments.interpretation.__main__ import NETWORKS, train
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.interpret.interpretation import Trained, interpret_networks
from methyl_lightning.interpret.selection import Settings

READ = Settings(most_cpgs=300, most_samples=100, mutate=5, exact=10)
NAMED = ("NODAL", "HAND1")  # of the original work
TOP = 10


def rank_line(genes: pd.DataFrame, name: str) -> str:
    """Say where a gene stands by knock-out."""
    place = genes["symbol"].tolist().index(name) + 1 if (genes["symbol"] == name).any() else None
    return f"{name}: {f'{place:,} of {len(genes):,}' if place else 'not in the data'}"


def main() -> None:
    """Print what is stable, the top genes and the ranks of those that the original work names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stores", nargs="+", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for store in given.stores:
        for network in given.networks:
            trained = []
            for seed in range(given.seeds):
                data = GridDataModule(str(store), seed=seed)
                trained.append(Trained(str(seed), train(network, data, seed, given.steps), data.store, data.split))
            made = interpret_networks(trained, READ)
            genes = made.tables["genes"]
            print(f"## {store.stem}, {network}, {given.seeds} seeds\n", *made.sentences, sep="\n")
            if "filters" in made.tables:
                print("filters:", made.tables["filters"].head(TOP).to_string(index=False), sep="\n")
            print("top genes:", ", ".join(genes["symbol"].head(TOP)))
            print("; ".join(rank_line(genes, name) for name in NAMED), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
