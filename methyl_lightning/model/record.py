"""What a checkpoint keeps of its training data, so that prediction needs no store.

Legend: C CpGs, S samples, G genes, L bases, N (CpG, gene) entries, Q quantiles or components.
"""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from methyl_lightning.data.store import ANNOTATION, GENE_COLUMNS, Distances, Store
from methyl_lightning.model.packed import PackedSequences, pack_columns, unpack_columns

QUANTILES = (np.arange(10) + 0.5) / 10  # each stands for a tenth of the samples
# of what stands for the training's expression: 5 MB of loadings at 20,000 genes
N_COMPONENTS, COMPONENT_SAMPLES = 128, 1000
CPG_COLUMNS = ("id", "chrom", "position", "island", "training_mean", "training_deviation")


class TrainingRecord(NamedTuple):
    """The CpGs and genes of the store, and what was fitted on its training part alone.

    Attributes
    ----------
    cpgs
        One row a CpG of the store, trained on or not: id, chrom, position, island, and training_mean and
        training_deviation of its beta over the training samples (NaN for a CpG that was held out).
    genes
        The store's gene table: symbol, id, chrom, start, end, strand.
    sequence_CL
        Codes of ACGTN, unpacked by ``sequence_CL[row_C]``.
    annotation_CP
        Columns of ``methyl_lightning.data.store.ANNOTATION``.
    distances
        Gene distances of the CpGs.
    mean_G, linear_mean_G
        Mean expression of each gene over the training samples, in the store's units and on the linear scale.
    quantile_QG
        Quantiles 0.05, 0.15, … 0.95 of each gene over the training samples, in the store's units.
    loading_QG, score_SQ, residual_G
        Expression of at most 1,000 training samples, without their names: ``mean_G + score_SQ @ loading_QG``, with
        scores of variance 1 and loadings as float16, and around it the standard deviation of what is left of each gene.
    """

    cpgs: pd.DataFrame
    genes: pd.DataFrame
    sequence_CL: PackedSequences
    annotation_CP: np.ndarray
    distances: Distances
    mean_G: np.ndarray
    linear_mean_G: np.ndarray
    quantile_QG: np.ndarray
    loading_QG: np.ndarray
    score_SQ: np.ndarray
    residual_G: np.ndarray

    def tensors(self) -> dict[str, Tensor]:
        """Return the numbers by name."""
        return {
            **self.sequence_CL.tensors(),
            **{f"annotation_{name}": tensor for name, tensor in pack_columns(self.annotation_CP).items()},
            "indptr": torch.from_numpy(np.asarray(self.distances.indptr_C, dtype=np.int32)),
            "gene": torch.from_numpy(np.array(self.distances.gene_N)),
            "bp": torch.from_numpy(np.array(self.distances.bp_N)),
            "position": torch.from_numpy(self.cpgs["position"].to_numpy(np.int32, copy=True)),
            "training_mean": torch.from_numpy(self.cpgs["training_mean"].to_numpy(np.float32, copy=True)),
            "training_deviation": torch.from_numpy(self.cpgs["training_deviation"].to_numpy(np.float32, copy=True)),
            "mean": torch.from_numpy(self.mean_G),
            "linear_mean": torch.from_numpy(self.linear_mean_G),
            "quantile": torch.from_numpy(self.quantile_QG),
            "loading": torch.from_numpy(self.loading_QG),
            "score": torch.from_numpy(self.score_SQ),
            "residual": torch.from_numpy(self.residual_G),
        }

    def tables(self) -> dict[str, dict[str, Any]]:
        """Return the words, and the positions of the genes, as plain lists; ids of CpGs as lines of one text."""
        return {
            "cpgs": {
                "id": "\n".join(self.cpgs["id"]),
                # a word that many CpGs share is written once, where it is one object
                **{column: [*map(sys.intern, self.cpgs[column])] for column in ("chrom", "island")},
            },
            "genes": {column: self.genes[column].tolist() for column in GENE_COLUMNS},
        }

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], tables: Mapping[str, Any]) -> "TrainingRecord":
        """Put together what :meth:`tensors` and :meth:`tables` have taken apart.

        A checkpoint of format 1 holds neither annotation nor samples to thin: unknown, and none; one of format 2 holds
        four bytes a value of the annotation, and a list of ids.
        """
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        n_cpgs, n_genes = len(arrays["position"]), len(arrays["mean"])
        packed = {name.removeprefix("annotation_"): array for name, array in arrays.items()}
        if "values_0" in packed:
            arrays["annotation"] = unpack_columns(packed, len(ANNOTATION))
        arrays.setdefault("annotation", np.full((n_cpgs, len(ANNOTATION)), np.nan, dtype=np.float32))
        arrays.setdefault("loading", np.zeros((0, n_genes), dtype=np.float16))
        arrays.setdefault("score", np.zeros((0, 0), dtype=np.float32))
        arrays.setdefault("residual", np.zeros(n_genes, dtype=np.float32))
        ids, numbers = tables["cpgs"]["id"], {name: arrays[name] for name in ("training_mean", "training_deviation")}
        numbers |= {"position": arrays["position"].astype(np.int64)}
        words = tables["cpgs"] | {"id": ids.split("\n") if isinstance(ids, str) else ids}
        return cls(
            pd.DataFrame({**words, **numbers})[list(CPG_COLUMNS)],
            pd.DataFrame(tables["genes"]),
            PackedSequences.restore(arrays),
            arrays["annotation"],
            Distances(arrays["indptr"].astype(np.int64), arrays["gene"], arrays["bp"]),
            *(arrays[name] for name in ("mean", "linear_mean", "quantile", "loading", "score", "residual")),
        )


def is_log2(units: str) -> bool:
    """Tell whether values are log2(x + 1) of something linear, as ``log2(norm+1)`` says."""
    return units.startswith("log2(") and units.endswith("+1)")


def record_training(store: Store, cpg_C: np.ndarray, sample_S: np.ndarray) -> TrainingRecord:
    """Take the record of a store whose rows ``cpg_C`` × ``sample_S`` are the training view."""
    mean_C, deviation_C = (np.full(len(store.cpgs), np.nan, dtype=np.float32) for _ in range(2))
    n_C, mean_C[cpg_C], square_C = store.beta_moments(cpg_C, sample_S)
    np.divide(square_C, n_C, out=square_C, where=n_C > 0)
    deviation_C[cpg_C] = np.where(n_C > 0, np.sqrt(square_C), np.nan)
    expression_SG = store.expression_SG[sample_S].astype(np.float64)
    linear_SG = np.exp2(expression_SG) - 1 if is_log2(store.attributes["units"]) else expression_SG
    return TrainingRecord(
        store.cpgs.assign(training_mean=mean_C, training_deviation=deviation_C),
        store.genes,
        PackedSequences.pack(store.sequence_CL),
        store.annotation_CP,
        store.distances,
        expression_SG.mean(axis=0).astype(np.float32),
        linear_SG.mean(axis=0).astype(np.float32),
        np.quantile(expression_SG, QUANTILES, axis=0).astype(np.float32),
        *_components(expression_SG),
    )


def _components(expression_SG: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take principal components apart from what they leave: loadings, scores, and the deviation of the rest."""
    n_samples = len(expression_SG)
    drawn_S = np.random.default_rng(n_samples).permutation(n_samples)[:COMPONENT_SAMPLES]
    centred_SG = expression_SG[np.sort(drawn_S)] - expression_SG.mean(axis=0)
    n_samples = len(centred_SG)
    n_components = max(1, min(N_COMPONENTS, n_samples // 3))  # so many that a rest can be told from them
    _, vector_SS = np.linalg.eigh(centred_SG @ centred_SG.T)
    score_SQ = vector_SS[:, : -n_components - 1 : -1] * np.sqrt(n_samples)
    loading_QG = score_SQ.T @ centred_SG / n_samples
    centred_SG -= score_SQ @ loading_QG
    residual_G = np.sqrt((centred_SG**2).sum(axis=0) / max(1, n_samples - n_components - 1))
    return loading_QG.astype(np.float16), score_SQ.astype(np.float32), residual_G.astype(np.float32)
