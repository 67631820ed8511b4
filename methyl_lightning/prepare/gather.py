"""Beta values of several cohorts, spilled to scratch files as they are read and gathered into one grid.

Legend: R rows of a chunk, C CpGs of the grid, S samples (of one cohort, or of all beside each other).
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from methyl_lightning.data.store import BETA_MISSING, encode_beta
from methyl_lightning.readers.matrices import Chunk
from methyl_lightning.readers.probes import plain_name

log = logging.getLogger(__name__)


@dataclass
class Spilled:
    """Beta values of one cohort in a scratch file, as steps of the store, in the order of its table.

    Attributes
    ----------
    path
        uint16 [R, S] and nothing else.
    cpgs
        Names of the rows.
    measured_C
        Number of samples in which each CpG has a value.
    n_samples
        Number of columns.
    """

    path: Path
    cpgs: pd.Index
    measured_C: np.ndarray
    n_samples: int

    def rows(self, row_R: np.ndarray) -> np.ndarray:
        """Read rows in any order; the map goes with the call, so that its pages do not add up."""
        steps_CS = np.memmap(self.path, np.uint16, "r", shape=(len(self.cpgs), self.n_samples))
        return steps_CS[row_R]


def spill(path: Path, chunks: Iterable[Chunk], n_samples: int) -> Spilled:
    """Write the values of a cohort as they come."""
    cpgs: list[str] = []
    measured = []
    with path.open("wb") as file:
        for names, values_RS in chunks:
            steps_RS = np.ascontiguousarray(encode_beta(values_RS))
            file.write(steps_RS.data)
            cpgs += names
            measured.append((steps_RS != BETA_MISSING).sum(axis=1))
    return Spilled(path, pd.Index(cpgs), np.concatenate(measured), n_samples)


def one_of_each(source: Path, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Name CpGs without the suffixes of EPICv2; of several probes of one CpG the first is taken, and it is said so."""
    seen: set[str] = set()
    n_suffixes = n_probes = 0
    for names, values_RS in chunks:
        plain = [plain_name(name) for name in names]
        first_R = [name not in seen and not seen.add(name) for name in plain]  # type: ignore[func-returns-value]
        n_suffixes += sum(map(str.__ne__, names, plain))
        n_probes += len(names)
        yield Chunk([name for name, first in zip(plain, first_R, strict=True) if first], values_RS[first_R])
    if n_suffixes:
        log.info(f"{source}: {n_probes:,} probes of {len(seen):,} CpGs (EPICv2), of several of one the first is taken")


def join_cpgs(cohorts: list[Spilled], how: str) -> pd.Index:
    """Name the CpGs that any (``union``) or each (``intersection``) of the cohorts has, in the order of the first."""
    cpgs = cohorts[0].cpgs
    for cohort in cohorts[1:]:
        more = cohort.cpgs[~cohort.cpgs.isin(cpgs)]
        cpgs = cpgs.append(more) if how == "union" else cpgs[cpgs.isin(cohort.cpgs)]
    return cpgs


def measured_share(cohorts: list[Spilled], cpgs: pd.Index) -> np.ndarray:
    """Tell in which share of all samples each CpG has a value."""
    counts = [pd.Series(cohort.measured_C, cohort.cpgs).reindex(cpgs, fill_value=0) for cohort in cohorts]
    return np.sum(counts, axis=0) / sum(cohort.n_samples for cohort in cohorts)


@dataclass
class LazyRows:
    """A matrix whose blocks of rows are made, once and in order, when they are asked for (a ``store.Rows``)."""

    shape: tuple[int, int]
    read: Callable[[slice], np.ndarray]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.read(rows)

    def telling(self, tell: Callable[[int, float], None]) -> "LazyRows":
        """Tell the number of rows of each block and the share so far."""

        def read(rows: slice) -> np.ndarray:
            block = self.read(rows)
            tell(len(block), rows.stop / self.shape[0])
            return block

        return LazyRows(self.shape, read)


def gather(cohorts: list[Spilled], cpgs: pd.Index) -> LazyRows:
    """Set the samples of the cohorts beside each other; a CpG that a cohort lacks is missing there (uint16 steps)."""
    row_of = [cohort.cpgs.get_indexer(cpgs) for cohort in cohorts]
    bounds = np.cumsum([0, *(cohort.n_samples for cohort in cohorts)])

    def read(rows: slice) -> np.ndarray:
        steps_CS = np.full((rows.stop - rows.start, bounds[-1]), BETA_MISSING, np.uint16)
        for cohort, row_C, start, stop in zip(cohorts, row_of, bounds[:-1], bounds[1:], strict=True):
            row_R = row_C[rows]
            steps_CS[row_R >= 0, start:stop] = cohort.rows(row_R[row_R >= 0])
        return steps_CS

    return LazyRows((len(cpgs), int(bounds[-1])), read)
