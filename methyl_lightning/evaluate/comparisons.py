"""A model beside its references on the same cells: differences of their metrics, from the bootstraps that each left.

Every tested model leaves ``bootstrap.npz`` in its folder: the metrics of each view, and their values in the resamples,
which are the same patients and CpGs for every model that was tested on the same cells with the same seed.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from methyl_lightning.evaluate.table import CEILING, references
from methyl_lightning.files import InputError, replacing
from methyl_lightning.metrics.bootstrap import Bootstrap, difference, over_seeds
from methyl_lightning.metrics.names import HEADINGS, MAIN
from methyl_lightning.metrics.table import write_csv

FILE = "bootstrap.npz"
COLUMNS = (
    *("view", "model", "reference", "metric", "difference", "low", "high", "p"),
    *("low_cpgs", "high_cpgs", "p_cpgs"),
)


def cells_key(measured_CS: np.ndarray, patient_S: np.ndarray, seed: int) -> str:
    """Name the cells and the resamples of a view, so that only like is compared with like."""
    digest = hashlib.blake2b(np.ascontiguousarray(measured_CS).data, digest_size=16)
    digest.update("\n".join([str(seed), str(measured_CS.shape), *patient_S]).encode())
    return digest.hexdigest()


def save_bootstrap(folder: Path, found: Mapping[str, Mapping[str, Bootstrap]], keys: Mapping[str, str]) -> None:
    """Write the bootstrap of every view (float32), and the key of its cells, into a model's folder."""
    arrays = {f"{view}/cells": np.array(key) for view, key in keys.items()}
    for view, metrics in found.items():
        for name, one in metrics.items():
            arrays[f"{view}/{name}/value"] = np.array(one.value)
            arrays[f"{view}/{name}/patients"] = one.patients_R.astype(np.float32)
            arrays[f"{view}/{name}/cpgs"] = one.cpgs_R.astype(np.float32)
    with replacing(folder / FILE, "bootstrap") as path, path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def compare(model: Path, reference: Path) -> pd.DataFrame:
    """Subtract a reference's metrics from a model's, wherever both are defined.

    Parameters
    ----------
    model, reference
        Folders of two models that were tested on the same cells, in one run or in two with the same split and seed.

    Returns
    -------
    pandas.DataFrame
        view, metric, difference, its 95 % interval and two-sided p over patients, and the same over CpGs.

    Raises
    ------
    InputError
        If a folder has no bootstrap, or the cells or the seeds differ.
    """
    return compare_runs([model], [reference])


def compare_runs(models: Sequence[Path], references: Sequence[Path]) -> pd.DataFrame:
    """Subtract a reference's metrics from a model's, of one run or as means over runs that differ in their seeds.

    Parameters and what is returned are those of :func:`compare`, with a folder a run. With several runs intervals and
    p hold seeds as well as patients (CpGs), and a metric is compared where it is defined in every run.
    """
    pairs = [_read_pair(model, reference) for model, reference in zip(models, references, strict=True)]
    rows = []
    for view, name in pairs[0]:
        if not all((view, name) in pair for pair in pairs):
            continue
        runs = [pair[view, name] for pair in pairs]
        cells_N = [run.cells for run in runs]
        ours, theirs = (
            over_seeds([run.ours for run in runs], cells_N),
            over_seeds([run.theirs for run in runs], cells_N),
        )
        over = [
            difference(ours.value, theirs.value, *resamples)
            for resamples in ((ours.patients_R, theirs.patients_R), (ours.cpgs_R, theirs.cpgs_R))
        ]
        rows.append((view, name, *over[0], *over[1][1:]))
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if name not in ("model", "reference")])


class _Pair(NamedTuple):
    """A metric of two models on the same cells, each as :class:`Bootstrap`; and the key of the cells."""

    ours: Bootstrap
    theirs: Bootstrap
    cells: str


def _read_pair(model: Path, reference: Path) -> dict[tuple[str, str], _Pair]:
    """Read what two models have in common: by view and metric, where both are defined."""
    ours, theirs = read_bootstrap(model), read_bootstrap(reference)
    cells_of = {view: cells for (view, _), (cells, _) in theirs.items()}
    pairs = {}
    for (view, name), (cells, mine) in ours.items():
        if cells_of.get(view) != cells:
            raise InputError(
                f"{reference}: was not tested on the cells of {model} ({view}) with the same seed; "
                "use the same store, split and seed"
            )
        if (view, name) in theirs:  # an older version lacks some
            other = theirs[view, name][1]
            if not any(map(math.isnan, (mine.value, other.value))):
                pairs[view, name] = _Pair(mine, other, cells)
    return pairs


def read_bootstrap(folder: Path) -> dict[tuple[str, str], tuple[str, Bootstrap]]:
    """Read what a tested model has left: by view and metric, the key of the cells and the bootstrap.

    Raises
    ------
    InputError
        If there is none.
    """
    if not (folder / FILE).is_file():
        raise InputError(f"{folder / FILE}: no such file; test the model again with methyl_lightning.evaluate")
    with np.load(folder / FILE) as arrays:
        places = [key.removesuffix("/value") for key in arrays if key.endswith("/value")]
        return {
            (view, name): (
                str(arrays[f"{view}/cells"]),
                Bootstrap(float(arrays[f"{at}/value"]), arrays[f"{at}/patients"], arrays[f"{at}/cpgs"]),
            )
            for at in places
            for view, name in [tuple(at.split("/"))]
        }


def compare_references(folder: Path, label: str) -> pd.DataFrame:
    """Compare a run's model with each reference trained beside it, and write ``comparisons.csv`` where there is one."""
    parts = [
        compare(folder, path).assign(model=label, reference=path.name)
        for path in references(folder)
        if path.name != CEILING
    ]
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.concat(parts)[list(COLUMNS)]
    write_csv(table, folder / "comparisons.csv", "comparisons")
    return table


def comparison_lines(table: pd.DataFrame, view: str) -> list[str]:
    """Say in one line a reference how far the model is above it in a view, with p over patients and over CpGs."""
    lines = []
    for reference, rows in table[table["view"] == view].groupby("reference", sort=False):
        cells = [
            f"{HEADINGS[str(row.metric)]} {row.difference:+.3f} (p {row.p:.2g}; {row.p_cpgs:.2g})"
            for row in rows.itertuples()
            if row.metric in MAIN
        ]
        lines.append(f"  {rows['model'].iloc[0]} − {reference!s}: {', '.join(cells)}")
    if lines:
        lines.insert(0, f"differences on {view} (p over patients; over CpGs; all in comparisons.csv):")
    return lines
