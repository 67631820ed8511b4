"""Predict a view: every CpG and every sample is encoded once, then the blocks are combined.

Legend: C CpGs, S samples.
"""

from typing import Any

import anndata
import numpy as np
import torch
from torch import distributed

from methyl_lightning import __version__
from methyl_lightning.datamodule import chunks, read_cpgs, read_expression
from methyl_lightning.module import MethylationModule
from methyl_lightning.store import Store


@torch.inference_mode()
def predict_grid(
    module: MethylationModule, store: Store, cpg_C: np.ndarray, sample_S: np.ndarray, block: tuple[int, int] = (64, 256)
) -> np.ndarray:
    """Predict float32 [C, S] for rows of a store.

    When several processes run, each takes every so-manieth block of CpGs and all get the whole.

    Parameters
    ----------
    module
        Trained module; it is put into evaluation mode.
    store
        Where sequences, distances and expression are read.
    cpg_C, sample_S
        Rows of the store.
    block
        Largest number of CpGs and of samples that are combined at once.
    """
    module.eval()
    network, device = module.network, module.device
    parallel = distributed.is_available() and distributed.is_initialized()
    rank, ranks = (distributed.get_rank(), distributed.get_world_size()) if parallel else (0, 1)
    samples = [
        network.encode_samples(module.scaler(read_expression(store, rows).to(device)))
        for rows in chunks(sample_S, block[1])
    ]
    cpg_chunks = chunks(np.arange(len(cpg_C)), block[0])
    mine = {}
    for i in range(rank, len(cpg_chunks), ranks):
        features = read_cpgs(store, cpg_C[cpg_chunks[i]])
        cpgs = network.encode_cpgs(type(features)(*(part.to(device) for part in features)))
        mine[i] = torch.cat([network.combine(cpgs, part).float().cpu() for part in samples], dim=1).numpy()
    everyones: list[dict[int, np.ndarray]] = [mine]
    if parallel:
        everyones = [{} for _ in range(ranks)]
        distributed.all_gather_object(everyones, mine)
    parts = {i: part for owned in everyones for i, part in owned.items()}
    return np.concatenate([parts[i] for i in range(len(cpg_chunks))])


def to_anndata(
    store: Store, cpg_C: np.ndarray, sample_S: np.ndarray, predicted_CS: np.ndarray, measured_CS: np.ndarray, **uns: Any
) -> anndata.AnnData:
    """Lay a predicted view out as AnnData: obs samples, var CpGs, X predicted, layer ``measured`` (NaN missing)."""
    obs = store.samples.iloc[sample_S].set_index("id").astype("category")
    var = store.cpgs.iloc[cpg_C].set_index("id").astype({"chrom": "category"})
    return anndata.AnnData(
        X=np.ascontiguousarray(predicted_CS.T),
        obs=obs,
        var=var,
        layers={"measured": np.ascontiguousarray(measured_CS.T)},
        uns={"methyl_lightning": {"version": __version__, "assembly": store.attributes["assembly"], **uns}},
    )
