"""Expression as people have it: AnnData, 10x files, tables; rows are samples, cells or spots and are read on demand.

Legend: S samples, I genes of the input.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, sparse_dataset
from scipy import io, sparse

from methyl_lightning.files import InputError
from methyl_lightning.readers.genes import gene_key
from methyl_lightning.readers.matrices import read_all, text_matrix

TABLES = (".tsv", ".txt", ".csv", ".gz")


class Expression(NamedTuple):
    """Samples × genes and what describes them.

    Attributes
    ----------
    source
        Name for messages.
    obs, var
        Tables of samples and genes; their indices are the names.
    values
        [S, I]: an array, a CSR matrix, or one of both on disk.
    obsm, uns
        Of the AnnData, as far as a prediction carries them on.
    fallback_units
        What values without any sign of their own are taken for.
    """

    source: str
    obs: pd.DataFrame
    var: pd.DataFrame
    values: Any
    obsm: Mapping[str, Any]
    uns: Mapping[str, Any]
    fallback_units: str

    def rows(self, index: slice | np.ndarray) -> Any:
        """Read some samples, a slice or ascending row numbers, as a CSR matrix or an array [n, I]."""
        block: Any = self.values[index]
        return _as_csr(block) if sparse.issparse(block) else np.asarray(block)


@contextmanager
def open_expression(
    expression: str | Path | anndata.AnnData, layer: str | None, raw: bool, known: Collection[str]
) -> Iterator[Expression]:
    """Open expression for reading; a file on disk stays there.

    Parameters
    ----------
    expression
        An AnnData, or a path: ``.h5ad``; 10x ``.h5``; a folder with a 10x ``matrix.mtx``; ``.tsv``, ``.csv`` (perhaps
        zipped) or ``.parquet`` with genes on either axis.
    layer, raw
        Of an AnnData: the layer, or ``.raw``, to take instead of X.
    known
        Keys of the genes that the checkpoint knows (:func:`methyl_lightning.predict.genes.gene_key`); they tell which
        axis of a table the genes are on.

    Raises
    ------
    InputError
        If the input is missing, damaged or of another kind.
    """
    if layer is not None and raw:
        raise InputError(f"layer={layer}, raw=true: name one of them")
    if isinstance(expression, anndata.AnnData):
        yield _from_anndata(expression, layer, raw)
        return
    path = Path(expression)
    if not path.exists():
        raise InputError(f"{path}: no such expression file; check expression=")
    if path.suffix == ".h5ad":
        with _opened(path, "an AnnData file") as file:
            yield _from_h5ad(path, file, layer, raw)
        return
    if layer is not None or raw:
        raise InputError(f"{path}: layer= and raw= belong to .h5ad files; leave them out")
    if path.is_dir():
        yield _from_10x_folder(path)
    elif path.suffix in (".h5", ".hdf5"):
        with _opened(path, "a 10x file") as file:
            yield _from_10x_h5(path, file)
    elif path.suffix == ".parquet" or path.suffix in TABLES:
        yield _from_table(path, known)
    else:
        raise InputError(f"{path}: {path.suffix or 'no suffix'}; give .h5ad, 10x .h5 or folder, .tsv, .csv or .parquet")


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: not {kind} or truncated; export it again") from error
    with file:
        yield file


def _choose(source: str, layers: Collection[str], has_raw: bool, layer: str | None, raw: bool) -> None:
    if layer is not None and layer not in layers:
        raise InputError(f"{source}: no layer {layer!r} among {', '.join(layers) or 'none'}; choose one of them")
    if raw and not has_raw:
        raise InputError(f"{source}: has no .raw; leave raw=true out")


def _from_anndata(data: anndata.AnnData, layer: str | None, raw: bool) -> Expression:
    _choose("the AnnData", list(data.layers), data.raw is not None, layer, raw)
    values = data.raw.X if raw else data.X if layer is None else data.layers[layer]
    if values is None:
        raise InputError("the AnnData: has no X; name a layer, or raw=true")
    var = data.raw.var if raw else data.var
    return Expression("the AnnData", data.obs, var, _by_row(values), dict(data.obsm), dict(data.uns), "log1p")


def _from_h5ad(path: Path, file: h5py.File, layer: str | None, raw: bool) -> Expression:
    if not {"obs", "var"} <= set(file):
        raise InputError(f"{path}: not an AnnData file (no obs and var in it); write it with AnnData.write_h5ad")
    prefix = "raw/" if "raw" in file else "raw."  # the latter in files of anndata before 0.7
    _choose(str(path), list(file.get("layers", ())), f"{prefix}X" in file, layer, raw)
    name = f"{prefix}X" if raw else "X" if layer is None else f"layers/{layer}"
    if name not in file:
        raise InputError(f"{path}: has no X; name a layer, or raw=true")
    try:
        values = sparse_dataset(file[name]) if isinstance(file[name], h5py.Group) else file[name]
        obs, var = read_elem(file["obs"]), read_elem(file[f"{prefix}var" if raw else "var"])
        obsm, uns = (read_elem(file[part]) if part in file else {} for part in ("obsm", "uns"))
    except Exception as error:  # whatever anndata raises for a layout that it does not know
        raise InputError(f"{path}: not an AnnData file that anndata reads ({error}); write it again") from error
    return Expression(str(path), obs, var, _by_row(values), obsm, uns, "log1p")


def _as_csr(values: Any) -> sparse.csr_matrix:
    return sparse.csr_matrix(values)  # of the older kind, whose @ and isinstance are alike in all versions


def _by_row(values: Any) -> Any:
    """Turn column-wise sparse matrices, on disk or not, into rows in memory; leave all others."""
    if getattr(values, "format", "") in ("csc", "coo"):
        return _as_csr(values if sparse.issparse(values) else values.to_memory())
    return values


def _from_10x_h5(path: Path, file: h5py.File) -> Expression:
    group = next((file[name] for name in file if isinstance(file[name], h5py.Group) and "barcodes" in file[name]), None)
    if group is None or not {"data", "indices", "indptr", "shape"} <= set(group):
        raise InputError(f"{path}: not a 10x matrix (no barcodes and data in it); give filtered_feature_bc_matrix.h5")
    # one column a cell, compressed by column, is one row a cell, compressed by row
    counts_SI = sparse.csr_matrix(
        (group["data"][:], group["indices"][:], group["indptr"][:]), shape=tuple(group["shape"][:])[::-1]
    )
    if "features" in group:
        ids, names = group["features/id"], group["features/name"]
    else:
        ids, names = group["genes"], group["gene_names"]
    var = pd.DataFrame({"gene_ids": ids.asstr()[:]}, index=pd.Index(names.asstr()[:]))
    obs = pd.DataFrame(index=pd.Index(group["barcodes"].asstr()[:]))
    return Expression(str(path), obs, var, counts_SI, {}, {}, "counts")


def _from_10x_folder(folder: Path) -> Expression:
    def find(*names: str) -> Path:
        found = [
            folder / f"{name}{end}" for name in names for end in ("", ".gz") if (folder / f"{name}{end}").is_file()
        ]
        if not found:
            raise InputError(f"{folder}: no {' or '.join(names)} (.gz) in it; give the folder of a 10x matrix")
        return found[0]

    matrix = find("matrix.mtx")
    try:
        counts_SI = sparse.csr_matrix(io.mmread(str(matrix)).T)
        genes = pd.read_csv(find("features.tsv", "genes.tsv"), sep="\t", header=None, dtype=str, keep_default_na=False)
        barcodes = pd.read_csv(find("barcodes.tsv"), sep="\t", header=None, dtype=str, keep_default_na=False)
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: not a 10x matrix ({error}); get it again") from error
    if counts_SI.shape != (len(barcodes), len(genes)):
        raise InputError(
            f"{folder}: matrix.mtx has {counts_SI.shape[::-1]}, the lists {(len(genes), len(barcodes))} rows"
        )
    var = pd.DataFrame({"gene_ids": genes[0].to_numpy()}, index=pd.Index(genes[min(1, genes.shape[1] - 1)]))
    return Expression(str(folder), pd.DataFrame(index=pd.Index(barcodes[0])), var, counts_SI, {}, {}, "counts")


def _from_table(path: Path, known: Collection[str]) -> Expression:
    if path.suffix == ".parquet":
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a Parquet table ({error}); write it again") from error
        words = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
        if words:
            table = table.set_index(words[0])
        if len(words) > 1:
            raise InputError(f"{path}: column {words[1]!r} holds no numbers; keep one column of names")
    else:
        table = read_all(text_matrix(path, "row", separator="," if ".csv" in path.suffixes else "\t"))
    table.index, table.columns = table.index.astype(str), table.columns.astype(str)
    on_rows, on_columns = (sum(gene_key(name) in known for name in axis) for axis in (table.index, table.columns))
    if on_rows > on_columns:
        table = table.T
    table.index.name = table.columns.name = None
    return Expression(
        str(path), table.index.to_frame()[[]], table.columns.to_frame()[[]], table.to_numpy(), {}, {}, "log2"
    )
