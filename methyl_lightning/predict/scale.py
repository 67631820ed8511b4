"""Units of expression: recognised from values, brought to a linear scale and from there to the training's.

Legend: S samples, G genes, N values, Q quantiles.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

from methyl_lightning.files import InputError
from methyl_lightning.model.record import TrainingRecord, is_log2
from methyl_lightning.predict.genes import GeneMatch
from methyl_lightning.readers.expression import Expression

UNITS = ("counts", "cpm", "log1p", "log2")
MATCHES = ("quantile", "library", "none")
INVERSE: dict[str, Any] = {"log1p": np.expm1, "log2": lambda values: np.exp2(values) - 1}
LARGEST_LOG = {"log1p": 16.0, "log2": 32.0}  # no library has more than e^16 or 2^32 molecules of a gene
TOLERANCE = 0.05  # how far from a whole number of molecules a value may be
NEAR_SHARE = 0.9
LEAST_VALUES = 20
LARGEST_MULTIPLE = {"one": 500.0, "smallest": 10.5}  # of molecules; rounding hides whole numbers above


class RecognisedUnits(NamedTuple):
    """Units (one of ``UNITS``) and the reason for taking the values as such."""

    units: str
    reason: str


def recognise_units(row_values: list[np.ndarray], uns: Mapping[str, Any], fallback: str) -> RecognisedUnits:
    """Recognise units from the positive values of some samples.

    Parameters
    ----------
    row_values
        For each sample its values above 0.
    uns
        ``uns`` of the AnnData; scanpy notes the base of its logarithm in ``uns["log1p"]``.
    fallback
        What values without any sign of their own are taken for.
    """
    if "log1p" in uns:
        base = (uns["log1p"] or {}).get("base")
        if base is None or np.isclose(float(base), np.e):
            return RecognisedUnits("log1p", "uns['log1p'] says so")
        if np.isclose(float(base), 2):
            return RecognisedUnits("log2", "uns['log1p'] gives base 2")
    values_N = np.concatenate(row_values) if row_values else np.zeros(0)
    if (values_N == np.rint(values_N)).all():
        return RecognisedUnits("counts", "all values are whole numbers")
    largest = float(values_N.max())
    if largest > LARGEST_LOG["log2"]:
        return RecognisedUnits("cpm", f"values up to {largest:,.0f}, not whole numbers: normalised, not logarithms")
    for units in ("log1p", "log2"):
        if largest <= LARGEST_LOG[units] and _of_counts(row_values, units):
            return RecognisedUnits(units, "undone, the values are counts, or multiples of each sample's smallest")
    if largest > LARGEST_LOG["log1p"]:
        return RecognisedUnits("log2", f"values up to {largest:.1f}, too large for natural logarithms")
    return RecognisedUnits(fallback, "assumed: the values do not tell; set units= if they are something else")


def _of_counts(row_values: list[np.ndarray], units: str) -> bool:
    """Tell whether values, undone, are counts, or as normalised counts whole multiples of each sample's smallest."""
    for unit in ("one", "smallest"):
        near = tried = 0
        for values_N in row_values:
            linear_N = INVERSE[units](values_N.astype(np.float64))
            multiple_N = linear_N if unit == "one" else linear_N / linear_N.min()
            # the smallest is a whole multiple of itself in any case
            looked_at_N = multiple_N < LARGEST_MULTIPLE[unit]
            multiple_N = multiple_N[looked_at_N & (multiple_N > (0 if unit == "one" else 1.2))]
            tried += len(multiple_N)
            near += int((np.abs(multiple_N - np.rint(multiple_N)) < TOLERANCE).sum())
        if tried >= LEAST_VALUES and near >= NEAR_SHARE * tried:
            return True
    return False


def to_linear(values: Any, units: str) -> Any:
    """Undo the logarithm of a matrix, dense or sparse (0 stays 0); float64."""
    values = values.astype(np.float64)
    if units not in INVERSE:
        return values
    if isinstance(values, sparse.csr_matrix):
        values.data = INVERSE[units](values.data)
        return values
    return INVERSE[units](values)


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
        See :func:`methyl_lightning.predict.scale.to_training_scale`.
    average_RS
        See :func:`methyl_lightning.predict.aggregation.average_matrix`; None leaves rows as they are.
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
