"""Predictions to files, block by block: AnnData, Parquet, and the means of groups as bedGraph.

Legend: C CpGs, S samples, R groups.
"""

import re
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from methyl_lightning.data.sealed import new_hdf5
from methyl_lightning.data.store import UNKNOWN_POSITION
from methyl_lightning.files import InputError, replacing, replacing_folder
from methyl_lightning.metrics.table import without_formulas
from methyl_lightning.model.grid import describe_h5ad
from methyl_lightning.predict.prediction import Prepared, prepared

SUFFIXES = (".h5ad", ".parquet")
CHUNK = (256, 1024)  # samples and CpGs of an HDF5 chunk
Sink = Callable[[slice, np.ndarray], None]


def predict_to_file(
    output: str | Path, *inputs: Any, groupby: str | None = None, intervals: bool = True, **settings: Any
) -> list[str]:
    """Predict as :func:`methyl_lightning.predict.prediction.predict` does, but into files, whatever their size.

    Parameters
    ----------
    output
        New file: ``.h5ad``, or ``.parquet`` with one row a sample and one column a CpG.
    *inputs
        Checkpoint, expression and CpGs.
    groupby
        A column of the output's obs: the mean methylation of each of its values goes into a new folder beside
        ``output``, named after both: ``means.tsv``, and one bedGraph file a group, sorted.
    intervals
        Write the layers ``lower`` and ``upper`` (``.h5ad`` only).
    **settings
        See :func:`methyl_lightning.predict.prediction.predict`.

    Returns
    -------
    list of str
        The files that were written; how the input was matched is printed before prediction begins.

    Raises
    ------
    InputError
        If an output exists, or an input is refused; nothing is written then.
    """
    output = Path(output)
    if output.suffix not in SUFFIXES:
        raise InputError(f"{output}: must end in {' or '.join(SUFFIXES)}")
    folder = output.with_name(f"{output.stem}_by_{_file_name(groupby)}") if groupby else None
    for path in (output, folder):
        if path is not None and path.exists():
            raise InputError(f"{path}: exists already; name another output= or remove it")
    with prepared(*inputs, **settings) as ready:
        means = None if groupby is None else GroupMeans(ready, groupby)
        for note in ready.notes:
            print(note, flush=True)
        with replacing(output, "predictions") as temporary, ExitStack() as stack:
            write: Sink
            if output.suffix == ".parquet":
                write = _parquet_sink(ready, temporary, stack)
            else:
                write = _h5ad_sink(ready, temporary, stack, intervals)
            for rows, beta_SC in ready.blocks():
                write(rows, beta_SC)
                if means is not None:
                    means.add(rows, beta_SC)
            stack.close()
            if means is not None and folder is not None:
                means.write(folder)
    written = [f"{output}: {len(ready.obs):,} samples × {len(ready.var):,} CpGs, {output.stat().st_size / 1e6:,.1f} MB"]
    return [*written, f"{folder}: means of {len(means.names):,} groups"] if means is not None else written


def _h5ad_sink(ready: Prepared, path: Path, stack: ExitStack, intervals: bool) -> Sink:
    parts = {"obs": ready.obs, "var": ready.var, "obsm": ready.obsm, "uns": ready.uns}
    bounded = intervals and bool(ready.calibrations)
    names = ["X", "layers/lower", "layers/upper"] if bounded else ["X"]
    chunks = tuple(map(min, CHUNK, (len(ready.obs), len(ready.var))))
    file = stack.enter_context(new_hdf5(path, partial(describe_h5ad, matrices=names, chunks=chunks, **parts)))

    def write(rows: slice, beta_SC: np.ndarray) -> None:
        file["X"][rows] = beta_SC
        if bounded:
            file["layers/lower"][rows], file["layers/upper"][rows] = ready.bounds(rows, beta_SC)

    return write


def _parquet_sink(ready: Prepared, path: Path, stack: ExitStack) -> Sink:
    fields = [("sample", pyarrow.string()), *((name, pyarrow.float32()) for name in ready.var.index)]
    schema = pyarrow.schema(fields)
    writer = stack.enter_context(pyarrow.parquet.ParquetWriter(path, schema))
    names_S = ready.obs.index.to_numpy(str)

    def write(rows: slice, beta_SC: np.ndarray) -> None:
        columns = [pyarrow.array(names_S[rows].tolist()), *map(pyarrow.array, np.ascontiguousarray(beta_SC.T))]
        writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))

    return write


class GroupMeans:
    """Mean methylation of the groups of an obs column, summed up block by block."""

    def __init__(self, ready: Prepared, groupby: str):
        if groupby not in ready.obs:
            columns = ", ".join(map(str, ready.obs.columns)) or "none"
            raise InputError(f"groupby={groupby}: no such column in the output's obs (there are: {columns})")
        groups = pd.Categorical(ready.obs[groupby].astype("category").cat.remove_unused_categories())
        self.names, self.code_S = groups.categories.astype(str).tolist(), np.where(ready.rows.empty_R, -1, groups.codes)
        self.var = ready.var
        self.sum_RC = np.zeros((len(self.names), len(ready.var)))
        self.count_R = np.bincount(self.code_S[self.code_S >= 0], minlength=len(self.names))

    def add(self, rows: slice, beta_SC: np.ndarray) -> None:
        """Add a block of samples; those without a group count nowhere."""
        code_S = self.code_S[rows]
        for r in np.unique(code_S[code_S >= 0]):
            self.sum_RC[r] += beta_SC[code_S == r].sum(axis=0, dtype=np.float64)

    def write(self, folder: Path) -> None:
        """Write ``means.tsv`` and, of CpGs with a position, one bedGraph file a group, into a new folder."""
        mean_RC = self.sum_RC / self.count_R[:, None]
        place = self.var[["chrom", "position"]].astype({"chrom": str})
        with replacing_folder(folder, "means") as temporary:
            means = pd.DataFrame(mean_RC.T, index=self.var.index, columns=self.names)
            means.insert(0, "end", place["position"] + 1)
            means.insert(0, "start", place["position"])
            means.insert(0, "chrom", place["chrom"])
            without_formulas(means.round(6)).to_csv(temporary / "means.tsv", sep="\t", index_label="cpg")
            placed = means[means["start"] != UNKNOWN_POSITION]
            # one line a place, in the order of bedGraphToBigWig (LC_COLLATE=C)
            placed = placed.groupby(["chrom", "start", "end"], sort=True).mean().round(6).reset_index()
            used: set[str] = set()
            for name in self.names:
                file = _file_name(name)
                while file in used:
                    file += "_"
                used.add(file)
                columns = placed[["chrom", "start", "end", name]]
                columns.to_csv(temporary / f"{file}.bedGraph", sep="\t", index=False, header=False)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
