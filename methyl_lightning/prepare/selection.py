"""Which CpGs of a cohort are kept, and how many each filter dropped.

What is known of a CpG before its values are read decides first (:func:`by_annotation`), its values after
(:func:`by_values`); both give a mask and one line of counts a filter. The most variable CpGs are no filter of the
store: they are chosen on the training samples, after the split.

Legend: C CpGs.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from methyl_lightning.data.distances import within
from methyl_lightning.data.store import Distances
from methyl_lightning.files import InputError
from methyl_lightning.readers.cpgs import in_bed, read_names
from methyl_lightning.readers.probes import AUTOSOMES

log = logging.getLogger(__name__)


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
        List of the CpGs to keep (:func:`methyl_lightning.readers.cpgs.read_names`).
    exclude
        List of CpGs to drop, such as cross-reactive probes.
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
        If a file is missing or damaged, none of a list is a CpG of the cohort, ``gene_within_bp`` is farther than the
        distances reach, or no CpG is left.
    """
    masks: dict[str, np.ndarray] = {}
    if selection.on_cg:
        masks["on CG"] = ~off_cg_C
    if selection.ids is not None:
        masks[f"in {Path(selection.ids).name}"] = _listed(Path(selection.ids), cpgs["id"])
    if selection.exclude is not None:
        masks[f"not in {Path(selection.exclude).name}"] = ~_listed(Path(selection.exclude), cpgs["id"])
    if selection.autosomes:
        masks["on chromosomes 1–22"] = cpgs["chrom"].isin(AUTOSOMES).to_numpy()
    if selection.bed is not None:
        masks[f"in {Path(selection.bed).name}"] = inside_C = in_bed(Path(selection.bed), cpgs)
        if not inside_C.any():
            places = (cpgs["chrom"] + ":" + cpgs["position"].astype(str))[cpgs["chrom"] != ""].head(2)
            wrong = f"no CpG is left by the filter 'in {Path(selection.bed).name}'"
            raise InputError(f"{wrong}: none of its regions holds one ({', '.join(places)}, …); check {selection.bed}")
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


def _listed(path: Path, ids: pd.Series) -> np.ndarray:
    """Tell which CpGs a list names (bool [C]), and how many of its names are CpGs of the cohort."""
    names = set(read_names(path, set(ids)))
    listed_C = ids.isin(names).to_numpy()
    if not listed_C.any():
        has = f"{ids.iloc[0]!r}, … there, {min(names)!r}, … here"
        raise InputError(f"{path}: none of its CpGs is in the cohort ({has}); use the same names")
    log.info(f"{path}: {int(listed_C.sum()):,} of its {len(names):,} CpGs are in the cohort")
    return listed_C


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
