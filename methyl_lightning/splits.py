"""Views of the grid: CpGs and patients are divided once, saved by id, and every later command reads them again.

A view is one CpG set × one sample set. Samples are divided by patient, so no patient stands on two sides.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from methyl_lightning.store import InputError, Store

PARTS = ("train", "val", "test")
TEST_VIEWS = ("test_cpg-train_sample", "train_cpg-test_sample", "test_cpg-test_sample")


class Split(NamedTuple):
    """Row numbers of the store for each part: ``cpg["train"]``, ``sample["test"]``, …, each sorted."""

    cpg: dict[str, np.ndarray]
    sample: dict[str, np.ndarray]

    def view(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the CpG and sample rows of a view such as ``test_cpg-train_sample``."""
        cpg_part, sample_part = name.split("-")
        return self.cpg[cpg_part.removesuffix("_cpg")], self.sample[sample_part.removesuffix("_sample")]


def _parts(n: int, fractions: Sequence[float], rng: np.random.Generator) -> dict[str, np.ndarray]:
    order = rng.permutation(n)
    n_test, n_val = (round(fraction * n) for fraction in (fractions[2], fractions[1]))
    return {"test": order[:n_test], "val": order[n_test : n_test + n_val], "train": order[n_test + n_val :]}


def make_split(store: Store, fractions: Sequence[float], seed: int, eligible_cpg_C: np.ndarray | None = None) -> Split:
    """Divide CpGs and patients at random into train, val and test.

    Parameters
    ----------
    store
        The cohort.
    fractions
        Shares of train, val and test, which sum to 1; they hold for CpGs and for patients.
    seed
        Fixes the split.
    eligible_cpg_C
        bool [C], the CpGs that take part (default: all).

    Raises
    ------
    InputError
        If a part is left with fewer than two samples or CpGs.
    """
    if len(fractions) != 3 or abs(sum(fractions) - 1) > 1e-6 or min(fractions) <= 0:
        raise ValueError(f"fractions={list(fractions)}: must be three positive shares that sum to 1")
    cpgs = np.arange(len(store.cpgs)) if eligible_cpg_C is None else np.flatnonzero(eligible_cpg_C)
    patients, patient_S = np.unique(store.samples["patient"].to_numpy(str), return_inverse=True)
    cpg_rng, patient_rng = (np.random.default_rng([seed, axis]) for axis in (0, 1))
    cpg = {part: np.sort(cpgs[rows]) for part, rows in _parts(len(cpgs), fractions, cpg_rng).items()}
    sample = {
        part: np.flatnonzero(np.isin(patient_S, rows))
        for part, rows in _parts(len(patients), fractions, patient_rng).items()
    }
    for axis, parts, total in (("CpGs", cpg, len(cpgs)), ("samples", sample, len(patient_S))):
        for part in PARTS:
            if len(parts[part]) < 2:
                raise InputError(
                    f"{store.path}: the {part} part has {len(parts[part])} of {total} {axis}, at least 2 are needed; "
                    "give it a larger share (data.fractions) or use a larger cohort"
                )
    return Split(cpg, sample)


def save_split(split: Split, store: Store, path: Path) -> None:
    """Write the ids of every part as JSON."""
    ids = {
        axis: {part: table["id"].to_numpy(str)[parts[part]].tolist() for part in PARTS}
        for axis, parts, table in (("cpg", split.cpg, store.cpgs), ("sample", split.sample, store.samples))
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ids, indent=1))


def load_split(path: Path, store: Store) -> Split:
    """Read a saved split and find its ids in the store, whatever their order there.

    Raises
    ------
    InputError
        If the file is missing or an id is not in the store.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such split; it is saved by training beside the checkpoints' folder")
    try:
        ids = json.loads(path.read_text())
        wanted = {axis: {part: list(ids[axis][part]) for part in PARTS} for axis in Split._fields}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a saved split; training writes one as split.json into its run folder") from error
    found: dict[str, dict[str, np.ndarray]] = {}
    for axis, table in (("cpg", store.cpgs), ("sample", store.samples)):
        index = pd.Index(table["id"])
        found[axis] = {}
        for part in PARTS:
            rows = index.get_indexer(wanted[axis][part])
            if (rows < 0).any():
                unknown = wanted[axis][part][int(np.argmin(rows))]
                raise InputError(f"{path}: {axis} {unknown!r} is not in {store.path}; name the training's store")
            found[axis][part] = np.sort(rows)
    return Split(found["cpg"], found["sample"])
