"""What lies around a CpG: its island, the probes of the array, the CpGs of the genome.

Legend: C CpGs, P columns of :data:`methyl_lightning.data.store.ANNOTATION`, R reaches, I islands.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from methyl_lightning.data.store import ANNOTATION, AROUND_BP
from methyl_lightning.readers.fasta import Fasta, cpg_positions
from methyl_lightning.readers.probes import chromosome, read_columns

SHORE_BP, SHELF_BP = 2_000, 4_000  # from the island's bounds
N_ISLAND = len(ANNOTATION) - 2 * len(AROUND_BP)


class Landmarks(NamedTuple):
    """Ascending positions of the probes, and bounds [I, 2] of the islands, 0-based and half-open, of each chromosome.

    Both are empty where a table doesn't name them.
    """

    probes: dict[str, np.ndarray]
    islands: dict[str, np.ndarray]


def read_landmarks(path: Path, base: int) -> Landmarks:
    """Read probes and islands from an annotation of an array, which may lack either.

    Parameters
    ----------
    path
        Table with columns such as ``chr``, ``pos`` and ``Islands_Name`` (``chr1:100-200``, counted from 1).
    base
        Position of the first base of a chromosome, 1 or 0.
    """
    table = read_columns(path, ["id"], ["chrom", "chromStart", "island_name"])
    position = pd.to_numeric(table["chromStart"], errors="coerce")
    placed = table[position.between(base, 10**11) & (table["chrom"] != "")]
    probes = {
        chromosome(str(chrom)): np.sort(position[rows].to_numpy(np.int64) - base)
        for chrom, rows in placed.groupby("chrom").groups.items()
    }
    names = pd.Series(table["island_name"].unique()).str.extract(r"^(\w+):(\d{1,11})-(\d{1,11})$").dropna()
    islands = {
        chromosome(str(chrom)): np.sort(rows[[1, 2]].astype(np.int64).to_numpy() - [1, 0], axis=0)
        for chrom, rows in names.groupby(0)
    }
    return Landmarks(probes, islands)


def annotate(cpgs: pd.DataFrame, landmarks: Landmarks | None = None, genome: Fasta | None = None) -> np.ndarray:
    """Describe what lies around CpGs.

    Parameters
    ----------
    cpgs
        Columns chrom and position (0-based, −1 unknown).
    landmarks
        Of an array, on the same assembly.
    genome
        FASTA of the assembly.

    Returns
    -------
    numpy.ndarray
        float32 [C, P], the columns of ``ANNOTATION``: whether the CpG lies in an island, at most 2 kb from one, at most
        4 kb, farther; log(1 + bp) to the nearest one, and of its length where it is at most 4 kb away; whether it is at
        most 2 kb away; log(1 + number) of the probes, and of the genome's CpGs, within ±100 bp … 50 kb. NaN where
        unknown.
    """
    annotation_CP = np.full((len(cpgs), len(ANNOTATION)), np.nan, dtype=np.float32)
    position_C = cpgs["position"].to_numpy(np.int64)
    of_islands, of_probes, of_genome = np.split(np.arange(len(ANNOTATION)), [N_ISLAND, N_ISLAND + len(AROUND_BP)])
    codes_C, chroms = pd.factorize(cpgs["chrom"])
    for code, chrom in enumerate(chroms):
        rows_C = np.flatnonzero((codes_C == code) & (position_C >= 0))
        place_C = position_C[rows_C]
        if landmarks is not None and chrom in landmarks.islands:
            annotation_CP[np.ix_(rows_C, of_islands)] = _island(place_C, landmarks.islands[chrom])
        if landmarks is not None and chrom in landmarks.probes:
            annotation_CP[np.ix_(rows_C, of_probes)] = _crowd(place_C, landmarks.probes[chrom])
        sites = None if genome is None or not len(rows_C) else cpg_positions(genome, chrom)
        if sites is not None:
            annotation_CP[np.ix_(rows_C, of_genome)] = _crowd(place_C, sites)
    return annotation_CP


def _crowd(place_C: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """Count ascending sites within each reach: log(1 + number), [C, R]."""
    counts = [
        np.searchsorted(sites, place_C + reach, "right") - np.searchsorted(sites, place_C - reach)
        for reach in AROUND_BP
    ]
    return np.log1p(np.stack(counts, axis=1))


def _island(place_C: np.ndarray, bounds_I2: np.ndarray) -> np.ndarray:
    """Describe the nearest of islands that do not overlap: [C, 7]."""
    after_C = np.searchsorted(bounds_I2[:, 0], place_C, "right")
    beside_C2 = np.clip(np.stack([after_C - 1, after_C], axis=1), 0, len(bounds_I2) - 1)
    start_C2, end_C2 = bounds_I2[beside_C2, 0], bounds_I2[beside_C2, 1]
    bp_C2 = np.maximum(np.maximum(start_C2 - place_C[:, None], place_C[:, None] - end_C2 + 1), 0)
    nearest_C1 = bp_C2.argmin(axis=1)[:, None]
    bp_C = np.take_along_axis(bp_C2, nearest_C1, axis=1)[:, 0]
    length_C = np.take_along_axis(end_C2 - start_C2, nearest_C1, axis=1)[:, 0]
    zones = [bp_C == 0, (bp_C > 0) & (bp_C <= SHORE_BP), (bp_C > SHORE_BP) & (bp_C <= SHELF_BP), bp_C > SHELF_BP]
    return np.stack([*zones, np.log1p(bp_C), np.log1p(length_C) * (bp_C <= SHELF_BP), bp_C <= SHORE_BP], axis=1)
