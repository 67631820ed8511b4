"""Rows of an expression input on the scale of the training, block by block.

Legend: S samples and I genes of the input, R rows that are predicted, G genes of the training, K matched ones.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

from methyl_lightning.inputs.expression import Expression
from methyl_lightning.inputs.genes import GeneMatch
from methyl_lightning.inputs.units import TrainingScale, to_linear, to_training_scale
from methyl_lightning.store import InputError
from methyl_lightning.training_record import TrainingRecord

ROWS = 1024  # samples read at once where all are gone through
LOOKED_AT = 256  # samples by which units are recognised


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
        See :func:`methyl_lightning.inputs.units.to_training_scale`.
    average_RS
        See :func:`methyl_lightning.inputs.aggregation.average_matrix`; None leaves rows as they are.
    expressed_S
        Of :func:`check_values`.

    Attributes
    ----------
    empty_R
        bool [R]; the row has no expression of any matched gene, so nothing can be predicted for it.
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
        expressed_S: np.ndarray,
    ):
        self.expression, self.genes, self.units, self.match = expression, genes, units, match
        self.average_RS = average_RS
        self.empty_R = ~expressed_S if average_RS is None else average_RS @ expressed_S == 0
        self.mean_G = record.mean_G
        self.scale = TrainingScale.of_genes(
            training_units, record.linear_mean_G[genes.gene_K], record.quantile_QG[:, genes.gene_K]
        )
        self._together_RK: np.ndarray | None = None
        if average_RS is not None and average_RS.shape[0] != average_RS.shape[1]:
            # few rows of many samples each: gone through once, in the order of the file
            self._together_RK = np.zeros((average_RS.shape[0], len(genes.gene_K)))
            for rows in row_slices(len(expression.obs)):
                part = average_RS[:, rows] @ self._linear(rows)
                self._together_RK += part.toarray() if isinstance(part, sparse.csr_matrix) else part

    def __len__(self) -> int:
        return len(self.expression.obs) if self.average_RS is None else self.average_RS.shape[0]

    def _linear(self, index: slice | np.ndarray) -> Any:
        """Read matched genes of some samples on the linear scale, float64 [n, K], sparse if the input is."""
        return to_linear(self.expression.rows(index), self.units) @ self.genes.sum_IK

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
        expression_RG = np.tile(self.mean_G, (linear_RK.shape[0], 1))
        expression_RG[:, self.genes.gene_K] = to_training_scale(linear_RK, self.scale, self.match)
        return expression_RG


def row_slices(n: int, size: int = ROWS) -> Iterator[slice]:
    """Cut ``n`` rows into consecutive slices of at most ``size``."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def check_values(expression: Expression, genes: GeneMatch) -> np.ndarray:
    """Go through all values once and refuse what no expression has.

    Returns
    -------
    numpy.ndarray
        bool [S]; the sample has expression of some matched gene.

    Raises
    ------
    InputError
        If a value is not finite or below 0.
    """
    names = expression.var.index
    matched_I = np.asarray(genes.sum_IK.sum(axis=1)).ravel()
    expressed_S = np.zeros(len(expression.obs), dtype=bool)
    for rows in row_slices(len(expression.obs)):
        block = expression.rows(rows)
        values = block.data if isinstance(block, sparse.csr_matrix) else block
        if not np.issubdtype(values.dtype, np.number):
            raise InputError(f"{expression.source}: its values are {values.dtype}, not numbers; choose another layer")
        for wrong, what, remedy in (
            (~np.isfinite(values), "is not a finite number", "fill it or remove the gene"),
            (
                values < 0,
                "is below 0: scaled or centred values",
                "give counts or logarithms of them (raw=true or layer=)",
            ),
        ):
            if wrong.any():
                s, i, value = _first(block, wrong)
                cell = f"{expression.obs.index[rows.start + s]!r}, gene {names[i]!r}"
                raise InputError(f"{expression.source}: the value of {cell} is {value:g}, it {what}; {remedy}")
        expressed_S[rows] = block @ matched_I > 0
    return expressed_S


def _first(block: Any, wrong: np.ndarray) -> tuple[int, int, float]:
    """Find the first wrong value: row, column, value."""
    if isinstance(block, sparse.csr_matrix):
        n = int(np.argmax(wrong))
        return int(np.searchsorted(block.indptr, n, side="right")) - 1, int(block.indices[n]), float(block.data[n])
    s, i = np.argwhere(wrong)[0]
    return int(s), int(i), float(block[s, i])


def some_values(expression: Expression) -> list[np.ndarray]:
    """Take the positive values of up to 256 samples, spread over all, for recognising units."""
    n_samples = len(expression.obs)
    index_S = np.unique(np.linspace(0, n_samples - 1, LOOKED_AT).astype(np.int64))
    block = expression.rows(index_S)
    rows = np.split(block.data, block.indptr[1:-1]) if isinstance(block, sparse.csr_matrix) else list(block)
    return [row[row > 0] for row in rows if (row > 0).any()]
