"""Matrices of features (CpGs or genes) × samples in other formats: parquet, .h5ad, .RData, and either orientation.

A matrix lies features × samples where its columns are barcodes, samples × features where its rows are. All are given
as features × samples. Text and parquet are read in chunks; .RData, and text of samples × features, in one piece.
Legend: F features, S samples.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from methyl_lightning.files import InputError
from methyl_lightning.readers.matrices import Chunk, Matrix, read_all, text_matrix
from methyl_lightning.readers.progress import shown
from methyl_lightning.readers.text import refuse_cells, refuse_repeats

CHUNK_BYTES = 2**23
R_NAMES = {"probe": "methyl", "gene": "expressi"}  # of the matrices in the files of the original authors

BARCODE = re.compile(r"^(?P<patient>TCGA-\w\w-\w{4})(?:-(?P<tissue>\d\d)(?P<vial>[A-Z]?)(?:-[\w-]+)?)?$")


def open_matrix(path: Path, kind: str, *, missing: bool = False) -> Matrix:
    """Open a matrix by the ending of its name; its columns are the samples.

    Parameters
    ----------
    path
        ``.parquet``; ``.h5ad`` (its X); ``.RData``, ``.rda`` (a matrix or data frame ``methyl`` or ``expressi``);
        anything else is tab-separated text, perhaps ``.gz``.
    kind
        ``probe`` or ``gene``, what a feature is called in messages.
    missing
        Whether values may be missing.

    Raises
    ------
    InputError
        If the file is damaged or no such matrix; when its rows are read also if a cell is no finite number.
    """
    if not path.is_file():
        raise InputError(f"{path}: cannot be read (no such file); check the name")
    readers: dict[str, Callable[..., Matrix]] = {
        ".parquet": _parquet,
        ".h5ad": _h5ad,
        ".rdata": _rdata,
        ".rda": _rdata,
    }
    matrix = readers.get(path.suffix.lower(), _text)(path, kind, missing)
    refuse_repeats(path, "sample", matrix.columns)
    return matrix


def _text(path: Path, kind: str, missing: bool) -> Matrix:
    matrix = text_matrix(path, kind, missing=missing)
    if any(map(is_barcode, matrix.columns)):
        return matrix
    first = next(matrix.chunks(matrix.columns[:1])).names[0]
    if not is_barcode(first):
        return matrix
    refuse_repeats(path, kind, matrix.columns)
    table = read_all(text_matrix(path, "sample", missing=missing))
    values_SF = table.to_numpy()
    return _in_blocks(path, kind, matrix.columns, table.index.tolist(), lambda rows: values_SF[:, rows].T, missing)


def _in_blocks(
    path: Path, kind: str, features: list[str], samples: list[str], read: Callable[[slice], Any], missing: bool
) -> Matrix:
    """Make a matrix of which ``read`` gives consecutive features of all samples, [F, S]."""
    refuse_repeats(path, kind, features)
    place = {name: s for s, name in enumerate(samples)}

    def chunks(columns: list[str]) -> Iterator[Chunk]:
        step = max(1, CHUNK_BYTES // (4 * len(samples)))
        sample_S = [place[name] for name in columns]
        with shown(path) as tell:
            for start in range(0, len(features), step):
                names = features[start : start + step]
                try:
                    with np.errstate(invalid="ignore"):  # R's NA is a NaN that signals
                        values_FS = np.asarray(read(slice(start, start + len(names))), dtype=np.float32)[:, sample_S]
                except (ValueError, TypeError, OSError) as error:
                    raise InputError(
                        f"{path}: {kind} {names[0]!r} … {names[-1]!r} cannot be read as numbers ({error}); mend them"
                    ) from error
                tell(len(names), (start + len(names)) / len(features))
                yield _finite(path, names, values_FS, columns, missing)

    return Matrix(path, samples, chunks)


def _finite(path: Path, names: list[str], values_FS: np.ndarray, columns: list[str], missing: bool) -> Chunk:
    refused_FS = np.isinf(values_FS) if missing else ~np.isfinite(values_FS)
    if refused_FS.any():
        refuse_cells(path, pd.DataFrame(values_FS, names, columns), refused_FS, "put a finite number there")
    return Chunk(names, values_FS)


def _parquet(path: Path, kind: str, missing: bool) -> Matrix:
    """Open a parquet file whose index, or else first column, holds the names of the rows."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: no parquet file ({error}); get it again") from error
    described = (file.schema_arrow.pandas_metadata or {}).get("index_columns", [])
    named = [name for name in described if isinstance(name, str)]
    column = named[0] if named else file.schema_arrow.names[0]
    others = [name for name in file.schema_arrow.names if name != column]
    if any(map(is_barcode, others)):
        return Matrix(path, others, lambda columns: _parquet_rows(path, file, kind, column, columns, missing))
    samples = [str(name) for name in file.read(columns=[column]).column(0).to_pylist()]
    return _in_blocks(
        path, kind, others, samples, lambda rows: file.read(columns=others[rows]).to_pandas()[others[rows]].T, missing
    )


def _parquet_rows(
    path: Path, file: pq.ParquetFile, kind: str, column: str, columns: list[str], missing: bool
) -> Iterator[Chunk]:
    seen: list[str] = []
    with shown(path) as tell:
        for batch in file.iter_batches(max(1, CHUNK_BYTES // (4 * len(columns))), columns=[column, *columns]):
            names = [str(name) for name in batch.column(column).to_pylist()]
            seen += names
            values_SF = np.empty((len(columns), len(names)), np.float32)
            for s, name in enumerate(columns):
                try:
                    values_SF[s] = batch.column(name).to_numpy(zero_copy_only=False)
                except (ValueError, TypeError) as error:
                    raise InputError(f"{path}: column {name!r} holds no numbers ({error}); convert it") from error
            tell(len(names), len(seen) / file.metadata.num_rows)
            yield _finite(path, names, values_SF.T, columns, missing)
    refuse_repeats(path, kind, seen)


def _h5ad(path: Path, kind: str, missing: bool) -> Matrix:
    """Open the X of an .h5ad file, of which blocks are read where it is dense."""
    import anndata  # slow to import, rarely needed

    try:
        data = anndata.read_h5ad(path, backed="r")
        if not isinstance(data.X, h5py.Dataset):  # sparse
            data = anndata.read_h5ad(path)
            data.X = data.X.toarray()
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: no .h5ad file ({error}); get it again") from error
    obs, var = data.obs_names.tolist(), data.var_names.tolist()
    if any(map(is_barcode, obs)):
        return _in_blocks(path, kind, var, obs, lambda rows: data.X[:, rows].T, missing)
    return _in_blocks(path, kind, obs, var, lambda rows: data.X[rows], missing)


def _rdata(path: Path, kind: str, missing: bool) -> Matrix:
    """Open a matrix with row and column names, or a data frame, in a file written by R's ``save``."""
    import rdata  # slow to import, rarely needed

    name = R_NAMES[kind]
    try:
        with warnings.catch_warnings(action="ignore"):  # of a file that isn't one
            objects = rdata.read_rda(path)
    except (OSError, EOFError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: no .RData file ({error}); write it again with save() of R") from error
    if name not in objects:
        raise InputError(f"{path}: no object {name!r} among {', '.join(map(str, objects))}; name the matrix {name}")
    table = objects[name]
    table = table.to_pandas() if hasattr(table, "to_pandas") else table  # a matrix with names comes as a DataArray
    if not isinstance(table, pd.DataFrame):
        raise InputError(f"{path}: {name!r} has no row and column names; set its dimnames in R and save it again")
    table = table if any(is_barcode(str(column)) for column in table.columns) else table.T
    values_FS = table.to_numpy()
    features, samples = table.index.astype(str).tolist(), table.columns.astype(str).tolist()
    return _in_blocks(path, kind, features, samples, lambda rows: values_FS[rows], missing)


def is_barcode(name: str) -> bool:
    """Tell whether a name is a barcode, with dashes or dots."""
    return BARCODE.fullmatch(name.replace(".", "-")) is not None
