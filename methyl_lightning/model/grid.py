"""Predict a view: every CpG and every sample is encoded once, then the blocks are combined.

Legend: C CpGs, S samples, G genes.
"""

from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from torch import Tensor, distributed

from methyl_lightning import __version__
from methyl_lightning.data.datamodule import chunks, read_cpgs, read_expression
from methyl_lightning.data.distances import nearest_gene
from methyl_lightning.data.store import Distances, Store
from methyl_lightning.model.module import MethylationModule

BLOCK = (64, 256)  # largest number of CpGs and of samples that are combined at once


@torch.inference_mode()
def encode_cpgs(module: MethylationModule, store: Store, cpg_C: np.ndarray) -> Any:
    """Encode CpGs of a store on the module's device."""
    features = read_cpgs(store, cpg_C)
    return module.network.encode_cpgs(type(features)(*(part.to(module.device) for part in features)))


@torch.inference_mode()
def encode_samples(module: MethylationModule, scaled_SG: Tensor, size: int = BLOCK[1]) -> list[Any]:
    """Encode samples from scaled expression, in chunks of at most ``size``, on the module's device."""
    rows = chunks(np.arange(len(scaled_SG)), size)
    return [module.network.encode_samples(scaled_SG[part].to(module.device)) for part in rows]


@torch.inference_mode()
def combine(module: MethylationModule, cpgs: Any, samples: list[Any]) -> np.ndarray:
    """Combine encoded CpGs with chunks of encoded samples: float32 [C, S]."""
    return torch.cat([module.network.combine(cpgs, part).float().cpu() for part in samples], dim=1).numpy()


def predict_grid(
    module: MethylationModule, store: Store, cpg_C: np.ndarray, sample_S: np.ndarray, block: tuple[int, int] = BLOCK
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
    parallel = distributed.is_available() and distributed.is_initialized()
    rank, ranks = (distributed.get_rank(), distributed.get_world_size()) if parallel else (0, 1)
    samples: list[Any] = []
    for rows in chunks(sample_S, block[1]):
        samples += encode_samples(module, module.scaler(read_expression(store, rows).to(module.device)))
    cpg_chunks = chunks(np.arange(len(cpg_C)), block[0])
    mine = {
        i: combine(module, encode_cpgs(module, store, cpg_C[cpg_chunks[i]]), samples)
        for i in range(rank, len(cpg_chunks), ranks)
    }
    everyones: list[dict[int, np.ndarray]] = [mine]
    if parallel:
        everyones = [{} for _ in range(ranks)]
        distributed.all_gather_object(everyones, mine)
    parts = {i: part for owned in everyones for i, part in owned.items()}
    return np.concatenate([parts[i] for i in range(len(cpg_chunks))])


def cpg_table(cpgs: pd.DataFrame, genes: pd.DataFrame, distances: Distances) -> pd.DataFrame:
    """Describe predicted CpGs, indexed by id: chrom, position, island, nearest_gene ("" none), nearest_bp."""
    gene_C, bp_C = nearest_gene(distances)
    symbol_C = np.where(gene_C < 0, "", genes["symbol"].to_numpy(str)[gene_C])
    table = cpgs.assign(nearest_gene=symbol_C, nearest_bp=bp_C).set_index("id")
    return table.astype(dict.fromkeys(("chrom", "island", "nearest_gene"), "category"))


def to_anndata(
    store: Store, cpg_C: np.ndarray, sample_S: np.ndarray, predicted_CS: np.ndarray, measured_CS: np.ndarray, **uns: Any
) -> anndata.AnnData:
    """Lay a predicted view out as AnnData: obs samples, var CpGs, X predicted, layer ``measured`` (NaN missing)."""
    obs = store.samples.iloc[sample_S].set_index("id").astype("category")
    var = cpg_table(store.cpgs.iloc[cpg_C], store.genes, store.distances.rows(cpg_C))
    return anndata.AnnData(
        X=np.ascontiguousarray(predicted_CS.T),
        obs=obs,
        var=var,
        layers={"measured": np.ascontiguousarray(measured_CS.T)},
        uns={"methyl_lightning": {"version": __version__, "assembly": store.attributes["assembly"], **uns}},
    )
