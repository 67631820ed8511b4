"""Which CpGs of a cohort are kept, and how many each filter dropped.

What is known of a CpG before its values are read decides first (:func:`by_annotation`), its values after
(:func:`by_values`); both give a mask and one line of counts a filter. The most variable CpGs are no filter of the
store: they are chosen on the training samples, after the split.

Legend: C CpGs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from methyl_lightning.data.distances import within
from methyl_lightning.data.store import Distances
from methyl_lightning.files import InputError
from methyl_lightning.readers.probes import AUTOSOMES, chromosome
from methyl_lightning.readers.text import read_lines


class FilterCount(NamedTuple):
    """What one filter left, and what it dropped of the CpGs that the filters before it had left."""

    filter: str
    kept: int
    dropped: int


@dataclass(frozen=True)
class Selection:
    """Settings of the filters; the defaults keep every CpG that stands on CG.

    Parameters
    ----------
    on_cg
        Drop probes whose sequence has other bases than CG in its centre (``ch`` and ``rs`` probes, shifted positions);
        one without bases stays.
    ids
        File with the CpGs to keep, one a line (of several columns the first).
    exclude
        File with CpGs to drop, such as cross-reactive probes; likewise.
    autosomes
        Keep chromosomes 1 to 22 only.
    bed
        BED file (0-based, half-open) of the regions to keep.
    gene_within_bp
        Keep CpGs with a gene of the cohort within so many base pairs.
    min_measured
        Smallest share of samples in which a CpG is measured, 0 to 1.

    Raises
    ------
    ValueError
        If a number is outside its range.
    """

    on_cg: bool = True
    ids: str | Path | None = None
    exclude: str | Path | None = None
    autosomes: bool = False
    bed: str | Path | None = None
    gene_within_bp: int | None = None
    min_measured: float = 0.0

    def __post_init__(self):
        if not 0 <= self.min_measured <= 1:
            raise ValueError(f"min_measured={self.min_measured!r}: must be a share from 0 to 1")
        if self.gene_within_bp is not None and (self.gene_within_bp < 0 or self.gene_within_bp % 1):
            raise ValueError(f"gene_within_bp={self.gene_within_bp!r}: must be null or a whole number from 0")


def read_ids(path: Path) -> set[str]:
    """Read a list of CpGs: the first column of a text file, without empty lines and those that begin with ``#``."""
    lines = (line.decode("utf-8-sig", errors="replace").replace(",", " ").split() for line in read_lines(path))
    ids = {cells[0].strip('"') for cells in lines if cells and not cells[0].startswith("#")}
    if not ids:
        raise InputError(f"{path}: empty; put one CpG a line there")
    return ids


def in_bed(path: Path, cpgs: pd.DataFrame) -> np.ndarray:
    """Tell for each CpG whether the C lies in a region of a BED file (bool [C]); without a position it doesn't.

    Raises
    ------
    InputError
        If a line is no region, or there is none.
    """
    regions = []
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.decode("utf-8-sig", errors="replace").split()
        if not cells or cells[0].startswith("#") or cells[0] in ("track", "browser"):
            continue
        if len(cells) < 3 or not (cells[1].isdecimal() and cells[2].isdecimal()) or int(cells[1]) >= int(cells[2]):
            found = " ".join(cells[:3])
            raise InputError(f"{path}: line {number} is '{found}', not chromosome, start < end; mend or remove it")
        regions.append((chromosome(cells[0]), int(cells[1]), int(cells[2])))
    if not regions:
        raise InputError(f"{path}: no region in it; give a BED file")
    table = pd.DataFrame(regions, columns=["chrom", "start", "end"]).sort_values(["chrom", "start"])
    chrom_C, position_C = cpgs["chrom"].to_numpy(), cpgs["position"].to_numpy(np.int64)
    inside_C = np.zeros(len(cpgs), dtype=bool)
    for chrom, some in table.groupby("chrom"):
        on_C = np.flatnonzero(chrom_C == chrom)
        n_begun = np.searchsorted(some["start"], position_C[on_C], side="right")
        reach = np.concatenate([[0], np.maximum.accumulate(some["end"])])  # end of the farthest region begun so far
        inside_C[on_C] = position_C[on_C] < reach[n_begun]
    return inside_C


def by_annotation(
    selection: Selection, cpgs: pd.DataFrame, distances: Distances, limit_bp: int, off_cg_C: np.ndarray
) -> tuple[np.ndarray, list[FilterCount]]:
    """Apply the filters that need no values.

    Parameters
    ----------
    selection
        Settings.
    cpgs
        Columns id, chrom, position.
    distances, limit_bp
        Of the same CpGs, and how far they reach.
    off_cg_C
        bool [C]; other bases than CG are known to stand there (:class:`methyl_lightning.readers.fasta.Centres`).

    Returns
    -------
    tuple
        bool [C], and one count a filter that was asked for, the first one of all CpGs.

    Raises
    ------
    InputError
        If a file is missing or damaged, none of ``ids`` is a CpG of the cohort, ``gene_within_bp`` is farther than the
        distances reach, or no CpG is left.
    """
    masks: dict[str, np.ndarray] = {}
    if selection.on_cg:
        masks["on CG"] = ~off_cg_C
    if selection.ids is not None:
        masks[f"in {Path(selection.ids).name}"] = listed_C = cpgs["id"].isin(read_ids(Path(selection.ids))).to_numpy()
        if not listed_C.any():
            raise InputError(f"{selection.ids}: none of its CpGs is in the cohort ({cpgs['id'].iloc[0]!r}, …)")
    if selection.exclude is not None:
        name = f"not in {Path(selection.exclude).name}"
        masks[name] = ~cpgs["id"].isin(read_ids(Path(selection.exclude))).to_numpy()
    if selection.autosomes:
        masks["on chromosomes 1–22"] = cpgs["chrom"].isin(AUTOSOMES).to_numpy()
    if selection.bed is not None:
        masks[f"in {Path(selection.bed).name}"] = in_bed(Path(selection.bed), cpgs)
    if selection.gene_within_bp is not None:
        if selection.gene_within_bp > limit_bp:
            raise InputError(
                f"gene_within_bp={selection.gene_within_bp} is farther than limit_bp={limit_bp}; raise that"
            )
        masks[f"gene within {selection.gene_within_bp:,} bp"] = within(distances, selection.gene_within_bp)
    keep_C, counts = np.ones(len(cpgs), dtype=bool), [FilterCount("all", len(cpgs), 0)]
    for name, mask_C in masks.items():
        keep_C, count = _narrow(keep_C, name, mask_C)
        counts.append(count)
    return keep_C, counts


def by_values(selection: Selection, measured_C: np.ndarray, keep_C: np.ndarray) -> tuple[np.ndarray, list[FilterCount]]:
    """Apply the filter that needs values to those CpGs that are still kept.

    Parameters
    ----------
    selection
        Settings.
    measured_C
        Share of samples in which each CpG is measured.
    keep_C
        bool [C], of :func:`by_annotation`.

    Returns
    -------
    tuple
        bool [C], and one count, or none where ``min_measured`` is 0.

    Raises
    ------
    InputError
        If no CpG is left.
    """
    if selection.min_measured == 0:
        return keep_C, []
    name = f"measured in {selection.min_measured:.0%} of samples"
    keep_C, count = _narrow(keep_C, name, measured_C >= selection.min_measured)
    return keep_C, [count]


def _narrow(keep_C: np.ndarray, name: str, mask_C: np.ndarray) -> tuple[np.ndarray, FilterCount]:
    left_C = keep_C & mask_C
    if not left_C.any():
        raise InputError(f"no CpG is left by the filter '{name}' of the {int(keep_C.sum()):,} before it; widen it")
    return left_C, FilterCount(name, int(left_C.sum()), int((keep_C & ~mask_C).sum()))


def count_table(counts: list[FilterCount]) -> str:
    """Set the counts as lines of text."""
    width = max(len(count.filter) for count in counts)
    header = f"{'filter':<{width}}  {'kept':>9}  {'dropped':>9}"
    return "\n".join([header, *(f"{name:<{width}}  {kept:>9,}  {dropped:>9,}" for name, kept, dropped in counts)])
