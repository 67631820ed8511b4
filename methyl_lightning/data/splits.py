"""Views of the grid: CpGs and patients are divided once, saved by id, and every later command reads them again.

A view is one CpG set × one sample set. Samples are divided by patient, so no patient stands on two sides. CpGs are
divided at random, or by chromosome or blocks of positions, so that no test CpG has a neighbour in training.

Axis letters: C CpGs, S samples.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from methyl_lightning.data.store import Store
from methyl_lightning.data.texts import check_text
from methyl_lightning.files import InputError, replacing

PARTS = ("train", "val", "test")
CPG_SPLITS = ("random", "chromosome", "blocks")
BLOCK_BP, GAP_BP = 1_000_000, 10_000
TEST_VIEWS = ("test_cpg-train_sample", "train_cpg-test_sample", "test_cpg-test_sample")
HEADLINE = "test_cpg-test_sample"  # CpGs and patients unseen


class Split(NamedTuple):
    """Which rows of the store stand where, and how the CpGs came there.

    Attributes
    ----------
    cpg, sample
        Row numbers of each part (``cpg["train"]``, ``sample["test"]``, …), each sorted.
    how
        Plain JSON values: ``cpg_split``; ``cpgs``, the counts of CpGs in the store, with the distances and chromosomes
        that were asked for, and after the choice of the most variable; ``chromosomes`` of each part, or ``blocks``:
        their length and the gap in base pairs, how many each part has, and the training CpGs within the gap.
    """

    cpg: dict[str, np.ndarray]
    sample: dict[str, np.ndarray]
    how: Mapping[str, Any] = {}

    def view(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the CpG and sample rows of a view such as ``test_cpg-train_sample``."""
        cpg_part, sample_part = name.split("-")
        return self.cpg[cpg_part.removesuffix("_cpg")], self.sample[sample_part.removesuffix("_sample")]


def _parts(n: int, fractions: Sequence[float], rng: np.random.Generator) -> dict[str, np.ndarray]:
    order = rng.permutation(n)
    n_test, n_val = (round(fraction * n) for fraction in (fractions[2], fractions[1]))
    return {"test": order[:n_test], "val": order[n_test : n_test + n_val], "train": order[n_test + n_val :]}


def _whole_parts(group_C: np.ndarray, fractions: Sequence[float], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw whole groups of CpGs for test, then val, as long as each brings the part's size nearer to its share."""
    names, group_C, counts = np.unique(group_C, return_inverse=True, return_counts=True)
    left = rng.permutation(len(names)).tolist()
    parts = {}
    for part, fraction, kept in (("test", fractions[2], 2), ("val", fractions[1], 1)):
        drawn: list[int] = []
        missing = fraction * len(group_C)
        for name in list(left):
            if len(left) > kept and abs(missing - counts[name]) < abs(missing):
                drawn.append(name)
                left.remove(name)
                missing -= counts[name]
        if not drawn:  # all are more than twice as large as the part should be
            drawn.append(min(left, key=lambda name: counts[name]))
            left.remove(drawn[0])
        parts[part] = np.flatnonzero(np.isin(group_C, drawn))
    return parts | {"train": np.flatnonzero(np.isin(group_C, left))}


def _near_blocks(
    chrom_C: np.ndarray, position_C: np.ndarray, block_C: np.ndarray, held_out_C: np.ndarray, block_bp: int, gap_bp: int
) -> np.ndarray:
    """Tell which CpGs lie in a block of the held-out CpGs, or within the gap of one: bool [C]."""
    near_C = np.full(len(chrom_C), False)
    for chrom in np.unique(chrom_C[held_out_C]):
        mine_C = chrom_C == chrom
        starts = np.unique(block_C[mine_C & held_out_C]) * block_bp
        position_N = position_C[mine_C]
        # of the blocks that begin at most one gap behind a CpG the last one reaches farthest
        last_N = np.searchsorted(starts, position_N + gap_bp, side="left") - 1
        near_C[mine_C] = (last_N >= 0) & (position_N - (starts[last_N] + block_bp - 1) < gap_bp)
    return near_C


def beta_variance(store: Store, cpg_C: np.ndarray, sample_S: np.ndarray) -> np.ndarray:
    """Measure the variance of each CpG over samples: float64 [C], NaN with fewer than two measured cells."""
    n_C, _, square_C = store.beta_moments(cpg_C, sample_S)
    return np.divide(square_C, n_C - 1, out=np.full(len(cpg_C), np.nan), where=n_C > 1)


def make_split(
    store: Store,
    fractions: Sequence[float],
    seed: int,
    eligible_cpg_C: np.ndarray | None = None,
    cpg_split: str = "random",
    most_variable: int | None = None,
    block_bp: int = BLOCK_BP,
    gap_bp: int = GAP_BP,
) -> Split:
    """Divide patients, then CpGs, into train, val and test.

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
    cpg_split
        ``random``; or ``chromosome`` or ``blocks``: whole chromosomes, or blocks of ``block_bp`` base pairs, are drawn,
        so that sizes only come near the fractions. CpGs without a place are then left out, as they could be neighbours
        of any other.
    most_variable
        Keep only so many CpGs: those with the largest variance over the *training* samples (None: all).
    block_bp, gap_bp
        Length of the blocks, counted from the beginning of each chromosome; and which training CpGs are left out:
        those less than ``gap_bp`` base pairs away from the nearest base of a validation or test block.

    Raises
    ------
    InputError
        If a part is left with fewer than two samples or CpGs, there are fewer than three chromosomes or blocks to
        divide, or fewer CpGs with a variance than asked for.
    """
    if len(fractions) != 3 or abs(sum(fractions) - 1) > 1e-6 or min(fractions) <= 0:
        raise ValueError(f"fractions={list(fractions)}: must be three positive shares that sum to 1")
    if cpg_split not in CPG_SPLITS:
        raise ValueError(f"cpg_split={cpg_split!r}: must be one of {CPG_SPLITS}")
    if most_variable is not None and most_variable < 1:
        raise ValueError(f"most_variable={most_variable}: must be at least 1, or null for all CpGs")
    if block_bp < 1 or gap_bp < 0:
        raise ValueError(f"cpg_block_bp={block_bp} must be at least 1, cpg_gap_bp={gap_bp} at least 0")
    patients, patient_S = np.unique(store.samples["patient"].to_numpy(str), return_inverse=True)
    cpg_rng, patient_rng = (np.random.default_rng([seed, axis]) for axis in (0, 1))
    sample = {
        part: np.flatnonzero(np.isin(patient_S, rows))
        for part, rows in _parts(len(patients), fractions, patient_rng).items()
    }
    chrom_C = store.cpgs["chrom"].to_numpy(str)
    position_C = store.cpgs["position"].to_numpy(np.int64)
    block_C = position_C // block_bp
    eligible_C = np.full(len(chrom_C), True) if eligible_cpg_C is None else eligible_cpg_C
    if cpg_split != "random":
        eligible_C = eligible_C & (chrom_C != "")
    if cpg_split == "blocks":
        eligible_C = eligible_C & (position_C >= 0)
    cpgs = np.flatnonzero(eligible_C)
    how: dict[str, Any] = {"cpg_split": cpg_split, "cpgs": {"store": len(chrom_C), "eligible": len(cpgs)}}
    if most_variable is not None:
        cpgs = _most_variable(store, cpgs, sample["train"], most_variable)
        how["cpgs"]["most_variable"] = len(cpgs)
    cpg = _divide_cpgs(store, cpgs, cpg_split, block_bp, fractions, cpg_rng)
    if cpg_split == "blocks":
        held_out_C = np.isin(np.arange(len(chrom_C)), [*cpg["val"], *cpg["test"]])
        near_C = _near_blocks(chrom_C, position_C, block_C, held_out_C, block_bp, gap_bp)
        counts = {part: len(set(zip(chrom_C[rows], block_C[rows], strict=True))) for part, rows in cpg.items()}
        left_out = int(near_C[cpg["train"]].sum())
        how["blocks"] = {"bp": block_bp, "gap_bp": gap_bp, **counts, "left_out": left_out}
        if left_out > len(cpg["train"]) - 2:
            raise InputError(
                f"{store.path}: {left_out} of {len(cpg['train'])} training CpGs are less than {gap_bp:,} bp from a "
                "block of val or test; lower data.cpg_gap_bp"
            )
        cpg["train"] = cpg["train"][~near_C[cpg["train"]]]
    _check_parts(store, "CpGs", cpg, len(cpgs))
    _check_parts(store, "samples", sample, len(patient_S))
    if cpg_split == "chromosome":
        how["chromosomes"] = {part: np.unique(chrom_C[cpg[part]]).tolist() for part in PARTS}
    return Split(cpg, sample, how)


def _divide_cpgs(
    store: Store, cpgs: np.ndarray, cpg_split: str, block_bp: int, fractions: Sequence[float], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Divide rows of CpGs at random, or by whole chromosomes or blocks; sorted."""
    if cpg_split == "random":
        parts = _parts(len(cpgs), fractions, rng)
    else:
        table = store.cpgs.iloc[cpgs]
        group_C = table["chrom"].to_numpy(str)
        if cpg_split == "blocks":
            group_C = np.char.add(np.char.add(group_C, ":"), (table["position"].to_numpy() // block_bp).astype(str))
        if (n_groups := len(set(group_C))) < 3:
            many, remedy = "known chromosomes", "take data.cpg_split=random"
            if cpg_split == "blocks":
                many, remedy = f"blocks of {block_bp:,} bp", "lower data.cpg_block_bp"
            raise InputError(
                f"{store.path}: the {len(cpgs)} CpGs that may take part lie on {n_groups} {many}, "
                f"cpg_split={cpg_split} needs at least 3; {remedy}"
            )
        parts = _whole_parts(group_C, fractions, rng)
    return {part: np.sort(cpgs[rows]) for part, rows in parts.items()}


def _most_variable(store: Store, cpg_C: np.ndarray, sample_S: np.ndarray, n: int) -> np.ndarray:
    variance_C = beta_variance(store, cpg_C, sample_S)
    known = int(np.isfinite(variance_C).sum())
    if known < n:
        raise InputError(
            f"{store.path}: {known} CpGs have a variance over the {len(sample_S)} training samples, "
            f"{n} are asked for; lower data.most_variable"
        )
    return np.sort(cpg_C[np.argsort(-variance_C, kind="stable")[:n]])  # NaN comes last


def _check_parts(store: Store, axis: str, parts: Mapping[str, np.ndarray], total: int) -> None:
    for part in PARTS:
        if len(parts[part]) < 2:
            raise InputError(
                f"{store.path}: the {part} part has {len(parts[part])} of {total} {axis}, at least 2 are needed; "
                "give it a larger share (data.fractions) or use a larger cohort"
            )


def describe_split(split: Split) -> str:
    """Say in one line how many CpGs and samples each part has, and how the CpGs were chosen and divided."""
    sizes = [
        " + ".join(f"{len(rows)} {part}" for part, rows in ((part, parts[part]) for part in PARTS)) + f" {axis}"
        for axis, parts in (("CpGs", split.cpg), ("samples", split.sample))
    ]
    if not split.how:  # saved before it was noted
        return f"split: {', '.join(sizes)}"
    counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in split.how["cpgs"].items())
    parts = split.how.get("chromosomes", {})
    held_out = "".join(f", {part}: {' '.join(parts[part])}" for part in ("val", "test") if part in parts)
    if blocks := split.how.get("blocks"):
        held_out = (
            f" of {blocks['bp']:,} bp ({', '.join(f'{blocks[part]} {part}' for part in PARTS)}), {gap_line(blocks)}"
        )
    return f"split: {', '.join(sizes)}; CpGs: {counts}, divided by {split.how['cpg_split']}{held_out}"


def gap_line(blocks: Mapping[str, int]) -> str:
    """Say how many training CpGs the gap around the blocks of val and test has cost."""
    return f"{blocks['left_out']:,} training CpGs within {blocks['gap_bp']:,} bp of a val or test block left out"


def save_split(split: Split, store: Store, path: Path) -> None:
    """Write the ids of every part, and how CpGs were chosen, as JSON."""
    ids: dict[str, Any] = {
        axis: {part: table["id"].to_numpy(str)[parts[part]].tolist() for part in PARTS}
        for axis, parts, table in (("cpg", split.cpg, store.cpgs), ("sample", split.sample, store.samples))
    }
    with replacing(path, "split") as temporary:
        temporary.write_text(json.dumps({"how": dict(split.how), **ids}, indent=1))


def load_split(path: Path, store: Store) -> Split:
    """Read a saved split and find its ids in the store, whatever their order there.

    Raises
    ------
    InputError
        If the file is missing or an id is not in the store.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such split; it is saved by training beside the checkpoints' folder")
    check_text(path)
    try:
        ids = json.loads(path.read_text())
        wanted = {axis: {part: list(ids[axis][part]) for part in PARTS} for axis in ("cpg", "sample")}
        how = dict(ids.get("how", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a saved split; training writes one as split.json into its run folder") from error
    rows_of: dict[str, dict[str, np.ndarray]] = {}
    for axis, table in (("cpg", store.cpgs), ("sample", store.samples)):
        index = pd.Index(table["id"])
        rows_of[axis] = {}
        for part in PARTS:
            rows = index.get_indexer(wanted[axis][part])
            if (rows < 0).any():
                unknown = wanted[axis][part][int(np.argmin(rows))]
                raise InputError(f"{path}: {axis} {unknown!r} is not in {store.path}; name the training's store")
            rows_of[axis][part] = np.sort(rows)
    return Split(rows_of["cpg"], rows_of["sample"], how)
