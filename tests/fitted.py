"""Networks fitted to a small store, and what they are given."""

import torch

from methyl_lightning.data.batches import read_cpgs, read_expression
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.interpret.interpretation import Trained
from methyl_lightning.interpret.knockout import Expression
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.networks import CpgFeatures


def trained(name: str, data: GridDataModule, **settings: object) -> Trained:
    """Fit a network in closed form, or give one with random weights the statistics of the data."""
    torch.manual_seed(0)
    module = MethylationModule(name, len(data.store.genes), data.store.window, expression_scaling="zscore", **settings)
    module.fit_statistics(data)
    if not module.network.closed_form:
        module.network.train()
        cpgs, samples = inputs(data, module)
        with torch.no_grad():
            for _ in range(20):
                module.network(cpgs, samples.expression_SG)
    return Trained(name, module.eval(), data.store, data.split)


def inputs(data: GridDataModule, module: MethylationModule) -> tuple[CpgFeatures, Expression]:
    """Read 30 CpGs and 12 samples."""
    train_SG = module.scaler(data.train_expression())
    own_SG = module.scaler(read_expression(data.store, data.split.sample["train"][:12]))
    cpgs = read_cpgs(data.store, data.split.cpg["train"][:30])
    return cpgs, Expression(own_SG, train_SG.mean(0), train_SG.std(0, correction=0))
