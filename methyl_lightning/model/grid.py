"""The grid loop: every CpG and every sample is encoded once, then blocks of both are combined.

Legend: C CpGs, S samples, G genes.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import torch
from torch import Tensor, distributed

from methyl_lightning import __version__
from methyl_lightning.data.batches import CpgSource, read_cpgs, read_expression
from methyl_lightning.data.datamodule import BLOCK, chunks
from methyl_lightning.data.distances import nearest_gene
from methyl_lightning.data.store import Distances, Store
from methyl_lightning.model.module import MethylationModule

ENCODED_BYTES = 1 << 30  # encoded CpGs that are kept in memory; more of them lie on disk


@torch.inference_mode()
def encode_cpgs(module: MethylationModule, source: CpgSource, blocks: Iterable[np.ndarray]) -> Iterator[Any]:
    """Encode blocks of rows of a source, one after the other, on the module's device."""
    for cpg_C in blocks:
        yield module.network.encode_cpgs(_moved(read_cpgs(source, cpg_C), module.device))


@contextmanager
def keep(encoded: Iterable[Any]) -> Iterator[list[Any]]:
    """Keep encoded CpGs as long as the block lasts, so that samples after samples can be combined with them."""
    kept: list[Any] = []
    n_bytes = 0
    with TemporaryDirectory() as folder:
        for number, cpgs in enumerate(encoded):
            n_bytes += sum(part.nbytes for part in cpgs if part is not None)
            if n_bytes > ENCODED_BYTES:
                file = Path(folder, str(number))
                cpgs = type(cpgs)(*(_on_disk(part, file.with_suffix(f".{i}")) for i, part in enumerate(cpgs)))
            kept.append(cpgs)
        yield kept


@torch.inference_mode()
def predict_blocks(
    module: MethylationModule, cpgs: Iterable[Any], scaled: Iterable[Tensor]
) -> Iterator[tuple[slice, np.ndarray]]:
    """Combine samples with block after block of encoded CpGs: the place of each, and its prediction, float32 [C, S].

    Parameters
    ----------
    module
        Trained module in evaluation mode.
    cpgs
        What :func:`encode_cpgs` gives, kept or not.
    scaled
        Scaled expression [S, G], in the chunks of samples that are combined at once.
    """
    samples = [module.network.encode_samples(part.to(module.device)) for part in scaled]
    start = 0
    for encoded in cpgs:
        block = _moved(encoded, module.device)
        beta_CS = torch.cat([module.combine(block, part).float().cpu() for part in samples], dim=1).numpy()
        yield slice(start, start + len(beta_CS)), beta_CS
        start += len(beta_CS)


def predict_expression(module: MethylationModule, cpgs: Iterable[Any], expression_SG: np.ndarray) -> np.ndarray:
    """Predict float32 [C, S] from expression in the units of the training, with encoded CpGs that were kept."""
    scaled = module.scaler(torch.from_numpy(expression_SG).to(module.device)).split(BLOCK[1])
    return np.concatenate([beta_CS for _, beta_CS in predict_blocks(module, cpgs, scaled)])


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
    blocks = chunks(cpg_C, block[0])
    cpgs = encode_cpgs(module, store, blocks[rank::ranks])
    scaled = (module.scaler(read_expression(store, rows).to(module.device)) for rows in chunks(sample_S, block[1]))
    everyones = [[beta_CS for _, beta_CS in predict_blocks(module, cpgs, scaled)]]
    if parallel:
        mine, everyones = everyones[0], [[] for _ in range(ranks)]
        distributed.all_gather_object(everyones, mine)
    return np.concatenate([everyones[i % ranks][i // ranks] for i in range(len(blocks))])


def _moved(parts: Any, device: torch.device) -> Any:
    return type(parts)(*(None if part is None else part.to(device) for part in parts))


def _on_disk(part: Tensor | None, path: Path) -> Tensor | None:
    if part is None or not part.numel():
        return part
    part.cpu().contiguous().numpy().tofile(path)
    return torch.from_file(str(path), size=part.numel(), dtype=part.dtype).reshape(part.shape)


def cpg_table(cpgs: pd.DataFrame, genes: pd.DataFrame, distances: Distances) -> pd.DataFrame:
    """Describe predicted CpGs, indexed by id: chrom, position, island, nearest_gene ("" none), nearest_bp."""
    gene_C, bp_C = nearest_gene(distances)
    symbol_C = np.where(gene_C < 0, "", genes["symbol"].to_numpy(str)[gene_C])
    table = cpgs.assign(nearest_gene=symbol_C, nearest_bp=bp_C).set_index("id")
    return table.astype(dict.fromkeys(("chrom", "island", "nearest_gene"), "category"))


def describe_h5ad(
    file: h5py.File, matrices: Iterable[str], chunks: tuple[int, ...] | None = None, **parts: Any
) -> None:
    """Write the ``obs``, ``var``, … of AnnData, and declare its float32 matrices by name: ``X``, ``layers/…``."""
    data = anndata.AnnData(**parts)
    data.strings_to_categoricals()
    anndata.io.write_elem(file, "/", data)
    for name in ("X", "raw"):  # written as none, which an anndata before 0.12 cannot read
        file.pop(name, None)
    for name in matrices:
        dataset = file.create_dataset(name, data.shape, np.float32, chunks=chunks)
        dataset.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


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
