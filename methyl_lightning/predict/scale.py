"""Expression on the training's scale, whatever the units of the input.

Legend: S samples of the input, R rows that are predicted, G genes of the training, K those that are matched, N values,
Q quantiles.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

from methyl_lightning.files import InputError
from methyl_lightning.model.depth import ExpressionEstimator
from methyl_lightning.model.record import TrainingRecord, is_log2
from methyl_lightning.predict.genes import GeneMatch
from methyl_lightning.readers.annotated import Expression
from methyl_lightning.readers.units import CONVERTED, checked_rows, lowest_value, row_slices, to_linear

MATCHES = ("depth", "quantile", "library", "none")


class TrainingScale(NamedTuple):
    """How expression of some genes was distributed in training.

    Attributes
    ----------
    units
        Of the store.
    linear_total
        Mean over training samples of a sample's total over these genes, on the linear scale.
    sorted_N
        Values of these genes over training samples, sorted, in the store's units.
    """

    units: str
    linear_total: float
    sorted_N: np.ndarray

    @classmethod
    def of_genes(cls, units: str, linear_mean_G: np.ndarray, quantile_QG: np.ndarray) -> "TrainingScale":
        """Take the scale from the statistics of the genes that are matched."""
        return cls(units, float(linear_mean_G.sum(dtype=np.float64)), np.sort(quantile_QG, axis=None))


def _by_rank(linear_SG: sparse.csr_matrix, scale: TrainingScale) -> np.ndarray:
    """Give each value the training's value at its mean rank; the zeros of a sample are ranked as one."""
    linear_SG = linear_SG.copy()
    linear_SG.eliminate_zeros()
    n_samples, n_genes = linear_SG.shape
    place_N = (np.arange(len(scale.sorted_N)) + 0.5) / len(scale.sorted_N)

    def at_rank(rank: np.ndarray) -> np.ndarray:
        return np.interp((rank - 0.5) / n_genes, place_N, scale.sorted_N).astype(np.float32)

    count_S = np.diff(linear_SG.indptr)
    zeros_S = n_genes - count_S
    value_SG = np.repeat(at_rank((zeros_S + 1) / 2)[:, None], n_genes, axis=1)
    rank_N = np.concatenate([rankdata(row) for row in np.split(linear_SG.data, linear_SG.indptr[1:-1])])
    sample_N = np.repeat(np.arange(n_samples), count_S)
    value_SG[sample_N, linear_SG.indices] = at_rank(rank_N + zeros_S[sample_N])
    return value_SG


def to_training_scale(linear_SG: np.ndarray | sparse.csr_matrix, scale: TrainingScale, match: str) -> np.ndarray:
    """Bring linear values [S, G] to the training's units, float32 [S, G].

    Parameters
    ----------
    linear_SG
        Linear values, none below 0; a sample without any above 0 stays 0.
    scale
        Of the same genes.
    match
        - ``quantile``: a value becomes the training's value (all samples pooled) at its rank; equal values share one,
          so the many zeros of a shallow sample do not fall below what training has seen.
        - ``library``: a sample's total becomes the training's mean total over the same genes.
        - ``none``: values are on the training's linear scale already.

    Raises
    ------
    InputError
        If the training's units are not log2(x + 1) and values would have to be brought there.
    """
    if match == "quantile":
        return _by_rank(sparse.csr_matrix(linear_SG), scale)
    if not is_log2(scale.units):
        raise InputError(f"match={match}: the training's units, {scale.units!r}, are not log2(x+1); use match=quantile")
    factor_S = np.ones(linear_SG.shape[0])
    if match == "library":
        total_S = np.asarray(linear_SG.sum(axis=1)).ravel()
        factor_S = scale.linear_total / np.where(total_S > 0, total_S, 1)
    if not isinstance(linear_SG, sparse.csr_matrix):
        return np.log2(linear_SG * factor_S[:, None] + 1).astype(np.float32)
    logarithm_SG = linear_SG.copy()  # of what is not 0: a cell has few genes
    logarithm_SG.data = np.log2(linear_SG.data * np.repeat(factor_S, np.diff(linear_SG.indptr)) + 1).astype(np.float32)
    return logarithm_SG.toarray()


class ExpressionRows:
    """Expression as the network was trained on it: genes matched, units undone, rows averaged, scale matched.

    Parameters
    ----------
    expression, genes
        The input, and its genes in terms of the training's.
    units
        Of the input.
    record, training_units
        Of the checkpoint.
    match
        ``depth`` (for counts): see :mod:`methyl_lightning.model.depth`; others: see
        :func:`methyl_lightning.predict.scale.to_training_scale`.
    average_RS
        See :func:`methyl_lightning.predict.aggregation.average_matrix`; None leaves rows as they are.
    total_S
        Of :func:`matched_totals`.

    Attributes
    ----------
    empty_R
        bool [R]; the row has no expression of any matched gene, so nothing can be predicted for it.
    depth_R
        Molecules of the row's matched genes; infinite where they are not looked at.
    """

    def __init__(
        self,
        expression: Expression,
        genes: GeneMatch,
        units: str,
        record: TrainingRecord,
        training_units: str,
        match: str,
        average_RS: sparse.csr_matrix | None,
        total_S: np.ndarray,
    ):
        self.expression, self.genes, self.units, self.match = expression, genes, units, match
        self.average_RS = average_RS
        total_R = total_S if average_RS is None else average_RS @ total_S
        self.empty_R = total_R <= 1e-6 * (lowest_value(units) < 0)
        self.mean_G = record.mean_G
        self.depth_R = np.full(len(total_R), np.inf)
        if match == "depth":
            self._estimator = ExpressionEstimator(record, training_units, genes.gene_K)
            # shallow samples that are taken together are as deep as their sum
            self._n_R = np.ones(len(total_R)) if average_RS is None else np.diff(average_RS.indptr)
            self.depth_R = total_R * self._n_R
        # the training's counts became those per million of all genes, the matched and the others
        self._per_million = match == "none" and units == "counts" and training_units == CONVERTED["counts"]
        every_I = sparse.csr_matrix(np.ones((genes.sum_IK.shape[0], int(self._per_million))))
        self._sum_IK = sparse.csr_matrix(sparse.hstack([genes.sum_IK, every_I]))
        self.scale = TrainingScale.of_genes(
            training_units, record.linear_mean_G[genes.gene_K], record.quantile_QG[:, genes.gene_K]
        )
        self._together_RK: np.ndarray | None = None
        if average_RS is not None and average_RS.shape[0] != average_RS.shape[1]:
            # few rows of many samples each: gone through once, in the order of the file
            self._together_RK = np.zeros((average_RS.shape[0], self._sum_IK.shape[1]))
            for rows in row_slices(len(expression.obs)):
                part = average_RS[:, rows] @ self._linear(rows)
                self._together_RK += part.toarray() if isinstance(part, sparse.csr_matrix) else part

    def __len__(self) -> int:
        return len(self.expression.obs) if self.average_RS is None else self.average_RS.shape[0]

    def _linear(self, index: slice | np.ndarray) -> Any:
        """Read matched genes of some samples on the linear scale, float64 [n, K], sparse if the input is."""
        return to_linear(self.expression.rows(index), self.units) @ self._sum_IK

    def read(self, rows: slice) -> np.ndarray:
        """Read rows in the units of the training, float32 [n, G]; a gene that is not matched has its training mean.

        A row without any expression of them is brought nowhere and keeps 0 there: see ``empty_R``.
        """
        if self._together_RK is not None:
            linear_RK = self._together_RK[rows]
        elif self.average_RS is None:
            linear_RK = self._linear(rows)
        else:
            average_RS = self.average_RS[rows]
            wanted_S = np.unique(average_RS.indices)
            linear_RK = average_RS[:, wanted_S] @ self._linear(wanted_S)
        if self.match == "depth":
            count_RK = sparse.csr_matrix(linear_RK)
            count_RK.data *= np.repeat(self._n_R[rows], np.diff(count_RK.indptr))
            return self._estimator.estimate(count_RK, self.depth_R[rows])
        if self._per_million:
            linear_RK = linear_RK.toarray() if isinstance(linear_RK, sparse.csr_matrix) else linear_RK
            linear_RK = linear_RK[:, :-1] * (1e6 / np.maximum(linear_RK[:, -1:], 1))
        expression_RG = np.tile(self.mean_G, (linear_RK.shape[0], 1))
        expression_RG[:, self.genes.gene_K] = to_training_scale(linear_RK, self.scale, self.match)
        if not np.isfinite(expression_RG).all():
            raise InputError(
                f"{self.expression.source}: as {self.units} its values are too large to be expression; leave units= out"
            )
        return expression_RG


def matched_totals(expression: Expression, genes: GeneMatch, units: str) -> np.ndarray:
    """Check all values, and sum the matched genes' of each sample as far as they are above what stands for nothing."""
    matched_I = np.asarray(genes.sum_IK.sum(axis=1)).ravel()
    lowest = lowest_value(units)
    checked = (block - lowest if lowest else block for _, block in checked_rows(expression, units))
    total_S = np.concatenate([block @ matched_I for block in checked])
    return np.where(total_S > 1e-6 * (lowest < 0), total_S, 0)
