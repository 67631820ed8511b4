"""Matrices of features (CpGs or genes) × samples in every format, and in either orientation.

Columns are the samples where they are barcodes, rows where those are; else the side that has the more known genes is
not that of the samples. All are given as features × samples. Text and parquet are read in chunks; .RData, sparse
.h5ad, and text of samples × features, in one piece.
Legend: F features, S samples.
"""

import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from methyl_lightning.files import InputError
from methyl_lightning.readers.annotated import open_h5ad
from methyl_lightning.readers.genes import gene_key
from methyl_lightning.readers.matrices import Chunk, Matrix, read_all, text_matrix
from methyl_lightning.readers.progress import shown
from methyl_lightning.readers.text import column_key, refuse_cells, refuse_repeats

CHUNK_BYTES = 2**23
R_NAMES = {"probe": "methyl", "gene": "expressi"}  # of the matrices in the files of the original authors
BARCODE = re.compile(r"^(?P<patient>TCGA-\w\w-\w{4})(?:-(?P<tissue>\d\d)(?P<vial>[A-Z]?)(?:-[\w-]+)?)?$")

UNREAD = {
    ".rds": "is of saveRDS, which keeps no name of the object; write .RData with save() of R",
    ".loom": "is a loom file; write it as .h5ad: anndata.io.read_loom(FILE).write_h5ad(NAME)",
    ".zarr": "is a zarr store; write it as .h5ad: anndata.read_zarr(FOLDER).write_h5ad(NAME)",
    ".h5mu": "holds several AnnData; write that of the RNA as .h5ad: mudata.read(FILE)['rna'].write_h5ad(NAME)",
    ".h5seurat": "is a file of Seurat; write it as .h5ad: SeuratDisk::Convert(FILE, dest = 'h5ad')",
    ".mtx": "is a part of a 10x matrix; give the folder that it is in",
}
# columns of featureCounts, the GDC, GCT, RSEM, cBioPortal and others beside those of the samples
DESCRIBING = re.compile(
    r"(eff(ective)?_?)?length|width|chr(om(osome)?)?|start|end|strand|seqnames|locus|cytoband|description|biotype|"
    r"((hugo|hgnc|gene)_?)?symbol|gene_?(id|name|type|biotype|short_name)|feature_?(id|name|type)s?|"
    r"transcript_?id(\(s\))?|entrez_?(gene_?)?id|ensembl(_?gene)?(_?id)?|hgnc_id|external_gene_name|"
    r"exon_?count|gc(_?content)?|(base_?)?mean|log2?_?(fc|fold_?change)|lfcse|p_?val(ue)?|p_?adj|q_?val(ue)?|fdr"
)
log = logging.getLogger(__name__)


def refuse_unread(path: Path) -> None:
    """Refuse formats that are not read, by the ending of the name, and say what to do."""
    what = UNREAD.get(Path(path.name.lower().removesuffix(".gz")).suffix)
    if what is not None:
        raise InputError(f"{path}: {what}")


def is_barcode(name: str) -> bool:
    """Tell whether a name is a barcode, with dashes or dots."""
    return BARCODE.fullmatch(name.replace(".", "-")) is not None


def samples_are_rows(rows: Callable[[], list[str]], columns: list[str], known: Collection[str] = ()) -> bool:
    """Tell from the names of rows and columns which are samples; the rows' are asked for only where they matter."""
    if any(map(is_barcode, columns)):
        return False
    names = rows()
    if any(map(is_barcode, names[:1])):
        return True
    on_rows, on_columns = (sum(gene_key(name) in known for name in axis) if known else 0 for axis in (names, columns))
    return on_columns > on_rows


def open_matrix(path: Path, kind: str, *, missing: bool = False, known: Collection[str] = ()) -> Matrix:
    """Open a matrix by the ending of its name; its columns are the samples.

    Parameters
    ----------
    path
        ``.parquet``; ``.h5ad`` (its X); ``.RData``, ``.rda`` (a matrix or data frame ``methyl`` or ``expressi``);
        anything else is text with tabs, or with commas where the name says ``.csv``, perhaps ``.gz``.
    kind
        ``probe`` or ``gene``, what a feature is called in messages.
    missing
        Whether values may be missing.
    known
        Keys of genes (:func:`methyl_lightning.readers.genes.gene_key`) that tell which side is which.

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
    refuse_unread(path)
    matrix = readers.get(path.suffix.lower(), _text)(path, kind, missing, known)
    described = tuple(name for name in matrix.columns if DESCRIBING.fullmatch(column_key(name)))
    if described:
        log.info(f"{path}: columns {', '.join(described)} describe the rows and are no samples")
    columns = [name for name in matrix.columns if name not in described]
    refuse_repeats(path, "sample", columns)
    return matrix._replace(columns=columns, described=described)


def _text(path: Path, kind: str, missing: bool, known: Collection[str]) -> Matrix:
    matrix = text_matrix(path, kind, missing=missing)

    def rows() -> list[str]:
        chunks = matrix.chunks([])
        return [name for chunk in chunks for name in chunk.names] if known else next(chunks).names

    if not samples_are_rows(rows, matrix.columns, known):
        return matrix
    refuse_repeats(path, kind, matrix.columns)
    table = read_all(text_matrix(path, "sample", missing=missing))
    return _of_array(path, kind, table.to_numpy().T, table.columns.tolist(), table.index.tolist(), missing)


def _of_array(path: Path, kind: str, values_FS: Any, features: list[str], samples: list[str], missing: bool) -> Matrix:
    return _in_blocks(path, kind, features, samples, lambda rows: values_FS[rows], missing)


def _in_blocks(
    path: Path, kind: str, features: list[str], samples: list[str], read: Callable[[slice], Any], missing: bool
) -> Matrix:
    """Make a matrix of which ``read`` gives consecutive features of all samples, [F, S]."""
    refuse_repeats(path, kind, features)
    place = {name: s for s, name in enumerate(samples)}

    def chunks(columns: list[str]) -> Iterator[Chunk]:
        step = max(1, CHUNK_BYTES // (4 * len(samples)))
        sample_S = [place[name] for name in columns]
        with shown(path, len(features)) as tell:
            for start in range(0, len(features), step):
                names = features[start : start + step]
                try:
                    with np.errstate(invalid="ignore"):  # R's NA is a NaN that signals
                        values_FS = np.asarray(read(slice(start, start + len(names))), dtype=np.float32)[:, sample_S]
                except (ValueError, TypeError, OSError) as error:
                    raise InputError(
                        f"{path}: {kind} {names[0]!r} … {names[-1]!r} cannot be read as numbers ({error}); mend them"
                    ) from error
                tell(len(names))
                yield _finite(path, names, values_FS, columns, missing)

    return Matrix(path, samples, chunks)


def _finite(path: Path, names: list[str], values_FS: np.ndarray, columns: list[str], missing: bool) -> Chunk:
    refused_FS = np.isinf(values_FS) if missing else ~np.isfinite(values_FS)
    if refused_FS.any():
        refuse_cells(path, pd.DataFrame(values_FS, names, columns), refused_FS, "put a finite number there")
    return Chunk(names, values_FS)


def _parquet(path: Path, kind: str, missing: bool, known: Collection[str]) -> Matrix:
    """Open a parquet file whose index, or else first column of text, or else first column, names the rows."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: no parquet file ({error}); get it again") from error
    schema = file.schema_arrow
    index = [name for name in (schema.pandas_metadata or {}).get("index_columns", []) if isinstance(name, str)]
    text = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    column = [*index, *text, *schema.names][0]
    others = [name for name in schema.names if name != column]

    def rows() -> list[str]:
        return [str(name) for name in file.read(columns=[column]).column(0).to_pylist()]

    if not samples_are_rows(rows, others, known):
        return Matrix(path, others, lambda columns: _parquet_rows(path, file, kind, column, columns, missing))
    return _in_blocks(
        path, kind, others, rows(), lambda rows: file.read(columns=others[rows]).to_pandas()[others[rows]].T, missing
    )


def _parquet_rows(
    path: Path, file: pq.ParquetFile, kind: str, column: str, columns: list[str], missing: bool
) -> Iterator[Chunk]:
    seen: list[str] = []
    with shown(path, file.metadata.num_rows) as tell:
        for batch in file.iter_batches(max(1, CHUNK_BYTES // (4 * len(columns))), columns=[column, *columns]):
            names = [str(name) for name in batch.column(column).to_pylist()]
            seen += names
            values_SF = np.empty((len(columns), len(names)), np.float32)
            for s, name in enumerate(columns):
                try:
                    values_SF[s] = batch.column(name).to_numpy(zero_copy_only=False)
                except (ValueError, TypeError) as error:
                    raise InputError(f"{path}: column {name!r} holds no numbers ({error}); convert it") from error
            tell(len(names))
            yield _finite(path, names, values_SF.T, columns, missing)
    refuse_repeats(path, kind, seen)


def _h5ad(path: Path, kind: str, missing: bool, known: Collection[str]) -> Matrix:
    """Open the X of an .h5ad file, of which blocks are read where it is dense."""
    data = open_h5ad(path)
    values = data.values if isinstance(data.values, np.ndarray) or not hasattr(data.values, "to_memory") else None
    values = data.values.to_memory() if values is None else values
    values = values.toarray() if hasattr(values, "toarray") else values
    obs, var = data.obs.index.tolist(), data.var.index.tolist()
    if samples_are_rows(lambda: obs, var, known):
        return _in_blocks(path, kind, var, obs, lambda rows: values[:, rows].T, missing)
    return _of_array(path, kind, values, obs, var, missing)


def _rdata(path: Path, kind: str, missing: bool, known: Collection[str]) -> Matrix:
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
    rows, columns = table.index.astype(str).tolist(), table.columns.astype(str).tolist()
    if samples_are_rows(lambda: rows, columns, known):
        return _of_array(path, kind, table.to_numpy().T, columns, rows, missing)
    return _of_array(path, kind, table.to_numpy(), rows, columns, missing)
