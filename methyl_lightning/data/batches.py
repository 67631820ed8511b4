"""Rows of a store as the tensors that networks read.

Legend: C CpGs, S samples, G genes, L bases, N pairs, P columns of the annotation.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from methyl_lightning.data.store import Distances, Store
from methyl_lightning.networks.contract import CpgFeatures, GenePlaces


class GridBatch(NamedTuple):
    """A block of the grid.

    Attributes
    ----------
    cpgs
        Features of C CpGs.
    expression_SG
        float32, in the units of the store.
    beta_CS
        float32, NaN where missing.
    reads_CS
        Number of reads behind each beta; None where it was not called from reads.
    """

    cpgs: CpgFeatures
    expression_SG: Tensor
    beta_CS: Tensor
    reads_CS: Tensor | None = None


class PairBatch(NamedTuple):
    """N single cells, each with its own features (upstream's form); beta NaN where missing; reads or None."""

    cpgs: CpgFeatures
    expression_NG: Tensor
    beta_N: Tensor
    reads_N: Tensor | None = None


class CpgSource(Protocol):
    """What features of CpGs are read from: a store, or CpGs that someone names."""

    @property
    def sequence_CL(self) -> np.ndarray:
        """uint8 codes of ACGTN."""

    @property
    def distances(self) -> Distances:
        """Genes near each CpG."""

    @property
    def cpg_key_C(self) -> np.ndarray:
        """Fingerprints of the CpGs' names."""

    @property
    def chrom_key_C(self) -> np.ndarray:
        """Fingerprints of the chromosomes' names, −1 unknown."""

    @property
    def position_C(self) -> np.ndarray:
        """Positions, −1 unknown."""

    @property
    def annotation_CP(self) -> np.ndarray:
        """Columns of ``methyl_lightning.data.store.ANNOTATION``, NaN unknown."""


def read_cpgs(source: CpgSource, cpg_C: np.ndarray) -> CpgFeatures:
    """Read the features of some CpGs as tensors."""
    distances = source.distances.rows(cpg_C)
    return CpgFeatures(
        torch.from_numpy(source.sequence_CL[cpg_C]),
        torch.from_numpy(distances.gene_N.astype(np.int64)),
        torch.from_numpy(distances.bp_N),
        torch.from_numpy(distances.indptr_C[:-1]),
        torch.from_numpy(source.cpg_key_C[cpg_C]),
        torch.from_numpy(source.chrom_key_C[cpg_C]),
        torch.from_numpy(source.position_C[cpg_C]),
        torch.from_numpy(source.annotation_CP[cpg_C]),
    )


def read_genes(store: Store) -> GenePlaces:
    """Read the places of a store's genes as tensors."""
    start_G, end_G = (torch.from_numpy(store.genes[name].to_numpy(np.int64, copy=True)) for name in ("start", "end"))
    strand_G = store.genes["strand"].map({"+": 1, "-": -1}).fillna(0).to_numpy(np.int64)
    return GenePlaces(start_G, end_G, torch.from_numpy(strand_G))


def read_expression(store: Store, sample_S: np.ndarray) -> Tensor:
    """Read expression [S, G] of some samples of a store."""
    return torch.from_numpy(store.expression_SG[sample_S])
