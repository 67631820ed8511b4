"""Hold every method of interpretation against what simulated cohorts were planted with, over seeds.

usage: python -m experiments.interpretation [--seeds 5] [--steps 300] [--folder outputs/interpretation]

A seed makes the cohort, the split and the weights. Effects are as in real cohorts, or so strong that they can be found.
The control is trained on labels permuted over samples, for each CpG anew: what it "recovers" is what a method says of
a network that has learnt nothing of samples. Finished runs are not repeated.
"""

import argparse
from itertools import product
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import torch

from experiments.interpretation.tables import write_tables
from experiments.trainer import quiet_trainer
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.data.splits import HEADLINE
from methyl_lightning.data.store import Store, write_store
from methyl_lightning.interpret.interpretation import Trained, interpret_networks
from methyl_lightning.interpret.selection import Settings
from methyl_lightning.metrics.scores import mae, mas_pcc
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.prepare.simulated import simulate

COHORT = {"n_cpgs": 1200, "n_patients": 150, "n_genes": 150, "window": 120}
NETWORKS = {"MethylationFactors": {"expression_scaling": "none"}, "BilinearRidge": {}, "LevyJurgenson": {}}
LABELS = {"strong": 4.0, "as real": 1.0, "permuted": 4.0}  # how strongly what is planted acts
READ = Settings(most_cpgs=500, most_samples=80, mutate=30, exact=10)


def make_cohort(folder: Path, labels: str, seed: int) -> Path:
    """Simulate a cohort, or give the labels of each CpG to other samples; the truth lies beside it."""
    path = folder / f"effects{LABELS[labels]:g}_{seed}.h5"
    if not path.is_file():
        simulate(path, **COHORT, effects=LABELS[labels], seed=seed)
    if labels != "permuted":
        return path
    other, store = folder / f"permuted_{seed}.h5", Store(path)
    beta_CS = store.beta(np.arange(len(store.cpgs)), np.arange(len(store.samples)))
    write_store(
        other,
        cpgs=store.cpgs,
        sequence_CL=store.sequence_CL,
        genes=store.genes,
        samples=store.samples,
        distances=store.distances,
        expression_SG=store.expression_SG,
        beta_CS=np.random.default_rng(seed).permuted(beta_CS, axis=1),
        units=store.attributes["units"],
        assembly=store.attributes["assembly"],
        provenance=store.attributes["provenance"],
        annotation_CP=store.annotation_CP,
    )
    return other


def train(network: str, data: GridDataModule, seed: int, steps: int) -> MethylationModule:
    """Fit a network to the training view, for so many steps where it is not fitted in closed form."""
    L.seed_everything(seed, verbose=False)
    sizes = {"n_genes": len(data.store.genes), "window": data.store.window}
    module = MethylationModule(network, **sizes, **NETWORKS[network])
    if module.network.closed_form:
        module.fit_statistics(data)
    else:
        quiet_trainer(steps).fit(module, data)
    return module.eval()


def run(folder: Path, network: str, labels: str, seed: int, steps: int) -> pd.DataFrame:
    """Train and interpret one network: its recoveries, with its scores on unseen CpGs × unseen patients."""
    data = GridDataModule(str(make_cohort(folder, labels, seed)), seed=seed)
    module = train(network, data, seed, steps)
    made = interpret_networks([Trained(network, module, data.store, data.split)], READ._replace(seed=seed))
    view = data.split.view(HEADLINE)
    measured_CS, predicted_CS = data.store.beta(*view), predict_grid(module, data.store, *view)
    scores = {"mae": mae(measured_CS, predicted_CS), "mas_pcc": mas_pcc(measured_CS, predicted_CS)}
    return made.tables["recovery"].assign(network=network, labels=labels, seed=seed, **scores)


def main() -> None:
    """Run what is missing, then write the tables and the figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=Path("outputs/interpretation"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for network, labels, seed in product(NETWORKS, LABELS, range(given.seeds)):
        path = given.folder / f"{network}_{labels.replace(' ', '_')}_{seed}.csv"
        if not path.is_file():
            run(given.folder, network, labels, seed, given.steps).to_csv(path, index=False)
            print(path, flush=True)
        tables.append(pd.read_csv(path))
    table = pd.concat(tables, ignore_index=True)
    here = Path(__file__).parent
    # a run's own verdict knows no control
    table.drop(columns="verdict").round(4).to_csv(here / "recovery.csv", index=False)
    write_tables(table, here)


if __name__ == "__main__":
    main()
