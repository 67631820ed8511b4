"""Units of expression: recognised from values, and brought to a linear scale.

``counts``; ``cpm``, any linear scale of normalised counts; ``log1p``, ln(x + 1); ``log2``, log2(x + 1); and other
logarithms of x plus something, ``log2(x+0.001)`` as in the tables of Toil, or ``log10(x+1)``.

Legend: S samples, I genes of the input.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from methyl_lightning.files import InputError
from methyl_lightning.readers.annotated import Expression

UNITS = ("counts", "cpm", "log1p", "log2")
LINEAR = re.compile(r"[tr]pm|[fr]pkm", re.IGNORECASE)  # other names of ``cpm``
LOG = re.compile(r"(?P<base>log2|log10|ln)\((?P<name>\w+)\s*\+\s*(?P<offset>[\d.]+(?:e-?\d+)?)\)")
IN_FULL = {"log1p": "ln(x+1)", "log2": "log2(x+1)"}
BASES = {"log2": 2.0, "ln": np.e, "log10": 10.0}
CONVERTED = {"counts": "log2(cpm+1)"}  # what is stored of them; of all other units log2(norm+1)
OFFSETS = tuple(f"{base}(x+{10.0**-k:g})" for base in ("log2", "ln") for k in range(1, 10))  # below 0 where x is 0
LARGEST_LOG = {np.e: 16.0, 2.0: 32.0, 10.0: 7.0}  # no library has more than e^16 or 2^32 molecules of a gene
TOLERANCE = 0.05  # how far from a whole number of molecules a value may be
NEAR_SHARE = 0.9
WHOLE_SHARE = 0.5  # of counts, in which reads of several genes are shared out as RSEM does
LEAST_VALUES = 20
ROUNDING = 1e-6  # beside 0, where 0 was meant
LARGEST_MULTIPLE = {"one": 500.0, "smallest": 10.5}  # of molecules; rounding hides whole numbers above
ROWS = 1024  # samples read at once where all are gone through
LOOKED_AT = 256  # samples by which units are recognised


class RecognisedUnits(NamedTuple):
    """Units and the reason for taking the values as such."""

    units: str
    reason: str


def row_slices(n: int, size: int = ROWS) -> Iterator[slice]:
    """Cut ``n`` rows into consecutive slices of at most ``size``."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


class StoredUnits(NamedTuple):
    """Units of a table, the reason for taking them as such, and what the store calls its values."""

    units: str
    reason: str
    stored: str


def refuse_units(units: str | None) -> None:
    """Refuse a name of units that is not known."""
    if units not in (None, *UNITS) and read_logarithm(str(units)) is None:
        raise InputError(f"units={units}: must be one of {', '.join(UNITS)}, or a logarithm such as log2(x+0.001)")


def recognise_stored(expression: Expression, told: str) -> StoredUnits:
    """Tell in what units a table is that is to be stored, and how they are called then.

    Parameters
    ----------
    expression
        The table.
    told
        ``log2(norm+1)`` or the like: the values decide whether it is so, a table of other units is converted;
        one of ``UNITS``, ``TPM``, or a logarithm such as ``log2(tpm+0.001)``: converted; any other word: kept as it is.

    Raises
    ------
    InputError
        If a value is not finite, or none in such units.
    """
    named = LOG.fullmatch(told)
    if named and read_logarithm(told) == read_logarithm("log2"):
        known = recognise(expression, "log2", LEAST_VALUES)
        units = StoredUnits(*known, CONVERTED.get(known.units, told))
    elif named or told in UNITS or LINEAR.fullmatch(told):
        name = named["name"] if named else told.lower() if told not in UNITS else "norm"
        stored = CONVERTED.get(told, f"log2({name}+1)")
        units = StoredUnits("cpm" if LINEAR.fullmatch(told) else told, "as told", stored)
    else:
        units = StoredUnits(told, "as told", told)
    check_values(expression, units.units)
    return units


def to_log2(values: Any, units: str) -> Any:
    """Convert values [S, I] to log2(x + 1), counts by way of those per million; what is no known unit stays."""
    logarithm = read_logarithm(units)
    if logarithm == read_logarithm("log2") or (logarithm is None and units not in UNITS):
        return values
    linear_SI = to_linear(values, units)
    if units == "counts":
        linear_SI = linear_SI * (1e6 / np.maximum(linear_SI.sum(axis=1, keepdims=True), 1))
    return np.log2(linear_SI + 1)


def read_logarithm(units: str) -> tuple[float, float] | None:
    """Read the base of a logarithm and what was added before; None for all other units."""
    named = LOG.fullmatch(IN_FULL.get(units, units))
    offset = float(named["offset"]) if named else 0.0
    return (BASES[named["base"]], offset) if named and offset > 0 else None


def lowest_value(units: str) -> float:
    """Tell which value stands for nothing in such units; −∞ where that is not known."""
    logarithm = read_logarithm(units)
    if logarithm is None:
        return 0.0 if units in UNITS else -np.inf
    base, offset = logarithm
    return float(np.log(offset) / np.log(base))


def _largest_value(units: str) -> float:
    logarithm = read_logarithm(units)
    return LARGEST_LOG[logarithm[0]] if logarithm else np.inf


def to_linear(values: Any, units: str) -> Any:
    """Undo the logarithm of a matrix, dense or sparse; float64."""
    logarithm = read_logarithm(units)
    if logarithm is None:
        return abs(values.astype(np.float64))  # −1e-9, where 0 was meant
    base, offset = logarithm
    if sparse.issparse(values) and offset == 1:  # 0 stays 0
        values = values.astype(np.float64)
        values.data = to_linear(values.data, units)
        return values
    values = values.toarray() if sparse.issparse(values) else values
    return np.maximum(base ** values.astype(np.float64) - offset, 0)


def some_rows(expression: Expression) -> list[np.ndarray]:
    """Take the values but 0 of up to 256 samples, spread over all, for recognising units."""
    n_samples = len(expression.obs)
    index_S = np.unique(np.linspace(0, n_samples - 1, LOOKED_AT).astype(np.int64))
    block = expression.rows(index_S)
    _refuse_words(expression, block.dtype)
    rows = np.split(block.data, block.indptr[1:-1]) if isinstance(block, sparse.csr_matrix) else list(block)
    return [row[(np.abs(row) > ROUNDING) & np.isfinite(row)] for row in rows]


def _refuse_words(expression: Expression, dtype: np.dtype) -> None:
    if not np.issubdtype(dtype, np.number):
        raise InputError(f"{expression.source}: its values are {dtype}, not numbers; choose another layer")


def recognise(expression: Expression, fallback: str | None = None, least: int = 1) -> RecognisedUnits:
    """Recognise the units of an expression from its values, with the help of what scanpy noted.

    Fewer than ``least`` values are taken for ``fallback``.

    Raises
    ------
    InputError
        If all values are 0, or some are below 0 and no logarithm of x plus something that is known.
    """
    rows = some_rows(expression)
    if not any(map(len, rows)):
        raise InputError(f"{expression.source}: all values are 0; choose another layer")
    lowest = min(float(row.min()) for row in rows if len(row))
    if lowest < -ROUNDING:
        return _of_offset(expression, np.concatenate(rows), lowest)
    if sum(map(len, rows)) < least:
        return RecognisedUnits(fallback or expression.fallback_units, "too few values to tell")
    uns = {} if expression.log1p is None else {"log1p": expression.log1p}
    return recognise_units([row for row in rows if len(row)], uns, fallback or expression.fallback_units)


def _of_offset(expression: Expression, values_N: np.ndarray, lowest: float) -> RecognisedUnits:
    """Recognise a logarithm of x plus an offset by its lowest value, which all zeros share."""
    n_lowest = int((values_N < lowest + 1e-3).sum())
    for units in OFFSETS:
        if abs(lowest - lowest_value(units)) < 2e-3 and n_lowest > 1:
            return RecognisedUnits(units, f"the lowest value, {lowest:.4f}, stands {n_lowest:,} times")
    check_values(expression, "counts")
    raise AssertionError("a value below 0 was passed")


def recognise_units(row_values: list[np.ndarray], uns: Mapping[str, Any], fallback: str) -> RecognisedUnits:
    """Recognise units from the positive values of some samples: values decide, a note serves where they do not tell.

    Parameters
    ----------
    row_values
        For each sample its values above 0.
    uns
        Of the AnnData whose X this is; scanpy notes the base of its logarithm in ``uns["log1p"]``.
    fallback
        What values without any sign of their own are taken for.
    """
    values_N = np.concatenate(row_values) if row_values else np.zeros(0)
    whole_N = np.rint(values_N)
    is_whole_N = (whole_N > 0) & (np.abs(values_N - whole_N) <= 1e-3 + 1e-6 * values_N)  # as far as float32 holds them
    if is_whole_N.all():
        return RecognisedUnits("counts", "all values are whole numbers")
    largest = float(values_N.max())
    if largest > _largest_value("log2"):
        if is_whole_N.mean() >= WHOLE_SHARE:
            reason = f"{is_whole_N.mean():.0%} of the values are whole numbers, others shares of reads"
            return RecognisedUnits("counts", reason)
        return RecognisedUnits("cpm", f"values up to {largest:,.0f}, not whole numbers: normalised, not logarithms")
    if _of_counts(row_values, "cpm", ("smallest",)):
        return RecognisedUnits("cpm", "the values are multiples of each sample's smallest: normalised, not logarithms")
    for units in ("log1p", "log2", "log10(x+1)"):
        if largest <= _largest_value(units) and _of_counts(row_values, units):
            return RecognisedUnits(units, "undone, the values are counts, or multiples of each sample's smallest")
    noted = _noted(uns)
    if noted and largest <= _largest_value(noted):
        return RecognisedUnits(noted, "uns['log1p'] says so")
    if largest > _largest_value("log1p"):
        return RecognisedUnits("log2", f"values up to {largest:.1f}, too large for natural logarithms")
    return RecognisedUnits(fallback, "assumed: the values do not tell; set units= if they are something else")


def _noted(uns: Mapping[str, Any]) -> str | None:
    """Read the units that scanpy noted; None where it noted none, or a base that is not known."""
    if "log1p" not in uns:
        return None
    note = uns["log1p"]
    base = note.get("base") if isinstance(note, Mapping) else None
    if base is None:
        return "log1p"
    try:
        bases = {"log1p": np.e, "log2": 2, "log10(x+1)": 10}
        return next((units for units, known in bases.items() if np.isclose(float(base), known)), None)
    except (TypeError, ValueError):
        return None


def _of_counts(row_values: list[np.ndarray], units: str, of: tuple[str, ...] = ("one", "smallest")) -> bool:
    """Tell whether values, undone, are counts, or as normalised counts whole multiples of each sample's smallest."""
    for unit in of:
        near = tried = 0
        for values_N in row_values:
            linear_N = to_linear(values_N, units)
            multiple_N = linear_N if unit == "one" else linear_N / linear_N.min()
            # the smallest is a whole multiple of itself in any case
            looked_at_N = multiple_N < LARGEST_MULTIPLE[unit]
            multiple_N = multiple_N[looked_at_N & (multiple_N > (0 if unit == "one" else 1.2))]
            tried += len(multiple_N)
            whole_N = np.maximum(np.rint(multiple_N), 1)
            near += int((np.abs(multiple_N - whole_N) < TOLERANCE).sum())
        if tried >= LEAST_VALUES and near >= NEAR_SHARE * tried:
            return True
    return False


def checked_rows(expression: Expression, units: str) -> Iterator[tuple[slice, Any]]:
    """Go through all values, sample after sample, and refuse what no expression in such units has.

    Yields
    ------
    tuple
        Which samples, and their values: a CSR matrix or an array.

    Raises
    ------
    InputError
        If a value is not finite, below what stands for nothing, or larger than any logarithm.
    """
    lowest, largest = lowest_value(units), _largest_value(units)
    for rows in row_slices(len(expression.obs)):
        block = expression.rows(rows)
        values = block.data if isinstance(block, sparse.csr_matrix) else block
        _refuse_words(expression, values.dtype)
        below = f"is below {lowest:g}: scaled or centred values, or a logarithm of x plus something unknown"
        for wrong, what, remedy in (
            (~np.isfinite(values), "is not a finite number", "fill it or remove the gene"),
            (
                values < lowest - (2e-3 if lowest < 0 else ROUNDING),
                below,
                "give counts or logarithms of them (raw=true or layer= of an .h5ad), or say by units= what was added",
            ),
            (values > largest, f"is no {units}, of which none is above {largest:g}", "leave units= out or correct it"),
        ):
            if wrong.any():
                s, i, value = _first(block, wrong)
                cell = f"{expression.obs.index[rows.start + s]!r}, gene {expression.var.index[i]!r}"
                raise InputError(f"{expression.source}: the value of {cell} is {value:g}, it {what}; {remedy}")
        yield rows, block


def check_values(expression: Expression, units: str) -> None:
    """Refuse what no expression in such units has."""
    for _ in checked_rows(expression, units):
        pass


def _first(block: Any, wrong: np.ndarray) -> tuple[int, int, float]:
    """Find the first wrong value: row, column, value."""
    if isinstance(block, sparse.csr_matrix):
        n = int(np.argmax(wrong))
        return int(np.searchsorted(block.indptr, n, side="right")) - 1, int(block.indices[n]), float(block.data[n])
    s, i = np.argwhere(wrong)[0]
    return int(s), int(i), float(block[s, i])
