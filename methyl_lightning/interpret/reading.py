"""One checkpoint, read on the CpGs and samples that were chosen: genes, filters and windows.

Legend: C CpGs, S samples, G genes, L bases, B classes of CpGs.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from methyl_lightning.data.batches import read_cpgs, read_expression
from methyl_lightning.data.splits import Split
from methyl_lightning.interpret.genes import GeneEffects, attentions
from methyl_lightning.interpret.knockout import Expression, knock_out, knock_out_set
from methyl_lightning.interpret.motifs import Filter, convolutions, read_filters
from methyl_lightning.interpret.mutagenesis import UNKNOWN, Track, insert, mutate
from methyl_lightning.interpret.selection import INSERT_AT, Chosen, Settings
from methyl_lightning.model.module import MethylationModule

FEW_SAMPLES, FEW_CPGS = 8, 100  # on which sequences are changed, as each change is predicted for all of them


class Read(NamedTuple):
    """What one checkpoint says."""

    effects: GeneEffects
    filters: list[Filter]
    tracks: list[Track]
    seconds: float


class Reader:
    """Reads one checkpoint on the rows that were chosen."""

    def __init__(self, module: MethylationModule, chosen: Chosen, split: Split, settings: Settings):
        # gradients by weights, which nobody wants, are half of the time that a knock-out takes
        self.network = module.network.requires_grad_(False)
        self.chosen, self.settings = chosen, settings
        self.cpgs = read_cpgs(chosen.store, chosen.cpg_C)
        train_SG = module.scaler(read_expression(chosen.store, split.sample["train"]))
        own_SG = module.scaler(read_expression(chosen.store, chosen.sample_S))
        self.samples = Expression(own_SG, train_SG.mean(0), train_SG.std(0, correction=0))
        few = np.linspace(0, len(chosen.sample_S) - 1, min(FEW_SAMPLES, len(chosen.sample_S))).round().astype(int)
        self.few_SG = own_SG[few]
        known_C = (chosen.store.sequence_CL[chosen.cpg_C] < UNKNOWN).any(axis=1)
        self.known_C = chosen.cpg_C[known_C]
        self.few_cpgs = read_cpgs(chosen.store, self.known_C[:: max(1, -(-len(self.known_C) // FEW_CPGS))])
        with torch.no_grad():
            self.encoded = self.network.encode_cpgs(self.cpgs)

    def read(self) -> Read:
        """Read genes, filters and windows."""
        start = time.perf_counter()
        shares_BC = self.chosen.groups.class_shares()
        knockout = knock_out(self.network, self.encoded, self.samples, shares_BC, self.settings.exact)
        seconds = time.perf_counter() - start
        attention = attentions(self.network, self.encoded, self.samples.expression_SG)
        filters = []
        if len(self.known_C) and convolutions(self.network):
            filters = read_filters(self.network, self.sequences(), self.few_cpgs, self.few_SG)
        windows = (read_cpgs(self.chosen.store, np.array([c])) for c in self.chosen.mutated_C)
        return Read(GeneEffects(attention, knockout), filters, mutate(self.network, windows, self.few_SG), seconds)

    def sequences(self) -> Tensor:
        """Read the windows of the CpGs that have one: [C, L]."""
        return torch.from_numpy(self.chosen.store.sequence_CL[self.known_C])

    def mean_beta(self) -> np.ndarray:
        """Predict the mean of each CpG over a few samples: [C]."""
        with torch.no_grad():
            return self.network.combine(self.encoded, self.network.encode_samples(self.few_SG)).mean(1).numpy()

    def insert(self, motifs: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Insert motifs into background windows; see :func:`methyl_lightning.interpret.mutagenesis.insert`."""
        start = self.few_cpgs.sequence_CL.shape[1] // 2 - 1 + INSERT_AT
        return insert(self.network, self.few_cpgs, self.few_SG, motifs, start)

    def knocked_out_set(self) -> pd.DataFrame:
        """Knock out genes together: mean |change| and mean change of each class of CpGs."""
        gene_N = self.chosen.knocked_G.tolist()
        change_CS = knock_out_set(self.network, self.encoded, self.samples, gene_N)
        classes = {"all": np.full(len(change_CS), True), **self.chosen.groups.classes}
        rows = [
            (name, int(members_C.sum()), np.abs(change_CS[members_C]).mean(), change_CS[members_C].mean())
            for name, members_C in classes.items()
        ]
        return pd.DataFrame(rows, columns=["cpgs", "n_cpgs", "knock_out", "change"]).assign(genes=len(gene_N))
