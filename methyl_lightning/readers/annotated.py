"""Samples × genes with what describes them: AnnData in memory or on disk, and what 10x Genomics writes.

Legend: S samples, I genes of the input.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, sparse_dataset
from scipy import io, sparse

from methyl_lightning.data.sealed import check_inside
from methyl_lightning.files import InputError
from methyl_lightning.readers.assemblies import species_of


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
    log1p
        What scanpy noted of these values in ``uns["log1p"]``.
    kept_I
        Columns of ``values`` that ``var`` describes; None where it describes all.
    notes
        What a person should know of how it was read, one line each.
    """

    source: str
    obs: pd.DataFrame
    var: pd.DataFrame
    values: Any
    obsm: Mapping[str, Any]
    uns: Mapping[str, Any]
    fallback_units: str
    log1p: Mapping[str, Any] | None = None
    kept_I: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def rows(self, index: slice | np.ndarray) -> Any:
        """Read some samples, a slice or ascending row numbers, as a CSR matrix or an array [n, I]."""
        block: Any = self.values[index]
        block = _as_csr(block) if sparse.issparse(block) else np.asarray(block)
        return block if self.kept_I is None else block[:, self.kept_I]

    def turned(self) -> "Expression":
        """Exchange samples and genes, in memory."""
        values = self.values.to_memory() if hasattr(self.values, "to_memory") else self.values[:]
        return self._replace(obs=self.var, var=self.obs, values=_by_row(values.T), obsm={}, uns={})


def _as_csr(values: Any) -> sparse.csr_matrix:
    return sparse.csr_matrix(values)  # of the older kind, whose @ and isinstance are alike in all versions


def _by_row(values: Any) -> Any:
    """Turn column-wise sparse matrices, on disk or not, into rows in memory; leave all others."""
    if getattr(values, "format", "") in ("csc", "coo"):
        return _as_csr(values if sparse.issparse(values) else values.to_memory())
    return values


def _choose(source: str, layers: Collection[str], has_raw: bool, layer: str | None, raw: bool) -> None:
    if layer is not None and layer not in layers:
        raise InputError(f"{source}: no layer {layer!r} among {', '.join(layers) or 'none'}; choose one of them")
    if raw and not has_raw:
        raise InputError(f"{source}: has no .raw; leave raw=true out")


def from_anndata(data: anndata.AnnData, layer: str | None, raw: bool) -> Expression:
    """Take X, a layer or ``.raw`` of an AnnData; the note about a logarithm is one about X."""
    _choose("the AnnData", list(data.layers), data.raw is not None, layer, raw)
    values = data.raw.X if raw else data.X if layer is None else data.layers[layer]
    if values is None:
        raise InputError("the AnnData: has no X; name a layer, or raw=true")
    var = data.raw.var if raw else data.var
    log1p = data.uns.get("log1p") if layer is None and not raw else None
    return Expression("the AnnData", data.obs, var, _by_row(values), dict(data.obsm), dict(data.uns), "log1p", log1p)


def _open_hdf5(path: Path, kind: str) -> h5py.File:
    try:
        file = h5py.File(path, "r")
        check_inside(file, "export it again")
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(f"{path}: no {path.suffix} file: {kind}, or truncated; export it again") from error
    return file


def open_h5ad(path: Path, layer: str | None = None, raw: bool = False) -> Expression:
    """Open X, a layer or ``.raw`` of an .h5ad file, which stays on disk as long as anything refers to it."""
    file = _open_hdf5(path, "not an AnnData file")
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
    if tuple(values.shape) != (len(obs), len(var)):
        sizes = f"{len(obs):,} observations and {len(var):,} variables"
        raise InputError(f"{path}: {name} is {tuple(values.shape)}, for {sizes}; write it again from AnnData")
    log1p = uns.get("log1p") if name == "X" else None
    return Expression(str(path), obs, var, _by_row(values), obsm, uns, "log1p", log1p)


def read_10x_h5(path: Path, assembly: str = "") -> Expression:
    """Read the .h5 file of a 10x matrix of any version; of those of several genomes that of the assembly's species."""
    file = _open_hdf5(path, "not a 10x file")
    groups = [name for name in file if isinstance(file[name], h5py.Group) and "barcodes" in file[name]]
    fitting = groups if len(groups) < 2 else [name for name in groups if species_of(name) == species_of(assembly) != ""]
    if groups and len(fitting) != 1:
        raise InputError(f"{path}: has matrices of {', '.join(groups)}, the assembly is {assembly!r}; keep one of them")
    if not groups or not {"data", "indices", "indptr", "shape"} <= set(file[fitting[0]]):
        raise InputError(f"{path}: not a 10x matrix (no barcodes and data in it); give filtered_feature_bc_matrix.h5")
    group = file[fitting[0]]
    features = group.get("features", {})
    try:
        # one column a cell, compressed by column, is one row a cell, compressed by row
        counts_SI = sparse.csr_matrix(
            (group["data"][:], group["indices"][:], group["indptr"][:]), shape=tuple(group["shape"][:])[::-1]
        )
        ids, names = (features["id"], features["name"]) if features else (group["genes"], group["gene_names"])
        described = {"gene_ids": ids, "feature_types": features.get("feature_type"), "genome": features.get("genome")}
        columns = {name: texts.asstr()[:] for name, texts in described.items() if texts is not None}
        var = pd.DataFrame(columns, index=pd.Index(names.asstr()[:]))
        obs = pd.DataFrame(index=pd.Index(group["barcodes"].asstr()[:]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a whole 10x matrix ({' '.join(str(error).split())}); get it again") from error
    if counts_SI.shape != (len(obs), len(var)):
        raise InputError(f"{path}: its matrix is {counts_SI.shape}, for {len(obs):,} cells and {len(var):,} features")
    notes = (f"genes: of the matrices of {', '.join(groups)} that of {fitting[0]} is taken",) if len(groups) > 1 else ()
    return Expression(str(path), obs, var, counts_SI, {}, {}, "counts", notes=notes)


def read_10x_folder(folder: Path) -> Expression:
    """Read the folder of a 10x matrix of any version."""

    def find(*names: str) -> Path:
        files = [f"{name}{end}" for name in names for end in ("", ".gz")]
        paths = [folder / file for file in files if (folder / file).is_file()][:1]
        paths = paths or [path for file in files for path in folder.glob(f"*[_.-]{file}")]  # GEO sets GSM… before them
        if len(paths) != 1:
            counted = "more than one" if paths else "no"
            raise InputError(f"{folder}: {counted} {' or '.join(names)} (.gz) in it; give the folder of a 10x matrix")
        return paths[0]

    matrix, features, barcodes = find("matrix.mtx"), find("features.tsv", "genes.tsv"), find("barcodes.tsv")
    try:
        counts_SI = sparse.csr_matrix(io.mmread(str(matrix)).T)
        genes, cells = (
            pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3)
            for path in (features, barcodes)
        )
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{folder}: not a 10x matrix ({error}); get it again") from error
    if counts_SI.shape != (len(cells), len(genes)):
        counted = f"matrix.mtx has {counts_SI.shape[::-1]}, the lists {(len(genes), len(cells))} rows"
        raise InputError(f"{folder}: {counted}; genes are its rows, and the lists have no header")
    columns = dict(zip(("gene_ids", "", "feature_types"), (genes[k].to_numpy() for k in genes), strict=False))
    names = columns.pop("", columns["gene_ids"])
    obs = pd.DataFrame(index=pd.Index(cells[0].to_numpy()))
    return Expression(str(folder), obs, pd.DataFrame(columns, index=pd.Index(names)), counts_SI, {}, {}, "counts")
